//! Words about a pod that the conditions of provider and consumer share.

use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::Cause;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{is_running, node};

/// A pod under our name that the controller has no record of.
pub(super) fn unrecorded(name: &str) -> String {
    format!(
        "pod {name} names this object as its owner, and the controller has no record of creating it; it is deleted and \
         replaced"
    )
}

/// The kubelet reports only in events that it cannot mount a volume of a driver that is not
/// registered.
pub(super) fn agent_missing_cause(observed: &Observed, pod: &Pod) -> Option<Cause> {
    let at = node(pod).filter(|_| observed.agent_missing && !is_running(pod))?;
    Some(Cause::new(
        reason::NODE_AGENT_MISSING,
        format!("no node agent is registered with the kubelet of node {at}; see the node-agent pod there"),
    ))
}
