//! The conditions ConsumerScheduled and Stopped.

use stoppablecontainer_api::names::GATE_PLACEHOLDER;

use super::*;

/// Status, reason and message of a condition.
fn told(observed: &Observed, kind: &str) -> String {
    let conditions = status(observed, now()).conditions;
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    format!("{} {}: {}", found.status, found.reason, found.message)
}

/// A pod that no node was found for.
fn unscheduled(reason: &str) -> Value {
    json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": reason, "message": "0/1 nodes",
    }] })
}

/// The consumer without a node, changed by `change`.
fn queued(observed: &Observed, change: impl FnOnce(&mut k8s_openapi::api::core::v1::Pod)) -> Observed {
    let consumer = changed(observed.consumer.pod().unwrap(), |pod| {
        pod.spec.as_mut().unwrap().node_name = None;
        change(pod);
    });
    Observed {
        consumer,
        ..observed.clone()
    }
}

fn gate(pod: &mut k8s_openapi::api::core::v1::Pod, name: &str) {
    let gates = json!([{ "name": name }]);
    pod.spec.as_mut().unwrap().scheduling_gates = serde_json::from_value(gates).unwrap();
}

#[test]
fn i12_scheduled_has_the_words_of_the_scheduler() {
    let scheduled = |observed: &Observed| told(observed, CONSUMER_SCHEDULED);
    let of_placeholder = |status: Value, node: Option<&str>| {
        let instance = instance(json!({}));
        let pod = pod(&instance, Role::Placeholder, status);
        let placeholder = changed(&pod, |pod| {
            pod.spec.as_mut().unwrap().node_name = node.map(str::to_owned);
        });
        Observed {
            placeholder,
            ..observed(instance)
        }
    };
    assert_eq!(
        scheduled(&of_placeholder(json!({}), None)),
        "False Starting: pod web-placeholder waits for the scheduler to choose a node"
    );
    assert_eq!(
        scheduled(&of_placeholder(unscheduled("Unschedulable"), None)),
        "False Unschedulable: pod web-placeholder: 0/1 nodes"
    );
    let chosen = "True Scheduled: node n1 was chosen";
    assert_eq!(scheduled(&of_placeholder(json!({}), Some("n1"))), chosen);
    assert_eq!(
        scheduled(&with_provider(json!({}))),
        "False Starting: pod web has not been created yet"
    );
    let running = with_both(json!({}), up());
    assert_eq!(scheduled(&running), chosen);
    let waits = with_both(json!({}), unscheduled("Unschedulable"));
    assert_eq!(
        scheduled(&queued(&waits, |_| {})),
        "False Unschedulable: 0/1 nodes"
    );
    let fresh = with_both(json!({}), json!({}));
    assert_eq!(
        scheduled(&queued(&fresh, |_| {})),
        "False Starting: pod web waits for the scheduler"
    );
    let gated = with_both(json!({}), unscheduled("SchedulingGated"));
    let reserved = queued(&gated, |pod| gate(pod, GATE_PLACEHOLDER));
    assert_eq!(scheduled(&reserved), chosen, "the placeholder holds the room");
    assert_eq!(
        reasons(&status(&reserved, now()))[3],
        "-Starting",
        "a step of the normal way"
    );
    let foreign = queued(&gated, |pod| gate(pod, "kueue.x-k8s.io/admission"));
    let expected = "False SchedulingGated: pod web has scheduling gates (kueue.x-k8s.io/admission) and waits until the \
                    component that set them removes them";
    assert_eq!(scheduled(&foreign), expected);
    assert_eq!(told(&foreign, CONSUMER_READY), expected);
    assert_eq!(told(&foreign, READY), expected);
    let invalid = json!({ "spec": { "template": { "spec": { "containers": 7 } } } });
    assert!(scheduled(&observed(instance(invalid))).starts_with("False TemplateInvalid: "));
    let cordoned = Observed {
        node_cordoned: true,
        ..queued(&waits, |_| {})
    };
    assert!(scheduled(&cordoned).starts_with("False NodeCordoned: "));
}

#[test]
fn i12_a_stopped_object_has_no_consumer_to_schedule() {
    let stopped = with_provider(json!({ "spec": { "running": false } }));
    assert_eq!(
        told(&stopped, CONSUMER_SCHEDULED),
        "False Stopped: running is false"
    );
    let deleted = with_provider(deleting());
    assert_eq!(
        told(&deleted, CONSUMER_SCHEDULED),
        "False Deleting: the object is being deleted"
    );
}

#[test]
fn i12_stopped_is_that_no_consumer_runs_and_none_is_to() {
    let is_stopped = |observed: &Observed| told(observed, STOPPED_CONDITION);
    let stop = json!({ "spec": { "running": false } });
    assert_eq!(
        is_stopped(&with_provider(stop.clone())),
        "True Stopped: pod web does not run"
    );
    let stopping = with_both(stop, up());
    assert_eq!(is_stopped(&stopping), "False Stopping: pod web still exists");
    let silent = silent(stopping.clone());
    assert!(is_stopped(&silent).starts_with("Unknown NodeUnreachable: "));
    let released = json!({ "spec": { "running": false, "provider": { "whileStopped": "Release" } } });
    assert!(
        is_stopped(&with_provider(released)).starts_with("True "),
        "the provider is not the container"
    );
    for running in [with_provider(json!({})), with_both(json!({}), up())] {
        assert_eq!(is_stopped(&running), "False RunRequested: running is true");
    }
    assert_eq!(
        is_stopped(&with_provider(deleting())),
        "True Stopped: pod web does not run"
    );
}
