/*!
What to do next, from what is seen: no client, no clock, no memory.

Each pass plans a few steps towards the wish and then looks again, so every step
must be right on its own: a crash between two steps is the same as a slow pass.
*/

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::{ANNOTATION_IMAGE, ANNOTATION_TEMPLATE_HASH, FINALIZER};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, Identity, StoppableContainerInstance,
    StoppableContainerInstanceStatus, StorageExcess, TemplateCheck, storage_limit,
};

use crate::reconcile::context::attempts::Hold;
use crate::reconcile::pods::consumer::{consumer_hash, consumer_pod};
use crate::reconcile::pods::provider::{OptOuts, provider_pod};
use crate::reconcile::pods::{
    Role, Trouble, ended, has_started, labelled, leaving, node, owned_by, ready, running, trouble,
};
use crate::reconcile::{instance::storage, instance::template, pods::health};

pub(crate) mod placement;
pub(crate) mod replacement;

/// Everything that a pass over an instance looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The instance as last seen.
    pub instance: Arc<StoppableContainerInstance>,
    /// What has the provider's name.
    pub provider: Slot,
    /// What has the consumer's name.
    pub consumer: Slot,
    /// The instance has a node and that Node object does not exist.
    pub node_gone: bool,
    /// What Kubernetes says about the node, which it has not heard of for a while.
    pub node_silent: Option<String>,
    /// What Kubernetes says about the node, whose kubelet says that it is not ready.
    pub node_unready: Option<String>,
    /// The consumer's container was started again after its program could not be executed, and for this long nothing
    /// shows that it will be this time.
    pub doubted: Option<Duration>,
    /// The pods have a node whose kubelet does not know the node agent.
    pub agent_missing: bool,
    /// Claims of the template that only one pod may use (ReadWriteOncePod).
    pub exclusive_claims: BTreeSet<String>,
    /// What the API server made of the template when it was last asked; perhaps of an earlier one.
    pub template_check: Option<TemplateCheck>,
    /// The provider's last failure.
    pub provider_hold: Option<Hold>,
    /// The consumer's last failure.
    pub consumer_hold: Option<Hold>,
}

/// What has a name that we need.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Nothing.
    Free,
    /// The pod that the controller created for the instance (invariant I16).
    Ours(Arc<Pod>),
    /// It names the instance as its controller, but the controller knows nothing of having created it. It makes way.
    Stray(Arc<Pod>),
    /// Somebody else's; the text says whose.
    Taken(String),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put our finalizer on the instance, before anything is made for it.
    AddFinalizer,
    /// Take it off: nothing of the instance is left.
    RemoveFinalizer,
    /// Create a pod, this one: text, because it is kept until the API server has answered.
    Create(Role, Json),
    /// Put our labels back on a pod of ours.
    Relabel(Role, Arc<Pod>),
    /// Delete a pod of ours with its own grace period. With a trouble, its successor waits.
    Delete(Role, Arc<Pod>, Option<Trouble>),
    /// Delete a stray pod.
    Discard(Role, Arc<Pod>),
}

// === impl Slot ===

impl Slot {
    /// How `pod` relates to `instance`. `created` is the UID of the pod that this process created for the role.
    ///
    /// The UID decides, which only the API server gives: the UID of the record, or of the answer to our own creation. An
    /// owner reference proves nothing, since every user who may change a pod can put one in. A pod with the reference
    /// and without a record was left by a controller that died between the creation and the record, or it is a forgery.
    /// The node agent served neither, so nothing is lost with it.
    pub fn of(
        pod: Arc<Pod>,
        instance: &StoppableContainerInstance,
        role: Role,
        created: Option<&str>,
    ) -> Self {
        let uid = pod.metadata.uid.as_deref();
        if uid.is_some() && (uid == recorded(instance, role) || uid == created) {
            return Self::Ours(pod);
        }
        if owned_by(&pod, instance) {
            return Self::Stray(pod);
        }
        let owner = pod
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let whose = owner.map_or_else(
            || "is nobody's".to_owned(),
            |owner| format!("belongs to {} {} (UID {})", owner.kind, owner.name, owner.uid),
        );
        Self::Taken(format!(
            "pod {} {whose} and is left alone; this object, whose files are kept, goes on when that pod is gone",
            pod.name_any()
        ))
    }

    /// The pod, if it is ours.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Ours(pod) => Some(pod),
            Self::Free | Self::Stray(_) | Self::Taken(_) => None,
        }
    }
}

/// UID of the pod that the status records for a role.
pub fn recorded(instance: &StoppableContainerInstance, role: Role) -> Option<&str> {
    let status = instance.status.as_ref()?;
    match role {
        Role::Provider => status.provider_pod_uid.as_deref(),
        Role::Consumer => status.consumer_pod_uid.as_deref(),
    }
}

