//! An object of the cluster: where it is, and which one it is.

use serde::{Deserialize, Serialize};
use stoppablecontainer_api::StoppableContainerInstance;

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

// === impl ObjectRef ===

impl ObjectRef {
    /// The identity of an instance. `None` if it lacks what every stored object has.
    pub(crate) fn of(object: &StoppableContainerInstance) -> Option<Self> {
        let metadata = &object.metadata;
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
        })
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
