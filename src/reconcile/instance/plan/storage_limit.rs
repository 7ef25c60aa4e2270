//! The storage limit of the main container: what is in its filesystem counts, as the kubelet counts
//! a plain container's.

use stoppablecontainer_api::StorageExcess;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::Cause;

/// Why a container that takes more than its limit is stopped: the kubelet's reason and words.
pub(crate) fn eviction(excess: &StorageExcess) -> Cause {
    let StorageExcess { container, limit, .. } = excess;
    Cause::new(
        reason::EVICTED,
        format!("Container {container} exceeded its local ephemeral storage limit {limit:?}. "),
    )
}