// === impl Observed ===

impl Observed {
    /// The instance's status; empty before the first one was written.
    pub fn status(&self) -> StoppableContainerInstanceStatus {
        self.instance.status.clone().unwrap_or_default()
    }

    /// Deletion of the instance has been asked for.
    pub fn deleting(&self) -> bool {
        self.instance.metadata.deletion_timestamp.is_some()
    }

    /// The provider, if it is in place and works.
    pub fn working_provider(&self) -> Option<&Arc<Pod>> {
        self.provider
            .pod()
            .filter(|pod| running(pod) && ready(pod) && !leaving(pod))
    }

    /// Whether the template names another image than the one that the provider was made of, and nothing runs on that
    /// one. Its replacement shows whether they are the same after all; if not, the user is asked (invariant I1).
    pub fn wants_other_image(&self) -> bool {
        let made_of = self
            .provider
            .pod()
            .and_then(|pod| pod.annotations().get(ANNOTATION_IMAGE));
        matches!(self.consumer, Slot::Free)
            && made_of.is_some_and(|image| image != self.instance.spec.main_image())
            // No other provider could be made.
            && template::trouble(&self.instance).is_none()
    }

    /// What keeps a consumer whose containers run from its filesystem, and so from executing its command.
    pub fn blocked(&self) -> Option<&str> {
        let pod = self.consumer.pod().filter(|pod| running(pod) && !leaving(pod))?;
        self.instance
            .status
            .as_ref()?
            .blocked(pod.metadata.uid.as_deref())
    }

    /// How the consumer's container ended, if it was started again only a moment ago and probably ends in the same way.
    pub fn doubt(&self) -> Option<Trouble> {
        self.doubted.filter(|rest| !rest.is_zero())?;
        let pod = self.consumer.pod().filter(|pod| !leaving(pod))?;
        health::doubtful(pod, self.instance.spec.main_container()).map(|(_, last)| last)
    }

    /// The filesystem that a consumer may start on, with the identity that its main container is to have. `None`
    /// while the agent has still to prepare it, or to resolve another user after the template changed.
    pub fn usable_filesystem(&self) -> Option<(&FilesystemStatus, &Identity)> {
        let filesystem = self.instance.status.as_ref()?.ready_filesystem()?;
        if self.provider.pod()?.metadata.uid != filesystem.provider_pod_uid {
            return None;
        }
        let wanted = self.instance.spec.requested_user(filesystem.image.as_ref()?);
        let identity = filesystem
            .identity
            .as_ref()
            .filter(|identity| identity.user == wanted)?;
        Some((filesystem, identity))
    }

    /// Why no pod can be made of the template, as far as is known.
    pub fn template_trouble(&self) -> Option<Trouble> {
        template::trouble(&self.instance).or_else(|| template::found(self))
    }

    /// What keeps a consumer from being started: the filesystem takes more than the template's limit.
    pub fn start_excess(&self) -> Option<StorageExcess> {
        let filesystem = self.instance.status.as_ref()?.filesystem.as_ref();
        self.instance.storage_excess(filesystem)
    }

    /// Whether the filesystem takes more than the limit of the consumer that runs, which is its pod's own.
    fn running_excess(&self, pod: &Pod) -> Option<StorageExcess> {
        let usage = self.instance.status.as_ref()?.filesystem.as_ref()?.usage;
        let main = self.instance.spec.main_container();
        StorageExcess::over(main, storage_limit(pod.spec.as_ref()?, main)?, usage)
    }

    /// The data is gone, so whatever runs has no filesystem to go on with.
    fn filesystem_lost(&self) -> bool {
        let filesystem = self
            .instance
            .status
            .as_ref()
            .and_then(|status| status.filesystem.as_ref());
        filesystem.is_some_and(|filesystem| {
            filesystem.state == FilesystemState::Failed
                && filesystem.reason.as_deref() == Some(reason::FILESYSTEM_LOST)
        })
    }

    /// Whether nothing of the instance is on any node: the agent removed it, or there never was anything, or the node
    /// itself is no more.
    pub fn data_is_gone(&self) -> bool {
        let status = self.status();
        match &status.filesystem {
            Some(filesystem) if filesystem.state == FilesystemState::Removed => true,
            None if status.node_name.is_none() => true,
            _ => self.node_gone,
        }
    }
}

/// The next steps for an instance, in order.
pub fn plan(observed: &Observed, opt_outs: &OptOuts) -> Vec<Action> {
    let finalizer = observed.instance.finalizers().iter().any(|f| f == FINALIZER);
    if observed.deleting() {
        return if finalizer {
            plan_removal(observed)
        } else {
            Vec::new()
        };
    }
    let mut actions = Vec::new();
    if !finalizer {
        actions.push(Action::AddFinalizer);
    }
    actions.extend(plan_provider(observed, opt_outs));
    actions.extend(plan_consumer(observed));
    actions
}

