//! Every step has one event, about the object that the user made.

use kube::runtime::events::EventType;
use serde_json::json;

use super::*;
use crate::reconcile::instance::fixtures::{changed, observed, terminating, with_both, with_provider};
use crate::reconcile::instance::status::status;
use crate::reconcile::pods::fixtures::{instance, out_of_cpu, up};

/// The steps of `pass` after `before`, as `TypeReason`.
fn told(before: &Observed, pass: &Observed) -> Vec<String> {
    let of = |observed: &Observed| status(observed, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    words(&events(&of(before), &of(pass), pass, None))
}

fn words(events: &[Event]) -> Vec<String> {
    let sign = |event: &Event| if event.type_ == EventType::Normal { "" } else { "!" };
    events
        .iter()
        .map(|event| format!("{}{}", sign(event), event.reason))
        .collect()
}

fn stopped() -> Observed {
    with_provider(json!({ "spec": { "running": false } }))
}

#[test]
fn i12_every_step_of_a_start_and_a_stop_has_one_event() {
    let new = observed(instance(json!({})));
    let preparing = with_provider(json!({ "status": { "filesystem": { "state": "Preparing" } } }));
    let prepared = with_provider(json!({}));
    let starting = with_both(json!({}), json!({ "phase": "Pending" }));
    let running = with_both(json!({}), up());
    let leaving = |observed: &Observed| Observed {
        consumer: terminating(observed.consumer.pod().unwrap()),
        ..observed.clone()
    };
    assert_eq!(told(&new, &preparing), ["Scheduled", "Pulling"]);
    assert_eq!(told(&preparing, &prepared), ["FilesystemPrepared"]);
    assert!(told(&prepared, &starting).is_empty());
    assert_eq!(told(&starting, &running), ["Started"]);
    assert!(told(&running, &running).is_empty());
    let stopping = leaving(&with_both(json!({ "spec": { "running": false } }), up()));
    assert_eq!(told(&running, &stopping), ["Stopping"]);
    assert!(told(&stopping, &stopping).is_empty());
    assert_eq!(told(&stopping, &stopped()), ["Stopped"]);
    assert_eq!(told(&stopped(), &running), ["Started"]);
    // Not requested, and therefore a warning.
    let evicted = leaving(&running);
    let evicted = Observed {
        consumer: changed(evicted.consumer.pod().unwrap(), |pod| {
            let condition = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting",
            }]);
            pod.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
        }),
        ..evicted
    };
    assert_eq!(told(&running, &evicted), ["!Evicted"]);
    let of = |observed: &Observed| status(observed, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    let note = events(&of(&running), &of(&evicted), &evicted, None)[0]
        .note
        .clone();
    assert_eq!(
        note.as_deref(),
        Some("pod web is terminating (PreemptionByScheduler: preempting); a new pod will be created")
    );
    // The event about a pod that ended by itself comes when its successor waits for the back-off.
    let refused = with_both(json!({}), out_of_cpu());
    assert!(told(&refused, &leaving(&refused)).is_empty());
}

#[test]
fn i12_a_restart_of_the_container_has_its_exit_code() {
    let running = with_both(json!({}), up());
    let of = |observed: &Observed| status(observed, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    let last = Cause::new("Error", "container main: ended with exit code 3 (Error)");
    let told = events(
        &of(&with_provider(json!({}))),
        &of(&running),
        &running,
        Some(&last),
    );
    assert_eq!(
        words(&told),
        ["Restarted"],
        "and it did not start for the first time"
    );
    assert_eq!(
        told[0].note.as_deref(),
        Some("container main: ended with exit code 3 (Error); it was started again")
    );
}

#[test]
fn i12_events_are_about_the_object_that_the_user_made() {
    let owner = json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "name": "web", "uid": "container-uid", "controller": true,
    }] } });
    let about = regarding(&instance(owner));
    assert_eq!(
        (
            about.kind.as_deref(),
            about.uid.as_deref(),
            about.namespace.as_deref()
        ),
        (Some("StoppableContainer"), Some("container-uid"), Some("team"))
    );
    let about = regarding(&instance(json!({})));
    assert_eq!(about.kind.as_deref(), Some("StoppableContainerInstance"));
}
