/*!
What a reconciliation knows about an instance: the object, the pods with the names of its pods, and
the facts of the node; and the answers that follow from them alone.

Values without a client. Reads are in [`super::observe`], decisions in [`super::plan`].
*/

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::{ANNOTATION_IMAGE, ANNOTATION_IMAGE_ID};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, GivenUp, Identity, StoppableContainerInstance,
    StoppableContainerInstanceStatus, StorageExcess, TemplateCheck, WhileStopped, is_controlled_by,
    storage_limit,
};

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::Backoff;
use crate::reconcile::pods::{
    Role, consumer_hash, health, is_finished, is_ready, is_running, is_terminating, node, template,
};

pub(super) mod first_node;

/// Everything that the reconciliation of an instance depends on.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The instance as last seen.
    pub instance: Arc<StoppableContainerInstance>,
    /// The pod with the provider's name.
    pub provider: Slot,
    /// The pod with the consumer's name.
    pub consumer: Slot,
    /// What has the placeholder's name.
    pub placeholder: Slot,
    /// The instance has a node and that Node object does not exist.
    pub node_gone: bool,
    /// The message of the node's Ready condition, if that is Unknown.
    pub node_unreachable: Option<String>,
    /// The message of the node's Ready condition, if that is False.
    pub node_not_ready: Option<String>,
    /// The node is cordoned: no new pods are scheduled there.
    pub node_cordoned: bool,
    /// The consumer's container was started again after its program could not be executed, and for
    /// this long nothing shows that it will be this time.
    pub unconfirmed_restart: Option<Duration>,
    /// The node agent is not registered with the kubelet of the pods' node.
    pub agent_missing: bool,
    /// Why the node cannot run the consumer, which has users of its own.
    pub users_obstacle: Option<String>,
    /// There are nodes that this object has not given up, and that can run it as far as is known.
    pub other_nodes: bool,
    /// Why the first node is not suitable, and for how long the controller still keeps it.
    pub unsuitable: Option<Backoff>,
    /// The node was given up in this pass.
    pub given_up: Option<GivenUp>,
    /// What the API server made of the template when it was last asked; perhaps of an earlier one.
    pub template_check: Option<TemplateCheck>,
    /// Why the API server refused to change CPU and memory of the consumer that runs, since the
    /// last edit.
    pub resize_refused: Option<Cause>,
    /// What was changed of the consumer in this pass.
    pub resized: Option<Cause>,
    /// The provider's last failure.
    pub provider_backoff: Option<Backoff>,
    /// The consumer's last failure.
    pub consumer_backoff: Option<Backoff>,
    /// The placeholder's last failure.
    pub placeholder_backoff: Option<Backoff>,
}

/// Which object has the name of one of our pods.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// No object.
    Free,
    /// The pod that the controller created for the instance (invariant I16).
    Ours(Arc<Pod>),
    /// A pod that names the instance as its controller, without a record that our controller
    /// created it. It is deleted.
    Unrecorded(Arc<Pod>),
    /// A pod of another owner; the text names the owner.
    Taken(String),
}

// === impl Slot ===

impl Slot {
    /// How `pod` relates to `instance`. `created` is the UID of the pod that this process created
    /// for the role.
    ///
    /// The UID decides, which only the API server gives: the UID of the record, or of the answer to
    /// our own creation. An owner reference proves nothing, since every user who may change a pod
    /// can put one in. A pod with the reference and without a record was left by a controller that
    /// died between the creation and the record, or it is a forgery. The node agent served neither,
    /// so nothing is lost with it.
    pub(super) fn of(
        pod: Arc<Pod>,
        instance: &StoppableContainerInstance,
        role: Role,
        created: Option<&str>,
    ) -> Self {
        let uid = pod.metadata.uid.as_deref();
        if uid.is_some() && (uid == recorded(instance, role) || uid == created) {
            return Self::Ours(pod);
        }
        if is_controlled_by(&*pod, instance) {
            return Self::Unrecorded(pod);
        }
        let owner = pod
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let whose = owner.map_or_else(
            || "has no owner".to_owned(),
            |owner| format!("belongs to {} {} (UID {})", owner.kind, owner.name, owner.uid),
        );
        Self::Taken(format!(
            "pod {} {whose} and is not changed; this object, whose files are kept, continues when that pod is gone",
            pod.name_any()
        ))
    }