/// Consumer, provider, data, finalizer: each only when the one before is gone.
fn plan_removal(observed: &Observed) -> Vec<Action> {
    for (role, slot) in [
        (Role::Consumer, &observed.consumer),
        (Role::Provider, &observed.provider),
    ] {
        match slot {
            Slot::Ours(pod) => return delete_once(role, pod, None),
            Slot::Stray(pod) => return discard_once(role, pod),
            Slot::Free | Slot::Taken(_) => {}
        }
    }
    if observed.data_is_gone() {
        vec![Action::RemoveFinalizer]
    } else {
        Vec::new()
    }
}

fn plan_provider(observed: &Observed, opt_outs: &OptOuts) -> Vec<Action> {
    match &observed.provider {
        Slot::Taken(_) => Vec::new(),
        Slot::Stray(pod) => discard_once(Role::Provider, pod),
        Slot::Free if observed.node_gone || waits(observed.provider_hold.as_ref()) => Vec::new(),
        Slot::Free => {
            let pod = provider_pod(&observed.instance, &observed.exclusive_claims, opt_outs);
            creation(Role::Provider, pod.as_ref().ok())
        }
        Slot::Ours(pod) if ended(pod) => delete_once(Role::Provider, pod, trouble(pod)),
        Slot::Ours(pod) if astray(observed, pod) => {
            delete_once(Role::Provider, pod, Some(stray_trouble(pod)))
        }
        Slot::Ours(pod) if replacement::due(observed).is_some() || observed.wants_other_image() => {
            delete_once(Role::Provider, pod, None)
        }
        Slot::Ours(pod) => relabel(Role::Provider, pod, observed),
    }
}

fn plan_consumer(observed: &Observed) -> Vec<Action> {
    let spec = &observed.instance.spec;
    let main = spec.main_container();
    match &observed.consumer {
        Slot::Taken(_) => Vec::new(),
        Slot::Stray(pod) => discard_once(Role::Consumer, pod),
        Slot::Free => {
            let may_start = spec.running
                && observed.working_provider().is_some()
                && !observed.wants_other_image()
                && replacement::due(observed).is_none()
                && observed.usable_filesystem().is_some()
                && observed.start_excess().is_none()
                && !waits(observed.consumer_hold.as_ref());
            if may_start {
                creation(Role::Consumer, consumer_pod(&placed(observed)).as_ref().ok())
            } else {
                Vec::new()
            }
        }
        Slot::Ours(pod) if !spec.running || observed.filesystem_lost() => {
            delete_once(Role::Consumer, pod, None)
        }
        Slot::Ours(pod) if ended(pod) => delete_once(Role::Consumer, pod, trouble(pod)),
        Slot::Ours(pod) if replacement::keeps_out(observed) => delete_once(Role::Consumer, pod, None),
        Slot::Ours(pod) if !has_started(pod, main) && outdated(pod, &consumer_hash(&observed.instance)) => {
            delete_once(Role::Consumer, pod, None)
        }
        Slot::Ours(pod) => match observed.running_excess(pod) {
            Some(excess) => delete_once(Role::Consumer, pod, Some(storage::eviction(&excess))),
            None => relabel(Role::Consumer, pod, observed),
        },
    }
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

fn delete_once(role: Role, pod: &Arc<Pod>, trouble: Option<Trouble>) -> Vec<Action> {
    if leaving(pod) {
        Vec::new()
    } else {
        vec![Action::Delete(role, Arc::clone(pod), trouble)]
    }
}

fn discard_once(role: Role, pod: &Arc<Pod>) -> Vec<Action> {
    if leaving(pod) {
        Vec::new()
    } else {
        vec![Action::Discard(role, Arc::clone(pod))]
    }
}

fn relabel(role: Role, pod: &Arc<Pod>, observed: &Observed) -> Vec<Action> {
    if leaving(pod) || labelled(pod, role, &observed.instance.name_any()) {
        return Vec::new();
    }
    vec![Action::Relabel(role, Arc::clone(pod))]
}

fn waits(hold: Option<&Hold>) -> bool {
    hold.is_some_and(|hold| !hold.remaining.is_zero())
}

/// Bound to another node than the one with the data, by a scheduler that does not know node affinity.
fn astray(observed: &Observed, pod: &Pod) -> bool {
    let kept_on = observed
        .instance
        .status
        .as_ref()
        .and_then(|s| s.node_name.as_deref());
    kept_on.is_some_and(|kept| node(pod).is_some_and(|at| at != kept))
}

fn stray_trouble(pod: &Pod) -> Trouble {
    let at = node(pod).unwrap_or_default();
    Trouble::new(
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
