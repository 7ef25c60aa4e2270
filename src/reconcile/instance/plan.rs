/*!
What to do next, from what was observed: no client, no clock, no memory.

Each reconciliation plans a few steps towards the spec and then observes again, so every step must
be right on its own: a crash between two steps is the same as a slow reconciliation.
*/

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::{ANNOTATION_KEEPS_NODE, ANNOTATION_TEMPLATE_HASH, FINALIZER};

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::Backoff;
use crate::reconcile::instance::plan::storage_limit::eviction;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{
    OptOuts, Role, blocking_cause, consumer_hash, consumer_pod, has_our_labels, has_started, is_finished,
    is_terminating, is_unschedulable, node, placeholder_hash, placeholder_pod, provider_pod, resize,
    resize::Resize, restart, wait_for_placeholder,
};

mod change_over;
pub(super) mod placement;
pub(super) mod replacement;
pub(super) mod storage_limit;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Put our finalizer on the instance, before anything is made for it.
    AddFinalizer,
    /// Take it off: nothing of the instance is left.
    RemoveFinalizer,
    /// Create a pod, this one: text, because it is kept until the API server has answered.
    Create(Role, Json),
    /// Put our labels back on a pod of ours.
    Relabel(Role, Arc<Pod>),
    /// Put the annotations on the provider that keep autoscalers from removing its node.
    KeepNode(Arc<Pod>),
    /// Reserve the room on this node for the consumer.
    Nominate(Arc<Pod>, String),
    /// Remove the gate that makes the consumer wait for the end of its placeholder.
    Admit(Arc<Pod>),
    /// Change CPU and memory of the consumer that runs.
    Resize(Arc<Pod>, Resize),
    /// Delete a pod of ours with its own grace period. With a cause, its successor waits for the
    /// back-off.
    Delete(Role, Arc<Pod>, Option<Cause>),
    /// Delete a stray pod.
    Discard(Role, Arc<Pod>),
    /// Give up the node before the first start, with the consumer that could not start there.
    GiveUp(Cause, Option<Arc<Pod>>),
}

/// The next steps for an instance, in order.
pub(super) fn plan(observed: &Observed, opt_outs: &OptOuts) -> Vec<Action> {
    let finalizer = observed.instance.finalizers().iter().any(|f| f == FINALIZER);
    if observed.deleting() {
        return if finalizer {
            plan_removal(observed)
        } else {
            Vec::new()
        };
    }
    if observed.status().given_up.is_some() {
        // The owner makes another instance.
        return Vec::new();
    }
    if let Some(unsuitable) = observed
        .unsuitable
        .as_ref()
        .filter(|unsuitable| unsuitable.remaining.is_zero())
    {
        let consumer = observed.consumer.pod().map(Arc::clone);
        return vec![Action::GiveUp(unsuitable.cause.clone(), consumer)];
    }
    let mut actions = Vec::new();
    if !finalizer {
        actions.push(Action::AddFinalizer);
    }
    actions.extend(plan_placeholder(observed, opt_outs));
    actions.extend(plan_provider(observed, opt_outs));
    actions.extend(plan_consumer(observed));
    actions
}

/// Consumer, provider, data, finalizer: each only when the one before is gone.
fn plan_removal(observed: &Observed) -> Vec<Action> {
    for (role, slot) in [
        (Role::Consumer, &observed.consumer),
        (Role::Placeholder, &observed.placeholder),
        (Role::Provider, &observed.provider),
    ] {
        match slot {
            Slot::Ours(pod) => return delete_once(role, pod, None),
            Slot::Unrecorded(pod) => return discard_once(role, pod),
            Slot::Free | Slot::Taken(_) => {}
        }
    }
    if observed.data_is_gone() {
        vec![Action::RemoveFinalizer]
    } else {
        Vec::new()
    }
}

/// Whether the consumer is to be created.
fn may_start(observed: &Observed) -> bool {
    observed.instance.spec.running
        && matches!(observed.consumer, Slot::Free)
        && observed.provider_is_in_place()
        && !observed.node_gone
        && !observed.wants_other_image()
        && !replacement::due(observed)
        && observed.startable_filesystem().is_some()
        && observed.start_excess().is_none()
        && observed.users_obstacle.is_none()
        && !waits(observed.consumer_backoff.as_ref())
}

