/*!
When the controller replaces a provider that was made from an earlier spec of the instance: only
when nothing runs on it, so never under a consumer.
*/

use stoppablecontainer_api::names::PROVIDER_CONTAINER;

use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{has_started, is_current, is_finished, is_terminating};

/// Whether the provider is to be replaced by another one.
pub(crate) fn due(observed: &Observed) -> bool {
    let pod = observed
        .provider
        .pod()
        .filter(|pod| !is_terminating(pod) && !is_finished(pod));
    let Some(pod) = pod else {
        return false;
    };
    let started = has_started(pod, PROVIDER_CONTAINER);
    let nothing_runs = matches!(observed.consumer, Slot::Free);
    // No new pod would start on such a node, and the present one may be fine.
    let away = observed.node_unreachable.is_some() || observed.node_not_ready.is_some() || observed.node_gone;
    let may_go = !started || (nothing_runs && !away);
    may_go && is_current(&observed.instance, pod) == Some(false)
}

#[cfg(test)]
mod tests;
