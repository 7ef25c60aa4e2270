/*!
The object that has the name of a StoppableContainer's instance, and whether it may be that
instance. Pure.

An instance's data goes with it. So the controller makes no other instance for an object whose
instance vanished before its user says so (invariant I1), and it takes over one that an orphan
deletion left, with its data.
*/

use std::fmt::Debug;
use std::sync::Arc;

use kube::ResourceExt;
use stoppablecontainer_api::names::{ANNOTATION_RECOVERY, LABEL_MANAGED_BY, MANAGED_BY};
use stoppablecontainer_api::{
    RecoveryAnswer, StoppableContainer, StoppableContainerInstance, is_controlled_by,
};

use crate::reconcile::context::Backoff;

/// Everything that the reconciliation of a StoppableContainer depends on.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The object as last seen.
    pub container: Arc<StoppableContainer>,
    /// What has the instance's name.
    pub instance: Slot,
    /// The last failure to create the instance.
    pub backoff: Option<Backoff>,
}

/// Which object has the name of the container's instance.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Nothing.
    Free,
    /// The container's instance.
    Ours(Arc<StoppableContainerInstance>),
    /// An instance without an owner, made for an object of this name: an orphan deletion left it.
    /// It can be taken over.
    Orphan(Arc<StoppableContainerInstance>),
    /// The instance that the container's status records is gone; the text says what to do.
    Lost(String),
    /// An instance that was not made for this object; the text says what to do.
    Taken(String),
}

// === impl Slot ===

impl Slot {
    /// How `found` relates to `container`; `found` was read from the API server where it is not
    /// plainly ours.
    pub(super) fn of(found: Option<Arc<StoppableContainerInstance>>, container: &StoppableContainer) -> Self {
        let uid = found.as_ref().and_then(|found| found.uid());
        let is_lost = may_be_lost(container) && recorded(container) != uid.as_deref();
        match found {
            Some(found) if is_controlled_by(&*found, container) => {
                if is_lost {
                    Self::Lost(lost(container))
                } else {
                    Self::Ours(found)
                }
            }
            Some(found) => match obstacle(&found, container) {
                Some(obstacle) => Self::Taken(obstacle),
                None if is_lost => Self::Lost(lost(container)),
                None => Self::Orphan(found),
            },
            None if is_lost => Self::Lost(lost(container)),
            None => Self::Free,
        }
    }
}

/// UID of the instance that the container's status records.
pub(crate) fn recorded(container: &StoppableContainer) -> Option<&str> {
    container.status.as_ref()?.instance_uid.as_deref()
}

/// A recorded instance counts as lost when another one, or none, has its name, and the user has not
/// given it up. An object that is being deleted does not need its data.
fn may_be_lost(container: &StoppableContainer) -> bool {
    let Some(recorded) = recorded(container) else {
        return false;
    };
    let given_up =
        RecoveryAnswer::of(container).is_some_and(|answer| answer == RecoveryAnswer::abandoning(recorded));
    let nodes = container
        .status
        .as_ref()
        .and_then(|status| status.given_up_nodes.as_ref());
    let replaced = nodes.is_some_and(|nodes| nodes.instance_uid == recorded);
    !given_up
        && !is_reset(container, recorded)
        && !replaced
        && container.metadata.deletion_timestamp.is_none()
}

/// Whether the controller began to carry out that the user gave up this instance's data.
pub(super) fn is_reset(container: &StoppableContainer, instance_uid: &str) -> bool {
    let status = container.status.as_ref();
    status.and_then(|status| status.reset_instance_uid.as_deref()) == Some(instance_uid)
}

fn lost(container: &StoppableContainer) -> String {
    let (name, namespace) = (container.name_any(), container.namespace().unwrap_or_default());
    let recorded = recorded(container).unwrap_or_default();
    format!(
        "StoppableContainerInstance {name} (UID {recorded}) was deleted although this object was not, and the files were \
         deleted with it. To begin with an empty filesystem: kubectl annotate --overwrite -n {namespace} \
         stoppablecontainer {name} {ANNOTATION_RECOVERY}={}",
        RecoveryAnswer::abandoning(recorded)
    )
}

/// Why `container` cannot take over an instance that it does not own. Following the advice never
/// deletes data.
fn obstacle(instance: &StoppableContainerInstance, container: &StoppableContainer) -> Option<String> {
    let name = container.name_any();
    let other_name = "delete this object, which has no data, and choose another name";
    if instance.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "StoppableContainerInstance {name} is still being deleted; this object continues when it is gone"
        ));
    }
    let owners = instance.owner_references();
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
        return Some(format!(
            "StoppableContainerInstance {name} belongs to {} {} (UID {}) and is not changed; {other_name}",
            owner.kind, owner.name, owner.uid
        ));
    }
    let made_by_us = instance.labels().get(LABEL_MANAGED_BY).map(String::as_str) == Some(MANAGED_BY);
    if !made_by_us || instance.spec.stoppable_container_name != name {
        return Some(format!(
            "StoppableContainerInstance {name} was not made for this object and is not changed; {other_name}. To let this \
             object take it over with its data, set the instance's spec.stoppableContainerName to {name} and its label \
             {LABEL_MANAGED_BY} to {MANAGED_BY}"
        ));
    }
    let (kept, asked) = (&instance.spec.host_path_prefix, &container.spec.host_path_prefix);
    (kept != asked).then(|| {
        format!(
            "spec.hostPathPrefix: is {asked}, but StoppableContainerInstance {name}, which an earlier object of this name left, \
             keeps its data below {kept}; delete this object, which has no data, and create it again with that value"
        )
    })
}

#[cfg(test)]
mod tests;
