//! Types and reasons of the conditions on both kinds.

use crate::documented::documented;

documented! {
    /// Every condition type with its meaning.
    TYPES:
    /// True while the consumer is ready, or stopped as requested. When False or Unknown, the reason
    /// and message are those of the first other condition that blocks the container.
    READY = "Ready";
    /// True while the provider pod runs on a node.
    PROVIDER_READY = "ProviderReady";
    /// True when the node agent has prepared the kept filesystem with the provider's image and it
    /// can be used.
    FILESYSTEM_READY = "FilesystemReady";
    /// True while the consumer pod is running and ready. False with reason `Stopped` while
    /// `spec.running` is false.
    CONSUMER_READY = "ConsumerReady";
    /// True while a node is chosen for the consumer pod. Before the first start the placeholder pod
    /// stands for it. The message of an unscheduled pod is the scheduler's.
    CONSUMER_SCHEDULED = "ConsumerScheduled";
    /// True while `spec.running` is false and the consumer pod does not exist. The node agent has
    /// synced the files then, unless the pod was deleted by force.
    STOPPED_CONDITION = "Stopped";
    /// True if the object was edited after its running consumer was created. The condition is
    /// removed when it is no longer true.
    RESTART_REQUIRED = "RestartRequired";
}

/// A reason, with the conditions that can have it.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// The value of the condition's `reason`.
    pub name: &'static str,
    /// Types of the conditions that set this reason. `Ready` also repeats the reasons of the
    /// others. If the list is empty, only events use the reason.
    pub conditions: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

/// Reasons that the controller and the node agent write. Other reasons of pods (`ImagePullBackOff`,
/// `OutOfcpu`) are copied from the scheduler and the kubelet.
pub mod reason {
    use super::{
        CONSUMER_READY, CONSUMER_SCHEDULED, FILESYSTEM_READY, PROVIDER_READY, READY, RESTART_REQUIRED,
        Reason, STOPPED_CONDITION,
    };

