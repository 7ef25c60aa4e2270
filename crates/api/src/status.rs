//! The phase, which both kinds report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Summary of the conditions. `Pending`: the image or the node is not ready yet. `ProviderReady`:
/// the consumer pod is starting, stopping or waiting to be restarted. `Running` and `Stopped`: the
/// container is so. `Failed`: an error blocks it, and the conditions describe the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The provider pod is not ready yet.
    Pending,
    /// The provider is ready. The consumer is starting or stopping, or its main container is
    /// waiting to be restarted.
    ProviderReady,
    /// The provider and the consumer are running.
    Running,
    /// The provider is running, the consumer is stopped, and the filesystem is kept.
    Stopped,
    /// An error blocks the container until a user or an administrator acts. The conditions describe
    /// the error.
    Failed,
}

impl Phase {
    /// The phase as written in the API.
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
