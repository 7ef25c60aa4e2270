//! Types and reasons of the conditions on both kinds.

use crate::documented::documented;

documented! {
    /// Every condition type with its meaning.
    TYPES:
    /// The consumer runs and is ready, or is stopped as asked. Otherwise it has the reason of the first of the other
    /// conditions that is in the way.
    READY = "Ready";
    /// The provider pod runs on a node.
    PROVIDER_READY = "ProviderReady";
    /// The kept filesystem can be used: the node agent prepared it with the provider's image.
    FILESYSTEM_READY = "FilesystemReady";
    /// The consumer pod runs and is ready. False with reason `Stopped` while `running` is false.
    CONSUMER_READY = "ConsumerReady";
    /// The object was edited after its running consumer was created. The condition is there only while it is true.
    RESTART_REQUIRED = "RestartRequired";
}

/// A reason, with the conditions that can have it.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// The reason as it stands in the condition.
    pub name: &'static str,
    /// Types of the conditions that have it by themselves; `Ready` repeats the reasons of the others. Without any it is the
    /// reason of an event.
    pub conditions: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

/// Reasons that the controller and the node agent write. Other reasons of pods (`ImagePullBackOff`, `OutOfcpu`) pass
/// through as the scheduler and the kubelet wrote them.
pub mod reason {
    use super::{CONSUMER_READY, FILESYSTEM_READY, PROVIDER_READY, READY, RESTART_REQUIRED, Reason};

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
        /// The part is as wished.
        AS_REQUESTED = "AsRequested" in [PROVIDER_READY, FILESYSTEM_READY, CONSUMER_READY];
        /// `running` is false.
        STOPPED = "Stopped" in [READY, CONSUMER_READY];
        /// The consumer is being deleted.
        STOPPING = "Stopping" in [CONSUMER_READY];
        /// The object was edited while its consumer ran; the message names the fields.
        TEMPLATE_EDITED = "TemplateEdited" in [RESTART_REQUIRED];
        /// The pod exists and is starting, or waits for what comes before it.
        STARTING = "Starting" in [READY, PROVIDER_READY, CONSUMER_READY];
        /// The API server refused to create the pod or the instance; the message is its own.
        CREATION_REFUSED = "CreationRefused" in [READY, PROVIDER_READY, CONSUMER_READY];
        /// `spec.template` or `spec.provider` is larger than the operator works with: the object was stored before there
        /// were bounds.
        TEMPLATE_TOO_LARGE = "TemplateTooLarge" in [READY, PROVIDER_READY, CONSUMER_READY];
        /// No pod can be made of `spec.template`: a field has the wrong type, is unknown, or has a value that no cluster
        /// takes.
        TEMPLATE_INVALID = "TemplateInvalid" in [READY, PROVIDER_READY, CONSUMER_READY];
        /// The webhook did not rewrite the consumer pod, so the controller deleted it before it could run (invariant I3).
        NOT_REWRITTEN = "NotRewritten" in [CONSUMER_READY];
        /// A pod or an instance with the needed name belongs to another owner.
        NAME_CONFLICT = "NameConflict" in [READY, PROVIDER_READY, CONSUMER_READY];
        /// No node takes the pod; the message is the scheduler's.
        UNSCHEDULABLE = "Unschedulable" in [PROVIDER_READY, CONSUMER_READY];
        /// The node agent has not reported the filesystem yet.
        PREPARING = "Preparing" in [FILESYSTEM_READY];
        /// The node agent could not prepare the filesystem and gave no other reason.
        FILESYSTEM_FAILED = "FilesystemFailed" in [FILESYSTEM_READY];
        /// The data is not on its node any more: whatever runs is stopped (invariant I1).
        FILESYSTEM_LOST = "FilesystemLost" in [READY, FILESYSTEM_READY];
        /// The directory that holds the data is not at `spec.hostPathPrefix` of the node, because its disk is not mounted
        /// for example. The data is neither replaced nor counted as removed.
        FILESYSTEM_UNREACHABLE = "FilesystemUnreachable" in [FILESYSTEM_READY];
        /// The node's file system cannot keep changes as they are, or the kernel refused to make the filesystem.
        FILESYSTEM_UNUSABLE = "FilesystemUnusable" in [FILESYSTEM_READY];
        /// The data was made with another image than the provider runs now (invariant I1).
        IMAGE_CHANGED = "ImageChanged" in [FILESYSTEM_READY];
        /// The image's config cannot be read, or is larger than the node agent accepts.
        IMAGE_CONFIG_INVALID = "ImageConfigInvalid" in [FILESYSTEM_READY];
        /// The kept filesystem's `/etc/passwd` and `/etc/group` do not resolve the user that the main container runs as.
        USER_UNKNOWN = "UserUnknown" in [FILESYSTEM_READY];
        /// The node's disk has too little free space for a new filesystem.
        INSUFFICIENT_DISK = "InsufficientDisk" in [FILESYSTEM_READY];
        /// A newer node agent left the data in a form that the present one does not know.
        NODE_AGENT_OUTDATED = "NodeAgentOutdated" in [FILESYSTEM_READY];
        /// The node agent does not allow kept filesystems below `spec.hostPathPrefix`.
        HOST_PATH_PREFIX_REFUSED = "HostPathPrefixRefused" in [FILESYSTEM_READY];
        /// The filesystem can be used, but the node's disk did not take all that was written to it (syncfs(2) failed).
        WRITE_FAILED = "WriteFailed" in [FILESYSTEM_READY];
        /// The filesystem can be used, but the node's disk is nearly full.
        DISK_LOW = "DiskLow" in [FILESYSTEM_READY];
        /// The consumer's container runs, but its command does not: its filesystem is not in place yet.
        WAITING_FOR_FILESYSTEM = "WaitingForFilesystem" in [CONSUMER_READY];
        /// The wrapper in the main container could not execute the program; the message names it. The word is Docker's.
        CONTAINER_CANNOT_RUN = "ContainerCannotRun" in [CONSUMER_READY];
        /// The main container wrote more than its `ephemeral-storage` limit; the word is the kubelet's.
        EVICTED = "Evicted" in [CONSUMER_READY];
        /// The object is being deleted.
        DELETING = "Deleting" in [READY, PROVIDER_READY, FILESYSTEM_READY];
        /// The node agent is not registered with the kubelet of the pod's node, so the pod cannot start.
        NODE_AGENT_MISSING = "NodeAgentMissing" in [PROVIDER_READY, CONSUMER_READY];
        /// The node has not answered for a while: what runs there is unknown, and the controller leaves it alone.
        NODE_UNREACHABLE = "NodeUnreachable" in [PROVIDER_READY, FILESYSTEM_READY, CONSUMER_READY];
        /// The kubelet of the node reports that the node is not ready; the message has its words.
        NODE_NOT_READY = "NodeNotReady" in [PROVIDER_READY, CONSUMER_READY];
        /// The node that holds the data does not exist (any more).
        NODE_GONE = "NodeGone" in [PROVIDER_READY];
        /// The node was given up before the first start, and another one is tried; the message says why.
        NODE_GIVEN_UP = "NodeGivenUp" in [READY];
        /// Event on a node: there is data that belongs to no object.
        ORPHANED_FILESYSTEM = "OrphanedFilesystem" in [];
    }

    /// A pass of the controller over an object failed. It only paces the next pass, and stands in no condition.
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
