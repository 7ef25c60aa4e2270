//! How a pod asks the injectors of others to leave it alone.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// Labels and annotations that keep injectors away from provider pods. The defaults are those of
/// Istio (the label counts since 1.10, the annotation before), Linkerd and the Vault agent;
/// administrators add their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOuts {
    /// Labels of provider pods besides our own, which win.
    pub labels: BTreeMap<String, String>,
    /// Annotations of provider pods.
    pub annotations: BTreeMap<String, String>,
}

// === impl OptOuts ===

impl Default for OptOuts {
    fn default() -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        Self {
            labels: map(&[("sidecar.istio.io/inject", "false")]),
            annotations: map(&[
                ("sidecar.istio.io/inject", "false"),
                ("linkerd.io/inject", "disabled"),
                ("vault.hashicorp.com/agent-inject", "false"),
            ]),
        }
    }
}
