//! What to do next for a StoppableContainer. Pure.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use stoppablecontainer_api::conditions::{PROVIDER_READY, reason};
use stoppablecontainer_api::names::{ANNOTATION_MOVED_TO, FINALIZER};
use stoppablecontainer_api::{GivenUp, RecoveryAnswer, StoppableContainer, StoppableContainerInstance};

use crate::reconcile::container::desired::{desired_spec, template_error};
use crate::reconcile::container::state::{Observed, Slot};

/// Finalizer of `kubectl delete --cascade=orphan`: the garbage collector cuts the instance loose
/// before it takes it off.
const ORPHAN: &str = "orphan";

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Put our finalizer on the object, before anything is made for it.
    AddFinalizer,
    /// Take it off: the instance is gone.
    RemoveFinalizer,
    /// Create the instance.
    Create,
    /// Make an instance that has no owner ours, with the present spec.
    Adopt(Arc<StoppableContainerInstance>),
    /// Give the instance the present spec.
    Update(Arc<StoppableContainerInstance>),
    /// Tell the instance what the user decided about a failure.
    Decide(Arc<StoppableContainerInstance>, RecoveryAnswer),
    /// Delete the instance, and with it the data.
    Delete(Arc<StoppableContainerInstance>),
    /// Delete an instance and its data, as the user decided. The next one begins with an empty
    /// filesystem.
    Reset(Arc<StoppableContainerInstance>),
    /// Continue on the node that has the disk of a node that is gone.
    Move(Arc<StoppableContainerInstance>, String),
    /// Delete an instance that gave its node up before the first start.
    Replace(Arc<StoppableContainerInstance>),
}

/// The next steps for a StoppableContainer, in order.
pub(super) fn plan(observed: &Observed) -> Vec<Action> {
    let finalizers = observed.container.finalizers();
    let ours = finalizers.iter().any(|f| f == FINALIZER);
    if observed.container.metadata.deletion_timestamp.is_some() {
        return match &observed.instance {
            _ if !ours || finalizers.iter().any(|f| f == ORPHAN) => Vec::new(),
            Slot::Ours(instance) if instance.metadata.deletion_timestamp.is_some() => Vec::new(),
            Slot::Ours(instance) => vec![Action::Delete(Arc::clone(instance))],
            Slot::Free | Slot::Orphan(_) | Slot::Lost(_) | Slot::Taken(_) => vec![Action::RemoveFinalizer],
        };
    }
    let mut actions = Vec::new();
    if !ours {
        actions.push(Action::AddFinalizer);
    }
    match &observed.instance {
        // The status says why; an instance would not help, as no pod could be made from it.
        Slot::Free if template_error(&observed.container).is_some() => {}
        Slot::Free
            if observed
                .backoff
                .as_ref()
                .is_none_or(|backoff| backoff.remaining == Duration::ZERO) =>
        {
            actions.push(Action::Create);
        }
        Slot::Ours(instance)
            if instance.metadata.deletion_timestamp.is_none() && given_up(instance).is_some() =>
        {
            actions.push(Action::Replace(Arc::clone(instance)));
        }
        Slot::Ours(instance)
            if instance.metadata.deletion_timestamp.is_none()
                && is_given_up(&observed.container, instance) =>
        {
            actions.push(Action::Reset(Arc::clone(instance)));
        }
        Slot::Ours(instance) if instance.metadata.deletion_timestamp.is_none() => {
            if instance.spec != desired_spec(&observed.container) {
                actions.push(Action::Update(Arc::clone(instance)));
            }
            if let Some(node) = moved_to(&observed.container, instance) {
                actions.push(Action::Move(Arc::clone(instance), node));
            }
            let decided = RecoveryAnswer::of(&*observed.container);
            if let Some(answer) = decided.filter(|answer| awaited(instance, answer)) {
                actions.push(Action::Decide(Arc::clone(instance), answer));
            }
        }
        Slot::Orphan(instance) => actions.push(Action::Adopt(Arc::clone(instance))),
        Slot::Free | Slot::Ours(_) | Slot::Lost(_) | Slot::Taken(_) => {}
    }
    actions
}

/// Whether the user gave up the data of this instance, by its UID. An answer for an earlier
/// instance does nothing.
pub(super) fn is_given_up(container: &StoppableContainer, instance: &StoppableContainerInstance) -> bool {
    let answer = instance.uid().map(|uid| RecoveryAnswer::abandoning(&uid));
    answer.is_some() && RecoveryAnswer::of(container) == answer
}

/// The node on which the instance is to continue, as the user says, because its own is gone.
pub(super) fn moved_to(
    container: &StoppableContainer,
    instance: &StoppableContainerInstance,
) -> Option<String> {
    let node = container.annotations().get(ANNOTATION_MOVED_TO)?;
    let at = instance.status.as_ref()?.node_name.as_ref()?;
    (is_node_gone(instance) && !node.is_empty() && node != at).then(|| node.clone())
}

fn is_node_gone(instance: &StoppableContainerInstance) -> bool {
    let conditions = instance.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|condition| condition.type_ == PROVIDER_READY);
    conditions.any(|condition| condition.reason == reason::NODE_GONE)
}

/// Why the instance gave its node up before the first start.
pub(super) fn given_up(instance: &StoppableContainerInstance) -> Option<&GivenUp> {
    instance.status.as_ref()?.given_up.as_ref()
}

/// Whether an answer is to what the instance asks now, and has not been passed on. What an old
/// annotation says stays where it is.
fn awaited(instance: &StoppableContainerInstance, answer: &RecoveryAnswer) -> bool {
    let filesystem = instance
        .status
        .as_ref()
        .and_then(|status| status.filesystem.as_ref());
    let offer = filesystem.and_then(|filesystem| filesystem.recovery.as_ref());
    offer.is_some_and(|offer| offer.taken(answer).is_some())
        && RecoveryAnswer::of(instance).as_ref() != Some(answer)
}
