//! How the next consumer comes to the node of its filesystem.

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::ANNOTATION_PLACEMENT;
use stoppablecontainer_api::{Placement, StoppableContainerInstanceStatus};

use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{is_finished, is_running, is_terminating, restart};

/// Through the scheduler after every end that was not the user's stop, until a consumer ran or the
/// user stopped it: the cause of the last end (a preemption, a drain, pressure on the node, no room
/// for it) may still be there, and only the scheduler lets a pod wait for that. The controller does
/// not know who deleted a pod, so deletions count as well.
pub(crate) fn next(observed: &Observed, old: &StoppableContainerInstanceStatus) -> Option<Placement> {
    match observed.consumer.pod() {
        _ if !observed.instance.spec.running => None,
        // A restart is the user's as well.
        Some(pod) if is_terminating(pod) && restart::is_due(&observed.instance, pod) => None,
        None if is_restart(old) => None,
        Some(pod) if is_finished(pod) || is_terminating(pod) => Some(Placement::Scheduler),
        Some(pod) if is_running(pod) => None,
        Some(pod) if pod.annotations().contains_key(ANNOTATION_PLACEMENT) => Some(Placement::Scheduler),
        None if old.consumer_pod_uid.is_some() => Some(Placement::Scheduler),
        _ => old.placement,
    }
}

/// Whether the recorded consumer was stopped because the user asked for a restart.
fn is_restart(old: &StoppableContainerInstanceStatus) -> bool {
    let stop = old.last_stop.as_ref();
    let asked = stop.is_some_and(|stop| stop.reason == reason::RESTARTED && stop.consumer_gone_at.is_none());
    asked && old.consumer_pod_uid.is_some()
}

#[cfg(test)]
mod tests;
