//! After which ends the scheduler decides.

use serde_json::json;

use super::*;
use crate::reconcile::instance::fixtures::{terminating, with_both, with_provider};
use crate::reconcile::pods::fixtures::{out_of_cpu, up};

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
