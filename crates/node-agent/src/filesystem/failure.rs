//! Why a filesystem cannot be used: what goes into its status.

use std::path::Path;

use stoppablecontainer_api::RecoveryVerb;
use stoppablecontainer_api::conditions::reason;

/// A failure that the agent cannot repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// What the user may decide.
    pub(crate) verbs: Vec<RecoveryVerb>,
}

// === impl Failure ===

impl Failure {
    /// A failure that the user cannot decide away.
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            verbs: Vec::new(),
        }
    }

    /// The directory is not the one that held the data.
    pub(crate) fn other_directory(directory: &Path, node: &str) -> Self {
        let prefix = directory.parent().unwrap_or(directory);
        Self {
            reason: reason::FILESYSTEM_UNREACHABLE,
            message: format!(
                "directory {} of node {node} is not the one that holds the data of this instance; a disk that is \
                 not mounted looks like this. Mount it; the instance then continues without further action",
                prefix.display()
            ),
            verbs: vec![RecoveryVerb::Reset],
        }
    }

    /// A newer agent wrote the record.
    pub(crate) fn outdated_agent(directory: &Path, node: &str) -> Self {
        Self::new(
            reason::NODE_AGENT_OUTDATED,
            format!(
                "the data in directory {} of node {node} was last handled by a newer node agent; update the node \
                 agent there",
                directory.display()
            ),
        )
    }
}
