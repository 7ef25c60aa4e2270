/*!
Filesystems that cannot be used or take too much: what to tell the user, and what to type.
*/

use kube::ResourceExt;
use stoppablecontainer_api::names::{ANNOTATION_MOVED_TO, ANNOTATION_RECOVERY};
use stoppablecontainer_api::{
    FilesystemStatus, RecoveryAnswer, RecoveryVerb, StoppableContainer, StoppableContainerInstance,
    StorageExcess, controller_of,
};

use crate::reconcile::conditions::Cause;
use crate::reconcile::instance::plan::storage_limit::eviction;

/// Why it is not started again, and what to do.
pub(super) fn refusal(instance: &StoppableContainerInstance, excess: &StorageExcess) -> Cause {
    let Cause { reason, message } = eviction(excess);
    let filesystem = instance
        .status
        .as_ref()
        .and_then(|status| status.filesystem.as_ref());
    let ways = filesystem
        .map(|filesystem| recovery_commands(instance, filesystem))
        .unwrap_or_default();
    let message = format!(
        "{message}The files are kept and take {} bytes; it is not started again before the limit \
         (resources.limits.ephemeral-storage) is raised or the files are deleted{ways}",
        excess.bytes
    );
    Cause::new(reason, message)
}

/// How the user names the node that has the disk of a node that is gone. To be put behind a
/// sentence without its full stop.
pub(super) fn move_command(instance: &StoppableContainerInstance) -> String {
    let Some(owner) = controller_of::<StoppableContainer>(instance) else {
        return String::new();
    };
    format!(
        ". If another node has its disk now: kubectl annotate --overwrite -n {} stoppablecontainer {} \
         {ANNOTATION_MOVED_TO}=NODE",
        instance.namespace().unwrap_or_default(),
        owner.name
    )
}

/// How the user gives up the files of an instance whose node is gone. To be put behind a sentence
/// without its full stop.
pub(super) fn abandon_command(instance: &StoppableContainerInstance) -> String {
    let owner = controller_of::<StoppableContainer>(instance);
    let (Some(owner), Some(uid)) = (owner, instance.uid()) else {
        return "; else delete the object".to_owned();
    };
    let filesystem = instance
        .status
        .as_ref()
        .and_then(|status| status.filesystem.as_ref());
    let usage = filesystem.and_then(|filesystem| filesystem.usage);
    let files = usage.map_or_else(
        || "the files".to_owned(),
        |usage| format!("the files ({} bytes when last measured)", usage.bytes),
    );
    format!(
        ". To DELETE {files} and begin on another node: kubectl annotate --overwrite -n {} stoppablecontainer {} \
         {ANNOTATION_RECOVERY}={}",
        instance.namespace().unwrap_or_default(),
        owner.name,
        RecoveryAnswer::abandoning(&uid)
    )
}

/// What the user may decide, as commands; empty if there is nothing. To be put behind a sentence
/// without its full stop.
pub(super) fn recovery_commands(
    instance: &StoppableContainerInstance,
    filesystem: &FilesystemStatus,
) -> String {
    let Some(offer) = &filesystem.recovery else {
        return String::new();
    };
    let owner = controller_of::<StoppableContainer>(instance);
    let (kind, name) = owner.map_or_else(
        || ("stoppablecontainerinstance", instance.name_any()),
        |owner| ("stoppablecontainer", owner.name.clone()),
    );
    let namespace = instance.namespace().unwrap_or_default();
    let way = |verb: &RecoveryVerb| {
        let purpose = match verb {
            RecoveryVerb::Accept => "To use the files that are there, on the present image",
            RecoveryVerb::Reset => "To DELETE all files and begin with the present image, once it is stopped",
        };
        let answer = RecoveryAnswer {
            verb: *verb,
            id: offer.id.clone(),
        };
        format!(
            ". {purpose}: kubectl annotate --overwrite -n {namespace} {kind} {name} {ANNOTATION_RECOVERY}={answer}"
        )
    };
    offer.verbs.iter().map(way).collect()
}
