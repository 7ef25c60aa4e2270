//! One start and one stop, step by step.

use std::sync::Arc;

use serde_json::{Value, json};
use stoppablecontainer_api::names::ANNOTATION_RESTARTED_AT;

use super::*;
use crate::reconcile::instance::fixtures::{changed, observed, terminating, with_both, with_provider};
use crate::reconcile::instance::state::Slot;
use crate::reconcile::instance::status::status;
use crate::reconcile::pods::Role;
use crate::reconcile::pods::fixtures::{edit, instance, out_of_cpu, pod, up};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn time(second: i64) -> Value {
    json!(at(second).to_string())
}

/// `observed` with the status `old`, seen at `second`: its steps.
fn seen(observed: &Observed, old: &Value, second: i64) -> (Value, StoppableContainerInstanceStatus) {
    let mut observed = observed.clone();
    let mut instance = serde_json::to_value(&*observed.instance).unwrap();
    json_patch::merge(&mut instance, &json!({ "status": old }));
    observed.instance = Arc::new(serde_json::from_value(instance).unwrap());
    let status = status(&observed, at(second));
    let steps = json!({ "lastStart": status.last_start, "lastStop": status.last_stop });
    (steps, status)
}

/// The consumer, created and scheduled one second apart, and ready at `ready`.
fn consumer(observed: &Observed, created: i64, ready: Option<i64>) -> Observed {
    let slot = changed(observed.consumer.pod().unwrap(), |pod| {
        pod.metadata.creation_timestamp = Some(Time(at(created)));
        let mut conditions = json!([
            { "type": "PodScheduled", "status": "True", "lastTransitionTime": time(created + 1) },
        ]);
        if let Some(ready) = ready {
            let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": time(ready) });
            conditions.as_array_mut().unwrap().push(ready);
        }
        pod.status.get_or_insert_default().conditions = serde_json::from_value(conditions).unwrap();
    });
    Observed {
        consumer: slot,
        ..observed.clone()
    }
}

#[test]
fn i12_the_steps_of_a_first_start_are_recorded() {
    let (steps, _) = seen(&observed(instance(json!({}))), &json!({}), 0);
    assert_eq!(
        steps,
        json!({ "lastStart": { "requestedAt": time(0) }, "lastStop": null })
    );

    let instance = instance(json!({ "status": steps }));
    let placeholder = pod(&instance, Role::Placeholder, json!({}));
    let placed = Observed {
        placeholder: changed(&placeholder, |pod| {
            let condition =
                json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": time(2) }]);
            pod.status.get_or_insert_default().conditions = serde_json::from_value(condition).unwrap();
        }),
        ..observed(instance)
    };
    let (steps, _) = seen(&placed, &json!({}), 3);
    assert_eq!(
        steps["lastStart"],
        json!({ "requestedAt": time(0), "scheduledAt": time(2) })
    );

    let (steps, status) = seen(&with_provider(json!({})), &steps, 5);
    let expected = json!({
        "requestedAt": time(0), "scheduledAt": time(2), "providerReadyAt": time(5), "filesystemReadyAt": time(5),
    });
    assert_eq!(steps["lastStart"], expected);

    let running = consumer(&with_both(json!({}), up()), 6, Some(9));
    let (steps, _) = seen(&running, &serde_json::to_value(status).unwrap(), 9);
    let start = &steps["lastStart"];
    assert_eq!(
        (&start["scheduledAt"], &start["providerReadyAt"]),
        (&time(2), &time(5))
    );
    assert_eq!(
        (&start["consumerCreatedAt"], &start["readyAt"]),
        (&time(6), &time(9))
    );
    assert_eq!(steps["lastStop"], Value::Null);
}

/// The kubelet calls the pod ready while its command waits for an announced filesystem.
#[test]
fn i12_a_start_is_ready_when_its_filesystem_is() {
    let announced = json!({ "status": { "filesystem": { "state": "Preparing", "announced": true } } });
    let waiting = consumer(&with_both(announced, up()), 1, Some(2));
    let asked = json!({ "lastStart": { "requestedAt": time(0) } });
    let (steps, status) = seen(&waiting, &asked, 3);
    assert_eq!(steps["lastStart"]["readyAt"], Value::Null);

    let prepared = consumer(&with_both(json!({}), up()), 1, Some(2));
    let mut old = serde_json::to_value(status).unwrap();
    old["filesystem"] = serde_json::to_value(prepared.status().filesystem).unwrap();
    let (steps, _) = seen(&prepared, &old, 4);
    assert_eq!(steps["lastStart"]["readyAt"], time(4));
}

