//! How provider pods ask the programs of others to leave them, or their node, alone.

use std::collections::BTreeMap;
use std::fmt::Debug;

use stoppablecontainer_api::names::ANNOTATION_KEEPS_NODE;

use crate::reconcile::pods::template_hash;

/// Labels and annotations of provider pods that other programs read.
///
/// The first two keep injectors away. The defaults are those of
/// Istio (the label counts since 1.10, the annotation before), Linkerd and the Vault agent;
/// administrators add their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOuts {
    /// Labels of provider pods besides our own, which win.
    pub labels: BTreeMap<String, String>,
    /// Annotations of provider pods.
    pub annotations: BTreeMap<String, String>,
    /// Annotations while the node holds files: they keep autoscalers from removing it. The chart
    /// has those of the Kubernetes cluster autoscaler and of Karpenter.
    pub keep_node: BTreeMap<String, String>,
}

// === impl OptOuts ===

impl OptOuts {
    /// Annotations of a provider pod whose node holds files, with ours that tells which they were:
    /// caches have no others. Empty if the administrator wants none.
    pub(crate) fn keeping_node(&self) -> BTreeMap<String, String> {
        let mut annotations = self.keep_node.clone();
        if let Some(hash) = self.keep_node_hash() {
            annotations.insert(ANNOTATION_KEEPS_NODE.to_owned(), hash);
        }
        annotations
    }

    /// Value of our annotation. `None` if the administrator wants none.
    pub(crate) fn keep_node_hash(&self) -> Option<String> {
        (!self.keep_node.is_empty()).then(|| template_hash(&self.keep_node))
    }
}

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
            keep_node: BTreeMap::new(),
        }
    }
}
