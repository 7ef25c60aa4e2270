//! The phase, which both kinds report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a container stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waiting for the provider pod to be ready.
    Pending,
    /// The provider is ready, the consumer is starting (or leaving), or its main container waits to be started again.
    ProviderReady,
    /// Both provider and consumer are running.
    Running,
    /// The provider is running, the consumer is stopped and the filesystem kept.
    Stopped,
    /// An error occurred that needs someone; the conditions name it.
    Failed,
}

impl Phase {
    /// The phase as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::ProviderReady => "ProviderReady",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
