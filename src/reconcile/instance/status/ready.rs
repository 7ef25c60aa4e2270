//! The phase and the condition Ready: they follow from the other conditions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{FilesystemState, Phase};

use crate::reconcile::conditions::ConditionState;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{health, is_running, is_terminating};

/// The phases as docs/api.md has them. Running is that both run: a main container that ended and
/// waits to be started again does not, and one that is about to find out that it cannot execute its
/// program, or whose program waits for an announced filesystem, neither.
pub(super) fn phase(observed: &Observed, provider: &ConditionState, filesystem: &ConditionState) -> Phase {
    let consumer = observed.consumer.pod();
    // A consumer that runs is Running, also without its provider.
    let main = observed.instance.spec.main_container();
    // What is to stop is deleted in this pass.
    let wanted = observed.instance.spec.running && !observed.deleting();
    let leaves = |pod: &Arc<Pod>| is_terminating(pod) || !wanted || observed.is_left_behind(pod);
    let runs = |pod: &Arc<Pod>| {
        is_running(pod) && !leaves(pod) && !health::is_down(pod, main) && !observed.filesystem_is_announced()
    };
    if consumer.is_some_and(runs) && observed.blocked().is_none() && observed.unconfirmed_failure().is_none()
    {
        return Phase::Running;
    }
    let failed_filesystem = observed
        .status()
        .filesystem
        .is_some_and(|f| f.state == FilesystemState::Failed);
    let wants_taken_name = observed.instance.spec.running && matches!(observed.consumer, Slot::Taken(_));
    let wants_too_much = observed.instance.spec.running
        && matches!(observed.consumer, Slot::Free)
        && observed.start_excess().is_some();
    let stuck = matches!(observed.provider, Slot::Taken(_))
        || wants_taken_name
        || wants_too_much
        || observed.template_error().is_some()
        || failed_filesystem
        || provider.cause.reason == reason::NODE_GONE;
    if stuck && !observed.deleting() {
        return Phase::Failed;
    }
    if consumer.is_some_and(leaves) {
        return Phase::ProviderReady;
    }
    if observed.may_release() {
        // Stopped means that nothing of it runs.
        return if observed.is_released() {
            Phase::Stopped
        } else {
            Phase::ProviderReady
        };
    }
    match (provider.is_true() && filesystem.is_true(), consumer) {
        (true, None) if !observed.instance.spec.running => Phase::Stopped,
        (true, _) => Phase::ProviderReady,
        (false, _) => Phase::Pending,
    }
}

/// Ready is what was asked for: a ready consumer, or none and everything in place for the next
/// start. Otherwise the first thing in the way says why.
pub(super) fn ready_state(observed: &Observed, phase: Phase, parts: [&ConditionState; 3]) -> ConditionState {
    let [.., consumer] = parts;
    if observed.deleting() {
        return ConditionState::false_with(reason::DELETING, "the object is being deleted");
    }
    // Without the node it is unknown whether the object is as requested.
    let unknown = parts.into_iter().find(|part| part.status.is_none());
    if let Some(unknown) = unknown.filter(|_| phase != Phase::Failed) {
        return unknown.clone();
    }
    // Also for a stopped object: it could not be started again.
    if let Some(why) = observed.template_error().filter(|_| phase == Phase::Failed) {
        return ConditionState::false_for(why);
    }
    if phase == Phase::Stopped {
        return ConditionState::true_with(reason::STOPPED, "stopped as requested; the filesystem is kept");
    }
    if phase == Phase::Running {
        return consumer.clone();
    }
    parts
        .into_iter()
        .find(|part| part.status == Some(false))
        .cloned()
        .unwrap_or_else(|| consumer.clone())
}