    /// Defines the constants and [`ALL`].
    macro_rules! reasons {
        ($($(#[doc = $doc:literal])+ $name:ident = $value:literal in [$($condition:ident),*];)+) => {
            $($(#[doc = $doc])+ pub const $name: &str = $value;)+
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason {
                name: $value,
                conditions: &[$($condition),*],
                meaning: concat!($($doc),+),
            }),+];
        };
    }

    reasons! {
        /// The state matches the spec.
        AS_REQUESTED = "AsRequested" in [PROVIDER_READY, FILESYSTEM_READY, CONSUMER_READY];
        /// The provider pod was deleted because the container is stopped and
        /// `spec.provider.whileStopped` is `Release`.
        RELEASED = "Released" in [PROVIDER_READY];
        /// `spec.running` is false. Also an event: the container is stopped.
        STOPPED = "Stopped" in [READY, CONSUMER_READY, CONSUMER_SCHEDULED, STOPPED_CONDITION];
        /// The consumer is being deleted. Also an event.
        STOPPING = "Stopping" in [CONSUMER_READY, STOPPED_CONDITION];
        /// `spec.running` is true.
        RUN_REQUESTED = "RunRequested" in [STOPPED_CONDITION];
        /// A node is chosen for the consumer pod. Also an event: the scheduler chose the node of
        /// the kept filesystem.
        SCHEDULED = "Scheduled" in [CONSUMER_SCHEDULED];
        /// The object was edited while its consumer was running. The message lists the edited
        /// fields.
        TEMPLATE_EDITED = "TemplateEdited" in [RESTART_REQUIRED];
        /// The pod is starting, or waiting for an earlier step.
        STARTING = "Starting" in [READY, PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED];
        /// The API server rejected the creation of the pod or the instance. The message is the API
        /// server's.
        CREATION_REFUSED = "CreationRefused" in [
            READY, PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED
        ];
        /// `spec.template` or `spec.provider` exceeds the size limits. The object was stored before
        /// the limits existed.
        TEMPLATE_TOO_LARGE = "TemplateTooLarge" in [
            READY, PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED
        ];
        /// A pod cannot be created from `spec.template`: a field has the wrong type, is unknown, or
        /// has an invalid value.
        TEMPLATE_INVALID = "TemplateInvalid" in [
            READY, PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED
        ];
        /// The webhook did not rewrite the consumer pod, so the controller deleted the pod before
        /// it could run (invariant I3).
        NOT_REWRITTEN = "NotRewritten" in [CONSUMER_READY];
        /// A pod or an instance with the required name exists and belongs to another owner.
        NAME_CONFLICT = "NameConflict" in [
            READY, PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED
        ];
        /// The scheduler did not find a node for the pod. The message is the scheduler's.
        UNSCHEDULABLE = "Unschedulable" in [PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED];
        /// The pod has a scheduling gate. The message names the gates; the component that set one
        /// removes it.
        SCHEDULING_GATED = "SchedulingGated" in [PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED];
        /// The node agent has not reported the filesystem yet.
        PREPARING = "Preparing" in [FILESYSTEM_READY];
        /// The node agent could not prepare the filesystem, and a more specific reason does not
        /// apply.
        FILESYSTEM_FAILED = "FilesystemFailed" in [FILESYSTEM_READY];
        /// The data is no longer on its node. The controller stops a running consumer (invariant
        /// I1).
        FILESYSTEM_LOST = "FilesystemLost" in [READY, FILESYSTEM_READY];
        /// The directory at `spec.hostPathPrefix` of the node is not the one that holds the data,
        /// for example because its disk is not mounted. The data is not replaced and does not count
        /// as removed.
        FILESYSTEM_UNREACHABLE = "FilesystemUnreachable" in [FILESYSTEM_READY];
        /// The file system of the node's disk lacks a required feature, or the kernel could not
        /// create the kept filesystem on it.
        FILESYSTEM_UNUSABLE = "FilesystemUnusable" in [FILESYSTEM_READY];
        /// The data was created with a different image than the one the provider runs now
        /// (invariant I1).
        IMAGE_CHANGED = "ImageChanged" in [FILESYSTEM_READY];
        /// The image's config is unreadable or exceeds the node agent's size limit.
        IMAGE_CONFIG_INVALID = "ImageConfigInvalid" in [FILESYSTEM_READY];
        /// The main container's user cannot be resolved in the kept filesystem's `/etc/passwd` and
        /// `/etc/group`.
        USER_UNKNOWN = "UserUnknown" in [FILESYSTEM_READY];
        /// The node's disk does not have enough free space for a new filesystem.
        INSUFFICIENT_DISK = "InsufficientDisk" in [FILESYSTEM_READY];
        /// A newer node agent wrote the data in a format that the current node agent does not
        /// support.
        NODE_AGENT_OUTDATED = "NodeAgentOutdated" in [FILESYSTEM_READY];
        /// The node agent does not allow kept filesystems below `spec.hostPathPrefix`. The
        /// administrator configures the allowed prefixes.
        HOST_PATH_PREFIX_REFUSED = "HostPathPrefixRefused" in [FILESYSTEM_READY];
        /// The runtime class runs containers in a sandbox that the node agent cannot enter (gVisor,
        /// Kata Containers). The message names the runtime's handler. Use a RuntimeClass of runc,
        /// crun or youki.
        RUNTIME_CLASS_UNSUPPORTED = "RuntimeClassUnsupported" in [FILESYSTEM_READY];
        /// The filesystem can be used, but the node's disk failed to store some of the written data
        /// (syncfs(2) failed). Check the disk and the files; this clears at the next clean stop.
        WRITE_FAILED = "WriteFailed" in [FILESYSTEM_READY];
        /// The filesystem can be used, but the node's disk is almost full.
        DISK_LOW = "DiskLow" in [FILESYSTEM_READY];
        /// The consumer's container is running, but its command is waiting for the kept filesystem.
        /// The message says why.
        WAITING_FOR_FILESYSTEM = "WaitingForFilesystem" in [CONSUMER_READY];
        /// The wrapper could not execute the main container's command. The message names the
        /// program. The reason has the same name in Docker.
        CONTAINER_CANNOT_RUN = "ContainerCannotRun" in [CONSUMER_READY];
        /// The template has `hostUsers: false`, and the container runtime of the node does not
        /// support user namespaces. The message names the node and its runtime.
        USER_NAMESPACES_UNSUPPORTED = "UserNamespacesUnsupported" in [CONSUMER_READY];
        /// The main container exceeded its `ephemeral-storage` limit and was stopped. The kubelet
        /// uses the same reason for its own evictions. Also an event: the consumer pod was evicted,
        /// preempted, or removed from its node in another way; the message says why.
        EVICTED = "Evicted" in [CONSUMER_READY];
        /// The object is being deleted.
        DELETING = "Deleting" in [READY, PROVIDER_READY, FILESYSTEM_READY, CONSUMER_SCHEDULED];
        /// The node agent is not registered with the kubelet of the pod's node, so the pod cannot
        /// start.
        NODE_AGENT_MISSING = "NodeAgentMissing" in [PROVIDER_READY, CONSUMER_READY];
        /// The node is unreachable, so the state of its pods is unknown. The controller does not
        /// change them.
        NODE_UNREACHABLE = "NodeUnreachable" in [
            PROVIDER_READY, FILESYSTEM_READY, CONSUMER_READY, STOPPED_CONDITION
        ];
        /// The node's kubelet reports that the node is not ready. The message is the kubelet's.
        NODE_NOT_READY = "NodeNotReady" in [PROVIDER_READY, CONSUMER_READY];
        /// The node that holds the data does not exist.
        NODE_GONE = "NodeGone" in [PROVIDER_READY];
        /// The node that holds the filesystem is cordoned, as `kubectl drain` does, so the pod
        /// waits.
        NODE_CORDONED = "NodeCordoned" in [PROVIDER_READY, CONSUMER_READY, CONSUMER_SCHEDULED];
        /// The node was given up before the first start, and another one is tried; the message says
        /// why.
        NODE_GIVEN_UP = "NodeGivenUp" in [READY];
        /// As requested with the recovery annotation, the files are deleted, and the object begins
        /// with an empty filesystem. Also an event.
        RESETTING = "Resetting" in [READY];
        /// Event: the node of the provider pod gets the image, if it does not have it.
        PULLING = "Pulling" in [];
        /// Event: the node agent has prepared the kept filesystem.
        FILESYSTEM_PREPARED = "FilesystemPrepared" in [];
        /// Event: the consumer runs on its kept filesystem.
        STARTED = "Started" in [];
        /// In `lastStop`: another client, or the controller, deleted the consumer pod to replace
        /// it.
        DELETED = "Deleted" in [];
        /// Event: the main container ended and was started again. The message has its exit code. In
        /// `lastStop`, the user asked for a restart.
        RESTARTED = "Restarted" in [];
        /// Event: CPU or memory of the running container were changed in place, as the template
        /// asks for.
        RESIZED = "Resized" in [];
        /// Event: the object continues on another node, which has the disk of the earlier one.
        MOVED = "Moved" in [];
        /// Event on a node: a data directory on the node does not belong to any object.
        ORPHANED_FILESYSTEM = "OrphanedFilesystem" in [];
        /// Event on a node: a data directory on the node belongs to an object that was on another
        /// node. The message has the command that continues the object here.
        MOVED_FILESYSTEM = "MovedFilesystem" in [];
    }

    /// A reconciliation of an object failed. Only the back-off uses this reason; conditions do not.
    pub const PASS_FAILED: &str = "PassFailed";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_are_as_kubernetes_wants_them_and_name_conditions() {
        let mut seen = BTreeSet::new();
        for Reason {
            name,
            conditions,
            meaning,
        } in reason::ALL
        {
            assert!(seen.insert(name), "{name} stands there twice");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()) && name.starts_with(char::is_uppercase));
            assert!(
                conditions
                    .iter()
                    .all(|known| TYPES.iter().any(|(type_, _)| type_ == known))
            );
            assert!(meaning.ends_with('.'), "{name}: {meaning}");
        }
    }
}
