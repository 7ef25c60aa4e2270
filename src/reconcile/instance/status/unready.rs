//! Nodes whose kubelet says that they are not ready.

use stoppablecontainer_api::conditions::reason;

use super::Verdict;
use crate::reconcile::instance::plan::Observed;
use crate::reconcile::pods::node;

/// A kubelet that calls its node not ready starts no pods there, or cannot report that it did; a condition that waits
/// for it says that first. Conditions that were true before stay as they are: those pods may well go on.
pub(crate) fn unless_unready(observed: &Observed, part: Verdict) -> Verdict {
    let Some(words) = observed.node_unready.as_ref().filter(|_| !observed.deleting()) else {
        return part;
    };
    let waits = part.why.reason == reason::STARTING || part.why.reason == reason::UNSCHEDULABLE;
    if part.holds != Some(false) || !waits {
        return part;
    }
    let pods = [&observed.provider, &observed.consumer].map(|slot| slot.pod());
    let at = observed.status().node_name;
    let at = at.or_else(|| pods.iter().flatten().find_map(|pod| node(pod)).map(str::to_owned));
    Verdict::no(
        reason::NODE_NOT_READY,
        format!(
            "node {} is not ready ({words}); {}",
            at.unwrap_or_default(),
            part.why.message
        ),
    )
}
