/*!
When the controller replaces a provider: only when nothing runs on it, so never under
a consumer.

It replaces a provider that was made from an earlier spec of the instance. It replaces
one that was made to choose a node at the first stop if that one holds claims or repels
pods: a stopped object must not do either. It does not do so before the first start,
which would have to wait.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::PROVIDER_CONTAINER;
use stoppablecontainer_api::{FilesystemState, Placement};

use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{
    ProviderVersion, blocking_cause, has_started, is_finished, is_terminating, node, provider_version,
};

/// Why the provider is to be replaced by another one; part of a sentence.
pub(crate) fn due(observed: &Observed) -> Option<&'static str> {
    let pod = observed
        .provider
        .pod()
        .filter(|pod| !is_terminating(pod) && !is_finished(pod))?;
    let nothing_runs = matches!(observed.consumer, Slot::Free);
    let started = has_started(pod, PROVIDER_CONTAINER);
    let queues = queues(observed);
    if started && !nothing_runs && !queues {
        return None;
    }
    // No new pod would start on such a node, and the present one may be fine.
    let away = observed.node_unreachable.is_some() || observed.node_not_ready.is_some() || observed.node_gone;
    match provider_version(&observed.instance, pod)? {
        ProviderVersion::Keeping => None,
        ProviderVersion::Outdated => {
            let edited = !started || (nothing_runs && !away);
            edited.then_some("by one that matches the present spec")
        }
        ProviderVersion::Placing { holds, repels } => {
            let stopped = holds && nothing_runs && !observed.instance.spec.running;
            let done = has_placed(observed) && !away && (stopped || (repels && queues));
            done.then_some("by one without volume claims and pod affinity")
        }
    }
}

/// The node is chosen, the claims are bound, and the agent has looked at the data on the node.
fn has_placed(observed: &Observed) -> bool {
    let status = observed.status();
    let looked = status.filesystem.as_ref().map(|filesystem| filesystem.state);
    status.node_name.is_some()
        && observed.working_provider().is_some()
        && looked.is_some_and(|state| state != FilesystemState::Preparing)
}

/// Whether the consumer cannot be scheduled because of the anti-affinity of its first provider. The
/// scheduler would try it again only after minutes, because the end of a pod with other labels does
/// not wake it (queueing hints of its InterPodAffinity plugin). So the controller replaces the
/// consumer together with the provider.
pub(crate) fn keeps_out(observed: &Observed) -> bool {
    let repels = |pod: &Arc<Pod>| {
        matches!(
            provider_version(&observed.instance, pod),
            Some(ProviderVersion::Placing { repels: true, .. })
        )
    };
    observed.consumer.pod().is_some_and(|pod| is_unschedulable(pod))
        && observed.provider.pod().is_some_and(repels)
        && due(observed).is_some()
}

/// The next consumer goes through the scheduler, or waits there: the first provider may keep its
/// own consumer away.
fn queues(observed: &Observed) -> bool {
    match observed.consumer.pod() {
        Some(pod) => waits_for_a_node(pod),
        None => {
            matches!(observed.consumer, Slot::Free)
                && observed.status().placement == Some(Placement::Scheduler)
        }
    }
}

fn waits_for_a_node(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    let gated = || gates.is_some_and(|gates| !gates.is_empty());
    is_unschedulable(pod) || (!is_terminating(pod) && node(pod).is_none() && gated())
}

fn is_unschedulable(pod: &Pod) -> bool {
    let unschedulable = || blocking_cause(pod).is_some_and(|why| why.reason == reason::UNSCHEDULABLE);
    !is_terminating(pod) && node(pod).is_none() && unschedulable()
}

#[cfg(test)]
mod tests;
