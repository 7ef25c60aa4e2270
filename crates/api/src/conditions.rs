//! Types and reasons of the conditions on both kinds.

/// The consumer runs and is Ready, or is stopped as asked.
pub const READY: &str = "Ready";
/// The provider pod runs on a node.
pub const PROVIDER_READY: &str = "ProviderReady";
/// The kept filesystem can be used: the node agent prepared it with the provider's image.
pub const FILESYSTEM_READY: &str = "FilesystemReady";
/// The consumer pod runs and its own readiness is true. False with reason `Stopped` while `running` is false.
pub const CONSUMER_READY: &str = "ConsumerReady";
/// The consumer runs with what the object said when it was created, and was edited since. Only there while it is true.
pub const RESTART_REQUIRED: &str = "RestartRequired";

/// Reasons that the controller writes. Reasons of pods (`Unschedulable`, `ImagePullBackOff`, `OutOfcpu`) pass
/// through as the scheduler and the kubelet wrote them.
pub mod reason {
    /// As wished.
    pub const AS_REQUESTED: &str = "AsRequested";
    /// `running` is false.
    pub const STOPPED: &str = "Stopped";
    /// The consumer is being deleted.
    pub const STOPPING: &str = "Stopping";
    /// The object was edited while its consumer ran; the message names the fields.
    pub const TEMPLATE_EDITED: &str = "TemplateEdited";
    /// The pod exists and is on its way.
    pub const STARTING: &str = "Starting";
    /// The API server refused to create the pod; the message is its own.
    pub const CREATION_REFUSED: &str = "CreationRefused";
    /// `spec.template` or `spec.provider` is larger than the operator works with: an object from before there were bounds.
    pub const TEMPLATE_TOO_LARGE: &str = "TemplateTooLarge";
    /// No pod can be made of `spec.template`: a field has the wrong type, is unknown, or has a value that no cluster takes.
    pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
    /// No webhook of ours saw the consumer pod, so the controller deleted it before it could run (invariant I3).
    pub const NOT_REWRITTEN: &str = "NotRewritten";
    /// A pod or an instance with the needed name belongs to somebody else.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// The node agent has not reported the filesystem yet.
    pub const PREPARING: &str = "Preparing";
    /// The node agent could not prepare or has lost the filesystem.
    pub const FILESYSTEM_FAILED: &str = "FilesystemFailed";
    /// The data is not on its node any more: whatever runs is stopped (invariant I1).
    pub const FILESYSTEM_LOST: &str = "FilesystemLost";
    /// The directory that holds the data is not at `spec.hostPathPrefix` of the node, because its disk is not mounted for
    /// example. The data is neither replaced nor counted as removed.
    pub const FILESYSTEM_UNREACHABLE: &str = "FilesystemUnreachable";
    /// A newer node agent left the data in a form that the present one does not know.
    pub const NODE_AGENT_OUTDATED: &str = "NodeAgentOutdated";
    /// The node agent allows no kept filesystems below `spec.hostPathPrefix`.
    pub const HOST_PATH_PREFIX_REFUSED: &str = "HostPathPrefixRefused";
    /// The filesystem can be used, but the node's disk did not take all that was written to it (syncfs(2) failed).
    pub const WRITE_FAILED: &str = "WriteFailed";
    /// The filesystem can be used, but the node's disk is nearly full.
    pub const DISK_LOW: &str = "DiskLow";
    /// The consumer's container runs, but not its command: its filesystem is not in place yet.
    pub const WAITING_FOR_FILESYSTEM: &str = "WaitingForFilesystem";
    /// The wrapper in the main container could not execute the program; the message names it. The word is Docker's.
    pub const CONTAINER_CANNOT_RUN: &str = "ContainerCannotRun";
    /// The main container wrote more than its `ephemeral-storage` limit; the word is the kubelet's.
    pub const EVICTED: &str = "Evicted";
    /// The object is being deleted.
    pub const DELETING: &str = "Deleting";
    /// The node agent is not registered with the kubelet of the pod's node, so the pod cannot start.
    pub const NODE_AGENT_MISSING: &str = "NodeAgentMissing";
    /// Nobody has heard of the node for a while: what runs there is not known, and nothing is done about it.
    pub const NODE_UNREACHABLE: &str = "NodeUnreachable";
    /// The kubelet of the node says that the node is not ready; the message has its words.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// The node that holds the data does not exist (any more).
    pub const NODE_GONE: &str = "NodeGone";
}