    /// The pod, if it is ours.
    pub(super) fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Ours(pod) => Some(pod),
            Self::Free | Self::Unrecorded(_) | Self::Taken(_) => None,
        }
    }
}

/// UID of the pod that the status records for a role.
pub(super) fn recorded(instance: &StoppableContainerInstance, role: Role) -> Option<&str> {
    let status = instance.status.as_ref()?;
    match role {
        Role::Provider => status.provider_pod_uid.as_deref(),
        Role::Consumer => status.consumer_pod_uid.as_deref(),
        Role::Placeholder => status.placeholder_pod_uid.as_deref(),
    }
}

// === impl Observed ===

impl Observed {
    /// The instance's status; empty before the first one was written.
    pub(super) fn status(&self) -> StoppableContainerInstanceStatus {
        self.instance.status.clone().unwrap_or_default()
    }

    /// The node of the filesystem: the recorded one, or the one that was just chosen.
    pub(super) fn home(&self) -> Option<&str> {
        let placed = || {
            let pod = self.placeholder.pod().or(self.provider.pod());
            pod.filter(|pod| !is_finished(pod)).and_then(|pod| node(pod))
        };
        self.recorded_node().or_else(placed)
    }

    /// Deletion of the instance has been asked for.
    pub(super) fn deleting(&self) -> bool {
        self.instance.metadata.deletion_timestamp.is_some()
    }

    /// The provider, if it is in place and works.
    pub(super) fn working_provider(&self) -> Option<&Arc<Pod>> {
        self.provider
            .pod()
            .filter(|pod| is_running(pod) && is_ready(pod) && !is_terminating(pod) && !self.node_gone)
    }

    /// The recorded node, which holds the data.
    fn recorded_node(&self) -> Option<&str> {
        self.instance.status.as_ref()?.node_name.as_deref()
    }

    /// Whether the pod is bound to another node than the one with the data: a scheduler ignored the
    /// node affinity, or the data moved.
    pub(super) fn is_on_wrong_node(&self, pod: &Pod) -> bool {
        self.is_elsewhere(pod) && node(pod).is_some()
    }

    /// Whether the pod is bound to another node than the one with the data, or not bound.
    pub(super) fn is_elsewhere(&self, pod: &Pod) -> bool {
        self.recorded_node().is_some_and(|kept| node(pod) != Some(kept))
    }

    /// Whether the pod is a remainder of a node that is gone. Its status does not change any more,
    /// until Kubernetes collects it as garbage.
    pub(super) fn is_left_behind(&self, pod: &Pod) -> bool {
        self.node_gone || self.is_on_wrong_node(pod)
    }

    /// Whether the provider is in place for the consumer to be created. At the first start its pod
    /// is enough: the filesystem is reported as ready while this provider holds it, which is before
    /// the kubelet reports that the provider runs. Should it end meanwhile, the wrapper waits.
    pub(super) fn provider_is_in_place(&self) -> bool {
        let first = self.status().never_started;
        let exists = |pod: &Arc<Pod>| !is_finished(pod) && !is_terminating(pod);
        self.working_provider().is_some() || (first && self.provider.pod().is_some_and(exists))
    }

    /// Whether the template names another image than the one that the provider was made of, and
    /// nothing runs on that one. Its replacement shows whether they are the same after all; if not,
    /// the user is asked (invariant I1).
    pub(super) fn wants_other_image(&self) -> bool {
        let made_of = self
            .provider
            .pod()
            .and_then(|pod| pod.annotations().get(ANNOTATION_IMAGE));
        matches!(self.consumer, Slot::Free)
            && made_of.is_some_and(|image| image != self.instance.spec.main_image())
            // No other provider could be made.
            && template::blocking_cause(&self.instance).is_none()
    }

    /// What keeps a consumer whose containers run from its filesystem, and so from executing its
    /// command.
    pub(super) fn blocked(&self) -> Option<&str> {
        let pod = self
            .consumer
            .pod()
            .filter(|pod| is_running(pod) && !is_terminating(pod))?;
        self.instance
            .status
            .as_ref()?
            .blocked(pod.metadata.uid.as_deref())
    }

    /// How the consumer's container ended, if it was started again only a moment ago and probably
    /// ends in the same way.
    pub(super) fn unconfirmed_failure(&self) -> Option<Cause> {
        self.unconfirmed_restart.filter(|rest| !rest.is_zero())?;
        let pod = self.consumer.pod().filter(|pod| !is_terminating(pod))?;
        health::unconfirmed(pod, self.instance.spec.main_container()).map(|(_, last)| last)
    }