fn plan_placeholder(observed: &Observed, opt_outs: &OptOuts) -> Vec<Action> {
    match &observed.placeholder {
        Slot::Taken(_) => Vec::new(),
        Slot::Unrecorded(pod) => discard_once(Role::Placeholder, pod),
        // There is a use for it only if a provider can be made.
        Slot::Free
            if observed.home().is_some()
                || !matches!(observed.provider, Slot::Free)
                || waits(observed.placeholder_backoff.as_ref()) =>
        {
            Vec::new()
        }
        Slot::Free => {
            let pod = placeholder_pod(&observed.instance, opt_outs);
            creation(Role::Placeholder, pod.as_ref().ok())
        }
        Slot::Ours(pod) if is_finished(pod) => delete_once(Role::Placeholder, pod, blocking_cause(pod)),
        // A process that began with an old list of instances made it, after the node was chosen.
        Slot::Ours(pod) if observed.is_elsewhere(pod) => delete_once(Role::Placeholder, pod, None),
        Slot::Ours(pod) if node(pod).is_none() && outdated(pod, &placeholder_hash(&observed.instance)) => {
            delete_once(Role::Placeholder, pod, None)
        }
        Slot::Ours(pod) if placeholder_is_done(observed) => {
            let mut actions = Vec::from_iter(change_over::nominate(observed));
            actions.extend(delete_once(Role::Placeholder, pod, None));
            actions
        }
        Slot::Ours(pod) => relabel(Role::Placeholder, pod, observed),
    }
}

/// Whether the placeholder is to go: it reserves the room that the consumer is to take, is in the
/// way of the provider, or a stopped object has its provider.
fn placeholder_is_done(observed: &Observed) -> bool {
    let placed = observed.status().node_name.is_some();
    // An unrecorded consumer is about to be deleted, and the next one needs the room as well.
    let started = matches!(observed.consumer, Slot::Ours(_) | Slot::Taken(_));
    let prepared = observed.provider.pod().is_some();
    // The room left is too small for both, or its anti-affinity keeps other pods away.
    let in_the_way = observed.provider.pod().is_some_and(|pod| is_unschedulable(pod));
    placed && (started || in_the_way || (prepared && !observed.instance.spec.running))
}

fn plan_provider(observed: &Observed, opt_outs: &OptOuts) -> Vec<Action> {
    match &observed.provider {
        Slot::Taken(_) => Vec::new(),
        Slot::Unrecorded(pod) => discard_once(Role::Provider, pod),
        Slot::Free
            if observed.node_gone || observed.is_released() || waits(observed.provider_backoff.as_ref()) =>
        {
            Vec::new()
        }
        Slot::Free => {
            let pod = observed
                .home()
                .map(|node| provider_pod(&observed.instance, node, opt_outs));
            creation(Role::Provider, pod.as_ref().and_then(|pod| pod.as_ref().ok()))
        }
        Slot::Ours(pod) if is_finished(pod) => delete_once(Role::Provider, pod, blocking_cause(pod)),
        // The placeholder makes way. The scheduler would try this pod again only after minutes,
        // because the end of a pod with other labels does not wake it (queueing hints of
        // InterPodAffinity).
        Slot::Ours(pod) if is_unschedulable(pod) && observed.placeholder.pod().is_some() => {
            delete_once(Role::Provider, pod, None)
        }
        Slot::Ours(pod) if observed.is_on_wrong_node(pod) => {
            delete_once(Role::Provider, pod, Some(wrong_node_cause(pod)))
        }
        Slot::Ours(pod) if waits_for_lost_node(observed, pod) => delete_once(Role::Provider, pod, None),
        Slot::Ours(pod) if replacement::due(observed) || observed.wants_other_image() => {
            delete_once(Role::Provider, pod, None)
        }
        Slot::Ours(pod) if observed.may_release() && observed.usable_filesystem().is_some() => {
            delete_once(Role::Provider, pod, None)
        }
        Slot::Ours(pod) if loses_node(pod, observed, opt_outs) => vec![Action::KeepNode(Arc::clone(pod))],
        Slot::Ours(pod) => relabel(Role::Provider, pod, observed),
    }
}

