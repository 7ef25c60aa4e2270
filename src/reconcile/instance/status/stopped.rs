//! The condition Stopped, for `kubectl wait --for=condition=Stopped`.

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::ConditionState;
use crate::reconcile::instance::state::{Observed, Slot};

/// It changes only together with ConsumerReady, so it costs no write of the status.
pub(super) fn stopped_state(observed: &Observed) -> ConditionState {
    let name = observed.instance.name_any();
    if observed.instance.spec.running && !observed.deleting() {
        return ConditionState::false_with(reason::RUN_REQUESTED, "running is true");
    }
    match &observed.consumer {
        Slot::Ours(_) if let Some(words) = &observed.node_unreachable => ConditionState::unknown_with(
            reason::NODE_UNREACHABLE,
            format!("the node of pod {name} does not answer ({words})"),
        ),
        Slot::Ours(_) | Slot::Unrecorded(_) => {
            ConditionState::false_with(reason::STOPPING, format!("pod {name} still exists"))
        }
        Slot::Free | Slot::Taken(_) => {
            ConditionState::true_with(reason::STOPPED, format!("pod {name} does not run"))
        }
    }
}
