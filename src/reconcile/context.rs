/*!
What every reconciliation works with: client, caches, the memory of failures, events, and the forms
of requests that both reconcilers make.

Code that knows what an object needs does not belong here.
*/

use std::fmt::Debug;

use kube::Client;
use kube::runtime::events::Recorder;

use crate::metrics::StepMetrics;
use crate::reconcile::pods::{Created, OptOuts};

mod attempts;
mod caches;
pub(crate) mod events;
mod held_pod;
mod nodes;
mod own_writes;
mod pace;
pub(crate) mod requests;

pub use attempts::{Attempts, Backoff, Task};
pub(crate) use caches::has_our_driver;
pub use caches::{CacheWriters, Caches, caches};
pub use held_pod::HeldPod;
pub(crate) use nodes::{is_cordoned, keep_ready_condition, not_ready_message, unreachable_message};
pub use own_writes::{Answers, OwnWrites};
pub use pace::{Turns, jittered};

/// What every reconciliation works with.
pub struct Context {
    /// Client with the controller's rights.
    pub client: Client,
    /// What the watches know.
    pub caches: Caches,
    /// What was written and the caches may not have yet.
    pub own: OwnWrites,
    /// What failed before.
    pub attempts: Attempts,
    /// Measures starts and stops.
    pub steps: StepMetrics,
    /// Which pods were created here.
    pub created: Created,
    /// Publishes events.
    pub recorder: Recorder,
    /// See [`super::Options::opt_outs`].
    pub opt_outs: OptOuts,
}

/// Why the reconciliation of one object ended early. It is retried.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused or could not be asked. A conflict is the normal end of a decision
    /// made on an old cache.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The decision was made on an old state. The next reconciliation decides again.
    #[error("the object changed since it was read")]
    Stale,
    /// A patch of our own could not be expressed.
    #[error("patch: {0}")]
    Patch(#[source] serde_json::Error),
}

// === impl ReconcileError ===

impl ReconcileError {
    /// The object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code == 409,
            Self::Stale => true,
            Self::Api(_) | Self::Patch(_) => false,
        }
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }
}
