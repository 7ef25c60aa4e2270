/*!
Steps of the last start and of the last stop.

They cost no write of the status: the controller records what it knows when it writes the status for
another reason (`write_status`). All times but those of a request and of a pod's end are
read from the pods and conditions, so it does not matter in which pass they are recorded.
*/

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, PROVIDER_READY, reason};
use stoppablecontainer_api::{StartSteps, StopSteps, StoppableContainerInstanceStatus};

use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{blocking_cause, disruption, is_finished, is_terminating, restart, true_since};

/// The steps for a status whose other conditions are `conditions`.
pub(super) fn steps(
    observed: &Observed,
    old: &StoppableContainerInstanceStatus,
    conditions: &[Condition],
    now: Timestamp,
) -> (Option<StartSteps>, Option<StopSteps>) {
    // As precise as the API is, so that times can be compared.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    (
        last_start(observed, old, conditions, &now),
        last_stop(observed, old, &now),
    )
}

/// Whether the consumer that the status records is gone.
fn is_gone(observed: &Observed, old: &StoppableContainerInstanceStatus) -> bool {
    let present = observed.consumer.pod().and_then(|pod| pod.uid());
    old.consumer_pod_uid.is_some() && old.consumer_pod_uid != present
}

fn last_start(
    observed: &Observed,
    old: &StoppableContainerInstanceStatus,
    conditions: &[Condition],
    now: &Time,
) -> Option<StartSteps> {
    let consumer = observed.consumer.pod();
    let last = old.last_start.clone();
    if !observed.instance.spec.running || observed.deleting() {
        // A start that was given up before it had a pod is of no interest.
        return last.filter(|start| start.consumer_created_at.is_some());
    }
    let is_over = |start: &StartSteps| {
        is_gone(observed, old) || (consumer.is_none() && start.consumer_created_at.is_some())
    };
    let mut start = last.filter(|start| !is_over(start)).unwrap_or(StartSteps {
        requested_at: Some(now.clone()),
        ..StartSteps::default()
    });
    if start.ready_at.is_some() {
        return Some(start);
    }
    let of_pod = |kind| true_since(consumer?, kind).cloned();
    let placed = || true_since(observed.placeholder.pod()?, "PodScheduled").cloned();
    let since = |kind: &str| {
        let condition = conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == "True")?;
        let since = &condition.last_transition_time;
        (start.requested_at.as_ref() <= Some(since)).then(|| since.clone())
    };
    let (provider_ready_at, filesystem_ready_at) = (since(PROVIDER_READY), since(FILESYSTEM_READY));
    let note = |step: &mut Option<Time>, at: Option<Time>| {
        if step.is_none() {
            *step = at;
        }
    };
    note(&mut start.scheduled_at, of_pod("PodScheduled").or_else(placed));
    note(&mut start.provider_ready_at, provider_ready_at);
    note(&mut start.filesystem_ready_at, filesystem_ready_at);
    note(
        &mut start.consumer_created_at,
        consumer.map(|pod| pod.creation_timestamp().unwrap_or_else(|| now.clone())),
    );
    if !observed.filesystem_is_announced() {
        // The kubelet may have called the pod ready while its command waited.
        let ready = of_pod("Ready").map(|ready| Some(ready).max(start.filesystem_ready_at.clone()));
        note(&mut start.ready_at, ready.flatten());
    }
    Some(start)
}

fn last_stop(observed: &Observed, old: &StoppableContainerInstanceStatus, now: &Time) -> Option<StopSteps> {
    let open = |stop: &StopSteps| stop.consumer_gone_at.is_none();
    let mut last = old.last_stop.clone();
    if is_gone(observed, old) {
        // It may have gone without a sign.
        let mut stop = last.filter(open).unwrap_or(StopSteps {
            reason: reason::DELETED.to_owned(),
            ..StopSteps::default()
        });
        stop.consumer_gone_at = Some(now.clone());
        last = Some(stop);
    }
    let ends = observed.consumer.pod().and_then(|pod| end(observed, pod));
    match ends {
        Some(reason) if !last.as_ref().is_some_and(open) => Some(StopSteps {
            reason,
            requested_at: Some(now.clone()),
            consumer_gone_at: None,
        }),
        _ => last,
    }
}

/// Why the consumer ends or is to end. `None` if it is to go on.
fn end(observed: &Observed, pod: &Pod) -> Option<String> {
    let why = if is_finished(pod) {
        return blocking_cause(pod).map(|cause| cause.reason);
    } else if observed.deleting() {
        reason::DELETING
    } else if !observed.instance.spec.running {
        reason::STOPPED
    } else if restart::is_due(&observed.instance, pod) {
        reason::RESTARTED
    } else if observed.filesystem_lost() {
        reason::FILESYSTEM_LOST
    } else if observed.running_excess(pod).is_some() {
        reason::EVICTED
    } else if is_terminating(pod) {
        let disruption = disruption(pod).map(|cause| cause.reason);
        return Some(disruption.unwrap_or_else(|| reason::DELETED.to_owned()));
    } else {
        return None;
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests;
