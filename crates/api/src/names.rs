/*!
Names that more than one program must spell alike: labels, the CSI driver, the
reserved volume, pod names.
*/

use crate::documented::documented;

/// API group of the custom resources, and prefix of every label and annotation of ours.
pub const GROUP: &str = "stoppablecontainer.xtlsoft.top";

/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "stoppablecontainer";
/// Value of [`LABEL_ROLE`] on the pod that keeps node and image.
pub const ROLE_PROVIDER: &str = "provider";
/// Value of [`LABEL_ROLE`] on the pod that runs the user's workload. The webhooks select on it.
pub const ROLE_CONSUMER: &str = "consumer";
/// Value of [`LABEL_ROLE`] on the pod that the scheduler chooses the first node for.
pub const ROLE_PLACEHOLDER: &str = "placeholder";
/// Value of [`ANNOTATION_PLACEMENT`].
pub const PLACEMENT_SCHEDULER: &str = "Scheduler";

documented! {
    /// Every label with its meaning.
    LABELS:
    /// On every pod that the controller creates, and on every instance that it makes for a StoppableContainer, with the
    /// value `stoppablecontainer`. Labels scope watches and webhooks, they authorize nothing (invariant I8).
    LABEL_MANAGED_BY = "stoppablecontainer.xtlsoft.top/managed-by";
    /// On all pods of an instance: the name of the StoppableContainerInstance.
    LABEL_INSTANCE = "stoppablecontainer.xtlsoft.top/instance";
    /// On all pods of an instance: `provider`, `consumer` or `placeholder`.
    LABEL_ROLE = "stoppablecontainer.xtlsoft.top/role";
}

documented! {
    /// Every annotation with its meaning.
    ANNOTATIONS:
    /// On both kinds, set by the user: the decision about a filesystem that cannot be used, `accept-ID` or `reset-ID`, as the
    /// condition `FilesystemReady` words it.
    ANNOTATION_RECOVERY = "stoppablecontainer.xtlsoft.top/recovery";
    /// On a rewritten consumer pod: the name of its main container. Injectors may put theirs in front, so the container is
    /// known by name from the first rewrite on.
    ANNOTATION_MAIN_CONTAINER = "stoppablecontainer.xtlsoft.top/main-container";
    /// On all pods of an instance: a hash of what they were made from. A pod that never came up is replaced after its template was
    /// corrected.
    ANNOTATION_TEMPLATE_HASH = "stoppablecontainer.xtlsoft.top/template-hash";
    /// On a consumer pod: short hashes of the parts that it was made from, so that `RestartRequired` can name the fields
    /// that were edited since.
    ANNOTATION_TEMPLATE_FIELDS = "stoppablecontainer.xtlsoft.top/template-fields";
    /// On a consumer pod, with the value `Scheduler`: the scheduler places the pod. The webhook may see the pod before it
    /// sees `status.placement`.
    ANNOTATION_PLACEMENT = "stoppablecontainer.xtlsoft.top/placement";
    /// On a provider pod: the image that the template named when the pod was made. Other webhooks may have changed the image
    /// itself.
    ANNOTATION_IMAGE = "stoppablecontainer.xtlsoft.top/image";
    /// On an instance: names of nodes, separated by commas, that were given up before the first start. The scheduler
    /// prefers others.
    ANNOTATION_AVOID_NODES = "stoppablecontainer.xtlsoft.top/avoid-nodes";
}

documented! {
    /// The finalizer with its meaning.
    FINALIZERS:
    /// On both kinds: the object goes when its pods and its data are gone.
    FINALIZER = "stoppablecontainer.xtlsoft.top/cleanup";
}

documented! {
    /// The scheduling gate with its meaning.
    GATES:
    /// On a consumer pod that was not rewritten. Only the rewrite removes it, so a pod that the webhook did not see is never
    /// bound to a node.
    GATE = "stoppablecontainer.xtlsoft.top/rewrite";
}

/// Name under which the node agent registers with the kubelet.
pub const CSI_DRIVER: &str = "csi.stoppablecontainer.xtlsoft.top";

/// Name of the inline CSI volume in provider and consumer pods; reserved in templates.
pub const VOLUME_NAME: &str = "stoppablecontainer";
/// Name of the container of a provider pod.
pub const PROVIDER_CONTAINER: &str = "provider";
/// Where that volume is mounted in the provider's and the consumer's main container; reserved in templates. It
/// holds `exec-wrapper` (the program) and `agent.sock` (the node agent's socket for this pod).
pub const VOLUME_MOUNT_PATH: &str = "/.stoppablecontainer";
/// The wrapper as seen through the volume: in the provider and, for hooks and probes, in the consumer before and
/// after it was moved onto its kept filesystem.
pub const WRAPPER_IN_VOLUME: &str = "/.stoppablecontainer/exec-wrapper";
/// How the wrapper's own lines begin, in a container's log and in its termination message.
pub const WRAPPER_LINE_PREFIX: &str = "stoppablecontainer: ";
/// The wrapper in the wrapper image.
pub const WRAPPER_IN_IMAGE: &str = "/exec-wrapper";

/// Field manager of the controller's writes.
pub const FIELD_MANAGER_CONTROLLER: &str = "stoppablecontainer-controller";
/// Field manager of the node agent's server-side applies (`status.filesystem` of instances).
pub const FIELD_MANAGER_AGENT: &str = "stoppablecontainer-node-agent";

/// Longest name of an object, in bytes: it becomes the value of [`LABEL_INSTANCE`], and label values end at 63.
pub const MAX_NAME_LENGTH: usize = 63;

/// Name of the provider pod of an instance. The consumer pod is named like the instance itself.
pub fn provider_pod_name(instance: &str) -> String {
    format!("{instance}-provider")
}

/// Name of the placeholder pod of an instance.
pub fn placeholder_pod_name(instance: &str) -> String {
    format!("{instance}-placeholder")
}
