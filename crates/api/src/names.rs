/*!
Names that several programs share: labels, annotations, the CSI driver, the reserved volume, pod
names.
*/

use crate::documented::documented;

/// API group of the custom resources, and prefix of all labels and annotations of the product.
pub const GROUP: &str = "stoppablecontainer.xtlsoft.top";

/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "stoppablecontainer";
/// Value of [`LABEL_ROLE`] on the pod that pins the node and the image.
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
    /// On every pod and every instance that the controller creates, with the value
    /// `stoppablecontainer`. Watches and webhooks select on the labels; the labels do not authorize
    /// anything (invariant I8).
    LABEL_MANAGED_BY = "stoppablecontainer.xtlsoft.top/managed-by";
    /// On all pods of an instance: the name of the StoppableContainerInstance.
    LABEL_INSTANCE = "stoppablecontainer.xtlsoft.top/instance";
    /// On all pods of an instance: `provider`, `consumer` or `placeholder`.
    LABEL_ROLE = "stoppablecontainer.xtlsoft.top/role";
}

documented! {
    /// Every annotation with its meaning.
    ANNOTATIONS:
    /// On both kinds, set by the user: how to recover a filesystem that cannot be used, `accept-ID`
    /// or `reset-ID`. The message of the condition `FilesystemReady` has the exact values. On a
    /// StoppableContainer, `reset-UID` with the UID in `status.instanceUid` deletes the files at
    /// any time and begins with an empty filesystem.
    ANNOTATION_RECOVERY = "stoppablecontainer.xtlsoft.top/recovery";
    /// On the template (`spec.template.metadata.annotations`), set by the user: asks for a restart.
    /// When the value changes while the container runs, the controller stops the consumer and
    /// starts it once, with all files kept. Removing the annotation does nothing, and so does a
    /// value that the object is created with.
    ANNOTATION_RESTARTED_AT = "stoppablecontainer.xtlsoft.top/restartedAt";
    /// On a StoppableContainer whose node was deleted: the name of the node that has its disk now,
    /// because the machine was renamed or the disk was attached to another one. The controller
    /// continues on that node. If the files are not there, `FilesystemReady` says so.
    ANNOTATION_MOVED_TO = "stoppablecontainer.xtlsoft.top/moved-to";
    /// On a rewritten consumer pod: the name of its main container. Other webhooks may insert
    /// containers before it, so after the first rewrite it is identified by name.
    ANNOTATION_MAIN_CONTAINER = "stoppablecontainer.xtlsoft.top/main-container";
    /// On all pods of an instance: a hash of the fields that the pod was created from. A pod that
    /// never ran is replaced when its template changes.
    ANNOTATION_TEMPLATE_HASH = "stoppablecontainer.xtlsoft.top/template-hash";
    /// On a consumer pod: short hashes of the template fields that it was created from.
    /// `RestartRequired` uses them to list the fields that were edited since.
    ANNOTATION_TEMPLATE_FIELDS = "stoppablecontainer.xtlsoft.top/template-fields";
    /// On a consumer pod, with the value `Scheduler`: the scheduler places the pod. The annotation
    /// repeats `status.placement` because the webhook may receive the pod before that status.
    ANNOTATION_PLACEMENT = "stoppablecontainer.xtlsoft.top/placement";
    /// On a provider pod: the image in the template when the pod was created. Other webhooks may
    /// have changed the pod's image.
    ANNOTATION_IMAGE = "stoppablecontainer.xtlsoft.top/image";
    /// On a rewritten consumer pod: the ID of the image whose config the pod was completed with.
    /// The agent does not give the pod the filesystem of another image.
    ANNOTATION_IMAGE_ID = "stoppablecontainer.xtlsoft.top/image-id";
    /// On a provider pod on a node that holds files: a hash of the annotations that keep
    /// autoscalers from removing the node.
    ANNOTATION_KEEPS_NODE = "stoppablecontainer.xtlsoft.top/keeps-node";
    /// On an instance: names of nodes, separated by commas, that were given up before the first
    /// start. The scheduler prefers others.
    ANNOTATION_AVOID_NODES = "stoppablecontainer.xtlsoft.top/avoid-nodes";
}

documented! {
    /// The finalizer with its meaning.
    FINALIZERS:
    /// On both kinds: the object is deleted after its pods and its data.
    FINALIZER = "stoppablecontainer.xtlsoft.top/cleanup";
}

documented! {
    /// The scheduling gates with their meaning.
    GATES:
    /// On a consumer pod that is not rewritten yet. Only the rewrite removes the gate, so a pod
    /// that the webhook did not receive is never bound to a node.
    GATE = "stoppablecontainer.xtlsoft.top/rewrite";
    /// On a consumer pod whose placeholder still reserves the room on the node. The controller
    /// removes the gate when the placeholder is gone.
    GATE_PLACEHOLDER = "stoppablecontainer.xtlsoft.top/placeholder";
}

/// Name of the CSI driver that the node agent registers with the kubelet.
pub const CSI_DRIVER: &str = "csi.stoppablecontainer.xtlsoft.top";

/// Name of the inline CSI volume in provider and consumer pods. Templates must not use it.
pub const VOLUME_NAME: &str = "stoppablecontainer";
/// Name of the provider pod's container.
pub const PROVIDER_CONTAINER: &str = "provider";
/// Mount path of that volume in the provider's container and the consumer's main container.
/// Templates must not use it. The volume holds `exec-wrapper` (the program) and `agent.sock` (the
/// node agent's socket for this pod).
pub const VOLUME_MOUNT_PATH: &str = "/.stoppablecontainer";
/// Path of the wrapper in the volume. The provider runs it from there. The consumer's hooks and
/// probes do too, before and after the container is moved onto its kept filesystem.
pub const WRAPPER_IN_VOLUME: &str = "/.stoppablecontainer/exec-wrapper";
/// Prefix of the wrapper's own lines in a container's log and termination message.
pub const WRAPPER_LINE_PREFIX: &str = "stoppablecontainer: ";
/// Path of the wrapper in the wrapper image.
pub const WRAPPER_IN_IMAGE: &str = "/exec-wrapper";

/// Field manager of the controller's writes.
pub const FIELD_MANAGER_CONTROLLER: &str = "stoppablecontainer-controller";
/// Field manager of the node agent's server-side applies (`status.filesystem` of instances).
pub const FIELD_MANAGER_AGENT: &str = "stoppablecontainer-node-agent";

/// Maximum length of an object's name, in bytes. The name becomes the value of [`LABEL_INSTANCE`],
/// and label values have at most 63 characters.
pub const MAX_NAME_LENGTH: usize = 63;

/// Name of the provider pod of an instance. The consumer pod has the name of the instance.
pub fn provider_pod_name(instance: &str) -> String {
    format!("{instance}-provider")
}

/// Name of the placeholder pod of an instance.
pub fn placeholder_pod_name(instance: &str) -> String {
    format!("{instance}-placeholder")
}
