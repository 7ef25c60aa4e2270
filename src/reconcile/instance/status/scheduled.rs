//! The condition ConsumerScheduled.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::ConditionState;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::instance::status::provider;
use crate::reconcile::pods::{is_reserved, node, unscheduled_cause};

pub(super) fn scheduled_state(observed: &Observed) -> ConditionState {
    let name = observed.instance.name_any();
    let chosen = |node: &str| ConditionState::true_with(reason::SCHEDULED, format!("node {node} was chosen"));
    let waiting =
        |message: &str| ConditionState::false_with(reason::STARTING, format!("pod {name} {message}"));
    let at = |pod: &Pod| node(pod).map(str::to_owned);
    match &observed.consumer {
        Slot::Ours(pod) if let Some(node) = at(pod) => chosen(&node),
        Slot::Ours(pod) if let Some(why) = unscheduled_cause(pod) => ConditionState::false_for(why),
        // The placeholder, or the nomination, keeps the room on the node for it.
        Slot::Ours(pod) if let Some(node) = observed.home().filter(|_| is_reserved(pod)) => chosen(node),
        Slot::Ours(_) => waiting("waits for the scheduler"),
        _ if observed.deleting() => {
            ConditionState::false_with(reason::DELETING, "the object is being deleted")
        }
        _ if !observed.instance.spec.running => {
            ConditionState::false_with(reason::STOPPED, "running is false")
        }
        _ if let Some(why) = observed.template_error() => ConditionState::false_for(why),
        _ => match observed.placeholder.pod().and_then(|pod| at(pod)) {
            Some(node) => chosen(&node),
            None if observed.home().is_none() => provider::unplaced(observed),
            None => waiting("has not been created yet"),
        },
    }
}