    /// The filesystem that a consumer may be created for, with the identity that its main container
    /// is to have. `None` while the agent does not know them, or has not resolved another user
    /// after the template changed.
    pub(super) fn startable_filesystem(&self) -> Option<(&FilesystemStatus, &Identity)> {
        let filesystem = self.instance.status.as_ref()?.startable_filesystem()?;
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

    /// The same, once the agent has prepared it.
    pub(super) fn usable_filesystem(&self) -> Option<(&FilesystemStatus, &Identity)> {
        self.startable_filesystem()
            .filter(|(filesystem, _)| filesystem.state == FilesystemState::Ready)
    }

    /// Whether the command of a consumer waits: the agent announced the filesystem and has not
    /// prepared it so far. The kubelet knows only that the container runs.
    pub(super) fn filesystem_is_announced(&self) -> bool {
        let status = self.instance.status.as_ref();
        let filesystem = status.and_then(|status| status.filesystem.as_ref());
        filesystem.is_some_and(|filesystem| filesystem.announced)
    }

    /// Whether the consumer waits for the filesystem of an image that is not there: the name meant
    /// another one when the agent announced the filesystem.
    pub(super) fn waits_for_other_image(&self, pod: &Pod) -> bool {
        let made_for = pod.annotations().get(ANNOTATION_IMAGE_ID);
        let image = self
            .usable_filesystem()
            .and_then(|(filesystem, _)| filesystem.image.as_ref());
        self.blocked().is_some()
            && image
                .zip(made_for)
                .is_some_and(|(image, made_for)| image.id != *made_for)
    }

    /// Whether the filesystem is kept without a provider: the container is stopped, its user wants
    /// that, and the agent has prepared and synced the filesystem before.
    pub(super) fn may_release(&self) -> bool {
        let spec = &self.instance.spec;
        let filesystem = self
            .instance
            .status
            .as_ref()
            .and_then(|status| status.filesystem.as_ref());
        let is_ready = filesystem.is_some_and(|filesystem| filesystem.state == FilesystemState::Ready);
        let asked = || {
            let provider = spec.provider.decode();
            provider.is_ok_and(|provider| provider.while_stopped == Some(WhileStopped::Release))
        };
        !spec.running && is_ready && matches!(self.consumer, Slot::Free) && !self.deleting() && asked()
    }

    /// Whether the provider was deleted for this reason.
    pub(super) fn is_released(&self) -> bool {
        matches!(self.provider, Slot::Free) && self.may_release()
    }

    /// Why no pod can be made of the template, as far as is known.
    pub(super) fn template_error(&self) -> Option<Cause> {
        template::blocking_cause(&self.instance).or_else(|| found(self))
    }

    /// What keeps a consumer from being started: the filesystem takes more than the template's
    /// limit.
    pub(super) fn start_excess(&self) -> Option<StorageExcess> {
        let filesystem = self.instance.status.as_ref()?.filesystem.as_ref();
        self.instance.storage_excess(filesystem)
    }

    /// Whether the filesystem takes more than the limit of the consumer that runs, which is its
    /// pod's own.
    pub(super) fn running_excess(&self, pod: &Pod) -> Option<StorageExcess> {
        let usage = self.instance.status.as_ref()?.filesystem.as_ref()?.usage;
        let main = self.instance.spec.main_container();
        StorageExcess::over(main, storage_limit(pod.spec.as_ref()?, main)?, usage)
    }

    /// Whether the data is lost, so the consumer must stop.
    pub(super) fn filesystem_lost(&self) -> bool {
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

    /// Whether nothing of the instance is on any node: the agent removed it, or there never was
    /// anything, or the node itself does not exist any more.
    pub(super) fn data_is_gone(&self) -> bool {
        let status = self.status();
        match &status.filesystem {
            Some(filesystem) if filesystem.state == FilesystemState::Removed => true,
            None if status.node_name.is_none() => true,
            // The agent reports before it makes anything, and cannot report on an object that is
            // gone.
            None if status.never_started => true,
            _ => self.node_gone,
        }
    }
}

/// What the API server found wrong with the present template.
fn found(observed: &Observed) -> Option<Cause> {
    let check = observed.template_check.as_ref()?;
    let problem = check.problem.as_ref()?;
    let current = check.template_hash == consumer_hash(&observed.instance);
    current.then(|| Cause::new(reason::TEMPLATE_INVALID, problem.clone()))
}
