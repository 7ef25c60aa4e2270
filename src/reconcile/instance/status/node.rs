//! Conditions of objects on a node that does not answer, or whose kubelet reports that it is not
//! ready.

use stoppablecontainer_api::FilesystemState;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::ConditionState;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::node;

/// A kubelet that calls its node not ready starts no pods there, or cannot report that it did; a
/// condition that waits for it says that first. Conditions that were true before stay as they are:
/// those pods may continue to run.
pub(super) fn unless_not_ready(observed: &Observed, part: ConditionState) -> ConditionState {
    let Some(words) = observed.node_not_ready.as_ref().filter(|_| !observed.deleting()) else {
        return part;
    };
    let waits = part.cause.reason == reason::STARTING || part.cause.reason == reason::UNSCHEDULABLE;
    if part.status != Some(false) || !waits {
        return part;
    }
    let pods = [&observed.provider, &observed.consumer].map(|slot| slot.pod());
    let at = observed.status().node_name;
    let at = at.or_else(|| pods.iter().flatten().find_map(|pod| node(pod)).map(str::to_owned));
    ConditionState::false_with(
        reason::NODE_NOT_READY,
        format!(
            "node {} is not ready ({words}); {}",
            at.unwrap_or_default(),
            part.cause.message
        ),
    )
}

/// A pod that waits for a cordoned node waits for its administrator. The scheduler's words count
/// the other nodes, which do not have the files.
pub(super) fn unless_cordoned(observed: &Observed, part: ConditionState) -> ConditionState {
    let waits = part.cause.reason == reason::UNSCHEDULABLE && part.status == Some(false);
    let home = observed.status().node_name;
    let Some(at) = home.filter(|_| observed.node_cordoned && waits && !observed.deleting()) else {
        return part;
    };
    ConditionState::false_with(
        reason::NODE_CORDONED,
        format!(
            "node {at}, which holds the filesystem, is cordoned. The object continues by itself when the node accepts \
             pods again (kubectl uncordon {at}); nothing is lost until the node is removed. {}",
            part.cause.message
        ),
    )
}

/// The state of pods and data on an unreachable node is unknown.
pub(super) fn unless_unreachable(observed: &Observed, parts: [ConditionState; 3]) -> [ConditionState; 3] {
    let Some(words) = observed
        .node_unreachable
        .as_ref()
        .filter(|_| !observed.deleting())
    else {
        return parts;
    };
    let status = observed.status();
    let pods = [&observed.provider, &observed.consumer].map(|slot| slot.pod());
    let at = status
        .node_name
        .or_else(|| pods.iter().flatten().find_map(|pod| node(pod)).map(str::to_owned));
    let message = format!(
        "node {} does not answer ({words}): what runs there is not changed, and nothing is started elsewhere until it is \
         back",
        at.unwrap_or_default()
    );
    let filesystem_known = status
        .filesystem
        .is_none_or(|filesystem| filesystem.state == FilesystemState::Failed);
    let known = [pods[0].is_none(), filesystem_known, pods[1].is_none()];
    let mut known = known.into_iter();
    parts.map(|part| match known.next() {
        Some(true) => part,
        _ => ConditionState::unknown_with(reason::NODE_UNREACHABLE, message.clone()),
    })
}
