/*!
The Kubernetes releases that the local cluster can be, each with the container runtime of its time.
*/

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

/// A minor release of Kubernetes, and the containerd that goes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Release {
    /// Kubernetes 1.34 with Debian's containerd 1.6.
    #[default]
    #[serde(rename = "1.34")]
    V1_34,
    /// Kubernetes 1.36 with containerd 2.
    #[serde(rename = "1.36")]
    V1_36,
}

// === impl Release ===

impl Release {
    /// All of them, the oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V1_34, Self::V1_36];

    /// The minor release, as `--kubernetes` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1_34 => "1.34",
            Self::V1_36 => "1.36",
        }
    }

    /// The version of Kubernetes. The file of [`Release::modules`] names the same one.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V1_34 => "v1.34.4",
            Self::V1_36 => "v1.36.3",
        }
    }

    /// The file in `xtask/cluster-tools` that names its modules.
    pub(super) fn modules(self) -> &'static str {
        match self {
            Self::V1_34 => "go.mod",
            Self::V1_36 => "go-1.36.mod",
        }
    }

    /// The version of containerd that is built from its Go module. Without one, Debian's is used.
    pub(crate) fn containerd(self) -> Option<&'static str> {
        match self {
            Self::V1_34 => None,
            Self::V1_36 => Some("v2.4.2"),
        }
    }

    /// The version of runc that is built from its Go module: user namespaces need 1.2. Without one,
    /// Debian's is used.
    pub(crate) fn runc(self) -> Option<&'static str> {
        match self {
            Self::V1_34 => None,
            Self::V1_36 => Some("v1.3.6"),
        }
    }

    /// The multi-call binary of its Kubernetes programs, in the directory of tools.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::V1_34 => "kube",
            Self::V1_36 => "kube-1.36",
        }
    }
}

impl ValueEnum for Release {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}