fn plan_consumer(observed: &Observed) -> Vec<Action> {
    let spec = &observed.instance.spec;
    let main = spec.main_container();
    match &observed.consumer {
        Slot::Unrecorded(pod) => discard_once(Role::Consumer, pod),
        Slot::Free if may_start(observed) => {
            let mut pod = consumer_pod(&placed(observed));
            if let Ok(pod) = &mut pod
                && observed.placeholder.pod().is_some()
            {
                wait_for_placeholder(pod);
            }
            creation(Role::Consumer, pod.as_ref().ok())
        }
        Slot::Free | Slot::Taken(_) => Vec::new(),
        Slot::Ours(pod) if !spec.running || observed.filesystem_lost() => {
            delete_once(Role::Consumer, pod, None)
        }
        Slot::Ours(pod) if is_finished(pod) => delete_once(Role::Consumer, pod, blocking_cause(pod)),
        Slot::Ours(pod) if observed.waits_for_other_image(pod) => delete_once(Role::Consumer, pod, None),
        Slot::Ours(pod) if waits_for_lost_node(observed, pod) => delete_once(Role::Consumer, pod, None),
        Slot::Ours(pod) if restart::is_due(&observed.instance, pod) => delete_once(Role::Consumer, pod, None),
        Slot::Ours(pod) if !has_started(pod, main) && outdated(pod, &consumer_hash(&observed.instance)) => {
            delete_once(Role::Consumer, pod, None)
        }
        Slot::Ours(pod) => observed.running_excess(pod).map_or_else(
            || {
                let mut actions = relabel(Role::Consumer, pod, observed);
                actions.extend(change_over::admit(observed));
                actions.extend(resizing(observed, pod));
                actions
            },
            |excess| delete_once(Role::Consumer, pod, Some(eviction(&excess))),
        ),
    }
}

/// The change of a consumer in place that edits ask for. It is tried once for each edit.
fn resizing(observed: &Observed, pod: &Arc<Pod>) -> Option<Action> {
    let may = !is_terminating(pod)
        && has_started(pod, observed.instance.spec.main_container())
        && observed.resize_refused.is_none();
    let wanted = may.then(|| resize::wanted(&observed.instance, pod))??.ok()?;
    Some(Action::Resize(Arc::clone(pod), wanted))
}

/// The instance with the placement of the next consumer that its status will have.
fn placed(observed: &Observed) -> StoppableContainerInstance {
    let mut instance = (*observed.instance).clone();
    let mut status = observed.status();
    status.placement = placement::next(observed, &status);
    instance.status = Some(status);
    instance
}

/// A pod without a template that can be worked on is not made; the status says why.
fn creation(role: Role, pod: Option<&impl Serialize>) -> Vec<Action> {
    let pod = pod.and_then(|pod| Json::of(pod).ok());
    pod.map(|pod| Action::Create(role, pod)).into_iter().collect()
}

fn delete_once(role: Role, pod: &Arc<Pod>, cause: Option<Cause>) -> Vec<Action> {
    if is_terminating(pod) {
        Vec::new()
    } else {
        vec![Action::Delete(role, Arc::clone(pod), cause)]
    }
}

fn discard_once(role: Role, pod: &Arc<Pod>) -> Vec<Action> {
    if is_terminating(pod) {
        Vec::new()
    } else {
        vec![Action::Discard(role, Arc::clone(pod))]
    }
}

/// Whether the node holds files and an autoscaler may remove it.
fn loses_node(pod: &Pod, observed: &Observed, opt_outs: &OptOuts) -> bool {
    let holds_files = observed.status().filesystem.is_some() && !observed.status().never_started;
    let wanted = opt_outs.keep_node_hash();
    let is_kept = pod.annotations().get(ANNOTATION_KEEPS_NODE) == wanted.as_ref();
    holds_files && !is_terminating(pod) && wanted.is_some() && !is_kept
}

fn relabel(role: Role, pod: &Arc<Pod>, observed: &Observed) -> Vec<Action> {
    if is_terminating(pod) || has_our_labels(pod, role, &observed.instance.name_any()) {
        return Vec::new();
    }
    vec![Action::Relabel(role, Arc::clone(pod))]
}

fn waits(backoff: Option<&Backoff>) -> bool {
    backoff.is_some_and(|backoff| !backoff.remaining.is_zero())
}

/// Whether the pod waits for a node that does not exist any more. The scheduler can never bind it:
/// if the disk of that node is moved, the object continues on another one.
fn waits_for_lost_node(observed: &Observed, pod: &Pod) -> bool {
    observed.node_gone && node(pod).is_none()
}

fn wrong_node_cause(pod: &Pod) -> Cause {
    let at = node(pod).unwrap_or_default();
    Cause::new(
        reason::STARTING,
        format!("the provider pod was bound to node {at}, which does not hold the filesystem"),
    )
}

fn outdated(pod: &Pod, hash: &str) -> bool {
    pod.annotations()
        .get(ANNOTATION_TEMPLATE_HASH)
        .is_some_and(|made_from| made_from != hash)
}

#[cfg(test)]
mod tests;