/// What was there before the start was requested is not one of its steps.
#[test]
fn i12_a_later_start_begins_anew() {
    let since = json!([
        { "type": "ProviderReady", "status": "True", "reason": "AsRequested", "message": "", "lastTransitionTime": time(1) },
        { "type": "FilesystemReady", "status": "True", "reason": "AsRequested", "message": "", "lastTransitionTime": time(1) },
    ]);
    let old = json!({
        "conditions": since,
        "lastStart": { "requestedAt": time(0), "consumerCreatedAt": time(3), "readyAt": time(4) },
        "lastStop": { "reason": "Stopped", "requestedAt": time(50), "consumerGoneAt": time(60) },
    });
    let (stopped, _) = seen(&with_provider(json!({ "spec": { "running": false } })), &old, 70);
    assert_eq!(stopped["lastStart"], old["lastStart"], "the last one stays");
    assert_eq!(stopped["lastStop"], old["lastStop"]);
    let created = consumer(&with_both(json!({}), json!({})), 101, None);
    let (_, asked) = seen(&with_provider(json!({})), &old, 100);
    let (steps, _) = seen(&created, &serde_json::to_value(asked).unwrap(), 102);
    let expected =
        json!({ "requestedAt": time(100), "scheduledAt": time(102), "consumerCreatedAt": time(101) });
    assert_eq!(steps["lastStart"], expected);
}

#[test]
fn a_start_that_never_had_a_pod_is_forgotten() {
    let old = json!({ "lastStart": { "requestedAt": time(0) } });
    let (steps, _) = seen(&with_provider(json!({ "spec": { "running": false } })), &old, 5);
    assert_eq!(steps["lastStart"], Value::Null);
}

#[test]
fn i12_a_stop_is_recorded_with_its_reason() {
    let running = json!({ "consumerPodUid": "consumer-uid" });
    let stop = |observed: &Observed| seen(observed, &running, 5).0["lastStop"].clone();
    let asked = with_both(json!({ "spec": { "running": false } }), up());
    assert_eq!(
        stop(&asked),
        json!({ "reason": "Stopped", "requestedAt": time(5) })
    );
    let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    assert_eq!(stop(&with_both(deleted, up()))["reason"], "Deleting");
    assert_eq!(stop(&with_both(json!({}), out_of_cpu()))["reason"], "OutOfcpu");
    let up = with_both(json!({}), up());
    assert_eq!(stop(&up), Value::Null);
    let gone = |slot| Observed {
        consumer: slot,
        ..up.clone()
    };
    let leaving = gone(terminating(up.consumer.pod().unwrap()));
    assert_eq!(stop(&leaving)["reason"], "Deleted");
    let evicted = gone(changed(leaving.consumer.pod().unwrap(), |pod| {
        let condition = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }]);
        pod.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
    }));
    assert_eq!(stop(&evicted)["reason"], "EvictionByEvictionAPI");
    assert_eq!(
        stop(&gone(Slot::Free)),
        json!({ "reason": "Deleted", "consumerGoneAt": time(5) }),
        "by force"
    );
    let mut instance = (*up.instance).clone();
    edit(&mut instance, |template| {
        template["metadata"] = json!({ "annotations": { ANNOTATION_RESTARTED_AT: "1" } });
    });
    let restart = Observed {
        instance: Arc::new(instance),
        ..up
    };
    assert_eq!(stop(&restart)["reason"], "Restarted");
}

/// The reason and the time of the request stay until the pod is gone.
#[test]
fn i12_a_stop_ends_when_the_pod_is_gone() {
    let old = json!({
        "consumerPodUid": "consumer-uid",
        "lastStart": { "requestedAt": time(0), "consumerCreatedAt": time(1), "readyAt": time(2) },
        "lastStop": { "reason": "Restarted", "requestedAt": time(5) },
    });
    let up = with_both(json!({}), up());
    let leaving = Observed {
        consumer: terminating(up.consumer.pod().unwrap()),
        ..up.clone()
    };
    let (steps, _) = seen(&leaving, &old, 6);
    assert_eq!(
        (&steps["lastStop"], &steps["lastStart"]),
        (&old["lastStop"], &old["lastStart"])
    );
    let gone = json!({ "reason": "Restarted", "requestedAt": time(5), "consumerGoneAt": time(7) });
    let (steps, _) = seen(&with_provider(json!({})), &old, 7);
    assert_eq!(steps["lastStop"], gone);
    assert_eq!(steps["lastStart"]["requestedAt"], time(7));
    assert!(steps["lastStart"].get("consumerCreatedAt").is_none());
    // Its successor is created in the same pass.
    let successor = Observed {
        consumer: changed(up.consumer.pod().unwrap(), |pod| {
            pod.metadata.uid = Some("next".to_owned());
        }),
        ..up
    };
    let (steps, _) = seen(&consumer(&successor, 7, None), &old, 7);
    assert_eq!(steps["lastStop"], gone);
    assert_eq!(steps["lastStart"]["requestedAt"], time(7));
    assert_eq!(steps["lastStart"]["consumerCreatedAt"], time(7));
}
