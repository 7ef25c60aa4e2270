//! The condition FilesystemReady.

use stoppablecontainer_api::FilesystemState;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::ConditionState;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::instance::status::recovery;

pub(super) fn filesystem_state(observed: &Observed) -> ConditionState {
    let status = observed.status();
    let at = status.node_name.clone().unwrap_or_default();
    let state = status.filesystem.as_ref().map(|filesystem| filesystem.state);
    if observed.deleting() {
        let message = if state == Some(FilesystemState::Removed) {
            format!("the data was removed from node {at}")
        } else if observed.data_is_gone() {
            "there is no data".to_owned()
        } else {
            // What went wrong before does not matter any more, but for what keeps the data there.
            let obstacle = status.filesystem.as_ref().and_then(|filesystem| {
                let refused = filesystem.reason.as_deref() == Some(reason::HOST_PATH_PREFIX_REFUSED);
                filesystem.message.as_ref().filter(|_| refused)
            });
            let waits = format!("waiting for the node agent on node {at} to remove the data");
            obstacle.map_or(waits.clone(), |obstacle| format!("{waits}: {obstacle}"))
        };
        return ConditionState::false_with(reason::DELETING, message);
    }
    let Some(filesystem) = &status.filesystem else {
        return ConditionState::false_with(
            reason::PREPARING,
            "the node agent prepares the filesystem when the provider pod runs",
        );
    };
    if filesystem.state == FilesystemState::Failed {
        let reason = filesystem.reason.as_deref().unwrap_or(reason::FILESYSTEM_FAILED);
        let message = filesystem
            .message
            .clone()
            .unwrap_or_else(|| "the node agent gave no reason".to_owned());
        let ways = recovery::recovery_commands(&observed.instance, filesystem);
        return ConditionState::false_with(reason, format!("{message}{ways}"));
    }
    if observed.usable_filesystem().is_some() || observed.is_released() {
        return match (&filesystem.write_failed, &filesystem.disk_low) {
            (Some(report), _) => ConditionState::true_with(reason::WRITE_FAILED, report.message.clone()),
            (None, Some(warning)) => ConditionState::true_with(reason::DISK_LOW, warning.clone()),
            (None, None) => ConditionState::true_with(reason::AS_REQUESTED, format!("kept on node {at}")),
        };
    }
    if let Some(image) = status.ready_filesystem().and_then(|ready| ready.image.as_ref()) {
        let user = observed.instance.spec.requested_user(image);
        let user = if user.is_empty() { "root".to_owned() } else { user };
        return ConditionState::false_with(
            reason::PREPARING,
            format!("waiting for the node agent on node {at} to look up user {user}"),
        );
    }
    let waits = format!("waiting for the node agent on node {at}");
    let obstacle = filesystem.message.as_ref();
    ConditionState::false_with(
        reason::PREPARING,
        obstacle.map_or(waits.clone(), |obstacle| format!("{waits}: {obstacle}")),
    )
}
