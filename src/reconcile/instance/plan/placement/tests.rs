//! After which ends the scheduler decides.

use std::sync::Arc;

use serde_json::json;
use stoppablecontainer_api::names::ANNOTATION_RESTARTED_AT;

use super::*;
use crate::reconcile::instance::fixtures::{terminating, with_both, with_provider};
use crate::reconcile::pods::fixtures::{edit, out_of_cpu, up};

fn placement(observed: &Observed) -> Option<Placement> {
    next(observed, &observed.status())
}

/// Preempted, drained, evicted, past its deadline, refused by the kubelet, or gone without a trace.
#[test]
fn f12_h23_placement_goes_through_the_scheduler_after_every_end_until_a_start_or_a_stop() {
    let refused = with_both(json!({}), out_of_cpu());
    assert_eq!(placement(&refused), Some(Placement::Scheduler));
    let ran = json!({ "phase": "Failed", "reason": "Evicted", "containerStatuses": [{
        "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": { "terminated": { "exitCode": 137 } },
    }] });
    assert_eq!(
        placement(&with_both(json!({}), ran)),
        Some(Placement::Scheduler),
        "it was evicted, and the pressure may last"
    );
    let preempted = with_both(json!({}), up());
    let preempted = Observed {
        consumer: terminating(preempted.consumer.pod().unwrap()),
        ..preempted
    };
    assert_eq!(placement(&preempted), Some(Placement::Scheduler));
    let gone = json!({ "status": { "consumerPodUid": "consumer-uid" } });
    assert_eq!(
        placement(&with_provider(gone.clone())),
        Some(Placement::Scheduler)
    );
    let mut stopped = gone;
    stopped["spec"]["running"] = json!(false);
    assert_eq!(placement(&with_provider(stopped.clone())), None);
    let stopping = with_both(stopped, up());
    let stopping = Observed {
        consumer: terminating(stopping.consumer.pod().unwrap()),
        ..stopping
    };
    assert_eq!(placement(&stopping), None, "the user's stop");
    let queued = json!({ "status": { "placement": "Scheduler" } });
    assert_eq!(
        placement(&with_provider(queued.clone())),
        Some(Placement::Scheduler)
    );
    assert_eq!(
        placement(&with_both(queued.clone(), json!({}))),
        Some(Placement::Scheduler)
    );
    assert_eq!(placement(&with_both(queued, up())), None);
    let stopped = json!({ "spec": { "running": false }, "status": { "placement": "Scheduler" } });
    assert_eq!(placement(&with_provider(stopped)), None);
}

/// A restart goes where the consumer was, as a stop and a start do.
#[test]
fn a_restart_is_no_end_that_the_scheduler_has_to_see() {
    let asked = json!({ "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: "1" } } });
    let running = with_both(json!({}), up());
    let mut instance = (*running.instance).clone();
    edit(&mut instance, |template| json_patch::merge(template, &asked));
    let stopping = Observed {
        consumer: terminating(running.consumer.pod().unwrap()),
        instance: Arc::new(instance),
        ..running
    };
    assert_eq!(placement(&stopping), None);
    let gone = |stop: serde_json::Value| {
        placement(&with_provider(
            json!({ "status": { "consumerPodUid": "consumer-uid", "lastStop": stop } }),
        ))
    };
    assert_eq!(gone(json!({ "reason": "Restarted" })), None);
    assert_eq!(gone(json!({ "reason": "Deleted" })), Some(Placement::Scheduler));
    let earlier = json!({ "reason": "Restarted", "consumerGoneAt": "2026-01-01T00:00:00Z" });
    assert_eq!(
        gone(earlier),
        Some(Placement::Scheduler),
        "that of another consumer"
    );
}
