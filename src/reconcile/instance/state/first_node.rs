/*!
The choice of the first node. Until a consumer may have run there is nothing to lose: an unsuitable
node is given up, and the owner of the instance creates another instance.

Afterwards the data ties the object to its node, and nothing here applies.
*/

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{FilesystemState, StoppableContainer, StoppableContainerInstanceStatus};

use crate::reconcile::conditions::Cause;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{
    avoided, blocking_cause, has_started, is_finished, is_terminating, is_unschedulable, node,
};

/// How long an image is tried on a node. The kubelet's first back-off has passed by then, so a
/// registry that failed to answer once does not cost the node.
const PULLING: Grace = Grace("image", Duration::from_mins(1));
/// How long a node agent may take to register: an agent of a new node starts with the node.
const REGISTERING: Grace = Grace("agent", Duration::from_secs(20));
/// How long a consumer may be unschedulable: the scheduler makes room by preemption in this time.
const QUEUEING: Grace = Grace("scheduler", Duration::from_secs(10));
/// The node is given up at once.
const NOTHING: Grace = Grace("nothing", Duration::ZERO);
/// On how many nodes an image is tried. A name that no registry knows fails on all of them.
const IMAGE_NODES: usize = 3;

/// What may still make the node suitable, and how long the controller waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile::instance) struct Grace(pub &'static str, pub Duration);

/// Why the node is not suitable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile::instance) struct Unsuitable {
    /// The words of the component that reported it.
    pub cause: Cause,
    /// How long the controller keeps the node nevertheless.
    pub grace: Grace,
}

/// Why the first node is not suitable. `None` while it is, when another node would not help, and as
/// soon as a consumer may have run.
pub(in crate::reconcile::instance) fn unsuitable(observed: &Observed) -> Option<Unsuitable> {
    let status = observed.status();
    let movable = status.never_started
        && status.node_name.is_some()
        && status.given_up.is_none()
        && !observed.deleting()
        && is_owned(observed)
        && may_never_have_run(observed, &status);
    if !movable {
        return None;
    }
    if observed.consumer.pod().is_some() {
        // Whether it has started is certain only if it is what failed.
        return of_consumer(observed);
    }
    if observed.node_gone {
        let name = status.node_name.unwrap_or_default();
        let cause = Cause::new(reason::NODE_GONE, format!("node {name} does not exist any more"));
        return Some(now(cause));
    }
    of_users(observed)
        .or_else(|| of_provider(observed))
        .or_else(|| of_filesystem(observed, &status))
}

/// Whether no consumer has run so far, as far as this pass can prove it.
pub(in crate::reconcile::instance) fn never_started(
    observed: &Observed,
    old: &StoppableContainerInstanceStatus,
) -> bool {
    // Objects of earlier versions do not have the field and may have run.
    let so_far = old.never_started || old.phase.is_none();
    so_far && may_never_have_run(observed, old)
}

/// A pod that was recorded and has vanished may have run.
fn may_never_have_run(observed: &Observed, old: &StoppableContainerInstanceStatus) -> bool {
    let main = observed.instance.spec.main_container();
    match observed.consumer.pod() {
        Some(pod) => {
            let is_recorded = old.consumer_pod_uid.is_none() || old.consumer_pod_uid == pod.uid();
            is_recorded && !has_started(pod, main)
        }
        None => old.consumer_pod_uid.is_none() || observed.given_up.is_some(),
    }
}

/// Instances that a user made have no owner that would make another one.
fn is_owned(observed: &Observed) -> bool {
    let kind = StoppableContainer::kind(&());
    let owners = observed.instance.owner_references();
    owners
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.kind == kind)
}

fn of_consumer(observed: &Observed) -> Option<Unsuitable> {
    let pod = observed.consumer.pod().filter(|pod| !is_terminating(pod))?;
    let cause = blocking_cause(pod)?;
    if is_finished(pod) {
        return Some(now(cause));
    }
    is_unschedulable(pod).then_some(Unsuitable {
        cause,
        grace: QUEUEING,
    })
}

fn of_provider(observed: &Observed) -> Option<Unsuitable> {
    let pod = observed.provider.pod().filter(|pod| !is_terminating(pod))?;
    if is_finished(pod) && !has_been_up(pod) {
        return blocking_cause(pod).map(now);
    }
    if let Some(cause) = blocking_cause(pod) {
        return match cause.reason.as_str() {
            // The placeholder makes way first.
            reason::UNSCHEDULABLE => observed.placeholder.pod().is_none().then_some(Unsuitable {
                cause,
                grace: QUEUEING,
            }),
            // The kubelet's words (`pkg/kubelet/images/types.go`).
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                let tried = avoided(&observed.instance).count();
                let elsewhere = observed.other_nodes && tried + 1 < IMAGE_NODES;
                elsewhere.then_some(Unsuitable {
                    cause,
                    grace: PULLING,
                })
            }
            _ => None,
        };
    }
    let missing = observed.agent_missing && observed.other_nodes;
    missing.then(|| Unsuitable {
        cause: Cause::new(
            reason::NODE_AGENT_MISSING,
            format!(
                "no node agent is registered with the kubelet of node {}",
                node(pod).unwrap_or_default()
            ),
        ),
        grace: REGISTERING,
    })
}

fn of_users(observed: &Observed) -> Option<Unsuitable> {
    let why = observed
        .users_obstacle
        .as_ref()
        .filter(|_| observed.other_nodes)?;
    Some(now(Cause::new(reason::USER_NAMESPACES_UNSUPPORTED, why.clone())))
}

fn of_filesystem(observed: &Observed, status: &StoppableContainerInstanceStatus) -> Option<Unsuitable> {
    let filesystem = status.filesystem.as_ref()?;
    let of = filesystem.reason.as_deref()?;
    // What another node may have: room, or a disk that can keep changes.
    let of_node = matches!(of, reason::INSUFFICIENT_DISK | reason::FILESYSTEM_UNUSABLE);
    let failed = filesystem.state == FilesystemState::Failed && of_node && observed.other_nodes;
    let message = filesystem.message.clone().unwrap_or_default();
    failed.then(|| Unsuitable {
        cause: Cause::new(of, message),
        grace: NOTHING,
    })
}

fn now(cause: Cause) -> Unsuitable {
    Unsuitable {
        cause,
        grace: NOTHING,
    }
}

fn has_been_up(pod: &Arc<Pod>) -> bool {
    has_started(pod, stoppablecontainer_api::names::PROVIDER_CONTAINER)
}

#[cfg(test)]
mod tests;
