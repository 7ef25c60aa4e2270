/*!
Names that more than one program must spell alike: labels, the CSI driver, the
reserved volume, pod names.
*/

/// API group of the custom resources, and prefix of every label and annotation of ours.
pub const GROUP: &str = "stoppablecontainer.xtlsoft.top";

/// Label on every pod that we create, and on every instance that was made for a StoppableContainer; its value is
/// [`MANAGED_BY`]. Labels scope our watches and webhooks, they authorise nothing (invariant I8).
pub const LABEL_MANAGED_BY: &str = "stoppablecontainer.xtlsoft.top/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "stoppablecontainer";
/// Label that holds the name of the pod's StoppableContainerInstance.
pub const LABEL_INSTANCE: &str = "stoppablecontainer.xtlsoft.top/instance";
/// Label that tells a provider pod from a consumer pod.
pub const LABEL_ROLE: &str = "stoppablecontainer.xtlsoft.top/role";
/// Value of [`LABEL_ROLE`] on the pod that keeps node and image.
pub const ROLE_PROVIDER: &str = "provider";
/// Value of [`LABEL_ROLE`] on the pod that runs the user's workload. The webhooks select on it.
pub const ROLE_CONSUMER: &str = "consumer";

/// Annotation on a rewritten consumer pod: the name of its main container. Injectors may put theirs in front, so
/// the container is known by name from the first rewrite on.
pub const ANNOTATION_MAIN_CONTAINER: &str = "stoppablecontainer.xtlsoft.top/main-container";

/// Annotation on our pods: what they were made from, so that a pod that never came up is replaced once its template
/// was corrected.
pub const ANNOTATION_TEMPLATE_HASH: &str = "stoppablecontainer.xtlsoft.top/template-hash";

/// Annotation on a consumer pod: short hashes of the parts that it was made from, so that the fields that were edited
/// since can be named.
pub const ANNOTATION_TEMPLATE_FIELDS: &str = "stoppablecontainer.xtlsoft.top/template-fields";

/// Annotation on a consumer pod that is to be placed by the scheduler, with the value `Scheduler`: what the instance's
/// status says of that, which the webhook may hear of later than of the pod.
pub const ANNOTATION_PLACEMENT: &str = "stoppablecontainer.xtlsoft.top/placement";
/// Value of [`ANNOTATION_PLACEMENT`].
pub const PLACEMENT_SCHEDULER: &str = "Scheduler";

/// Annotation on a provider pod: the image that the template named when it was made. Other webhooks may have changed
/// the image itself.
pub const ANNOTATION_IMAGE: &str = "stoppablecontainer.xtlsoft.top/image";

/// Annotation on both kinds with which the user takes a way out of a failure: `accept-ID` or `reset-ID`, as the
/// condition `FilesystemReady` words it.
pub const ANNOTATION_RECOVERY: &str = "stoppablecontainer.xtlsoft.top/recovery";

/// Scheduling gate of a consumer pod that has not been rewritten. The rewrite takes it off, so a pod that no webhook of
/// ours saw is never bound to a node.
pub const GATE: &str = "stoppablecontainer.xtlsoft.top/rewrite";

/// Finalizer on both kinds: the object goes when its pods and its data are gone.
pub const FINALIZER: &str = "stoppablecontainer.xtlsoft.top/cleanup";

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
