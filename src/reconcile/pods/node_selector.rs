//! The nodes that a template's `nodeSelector` leaves.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use stoppablecontainer_api::PodTemplate;

/// Labels that a node must have. Whether a required affinity leaves a node is known only to the
/// scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSelector(BTreeMap<String, String>);

/// What counts of a pod's spec.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodPart {
    #[serde(default)]
    node_selector: Option<BTreeMap<String, String>>,
}

/// What counts of a template.
#[derive(Deserialize)]
struct TemplatePart {
    spec: Option<PodPart>,
}

// === impl NodeSelector ===

impl NodeSelector {
    /// Of the pods of a template. A template that cannot be read leaves every node.
    pub(crate) fn of_template(template: &PodTemplate) -> Self {
        let part = template.json().read::<TemplatePart>().ok();
        let selector = part.and_then(|template| template.spec?.node_selector);
        Self(selector.unwrap_or_default())
    }

    /// Whether the node has all the labels.
    pub(crate) fn admits(&self, node: &Node) -> bool {
        let has = |(name, value): (&String, &String)| {
            node.metadata.labels.as_ref().and_then(|labels| labels.get(name)) == Some(value)
        };
        self.0.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn h26_a_node_needs_all_the_labels_and_a_selector_of_none_leaves_every_node() {
        let node: Node =
            serde_json::from_value(json!({ "metadata": { "labels": { "zone": "a", "disk": "fast" } } }))
                .unwrap();
        let bare = Node::default();
        for (selector, of_labelled, of_bare) in [
            (json!({ "zone": "a" }), true, false),
            (json!({ "zone": "a", "disk": "slow" }), false, false),
            (json!({}), true, true),
            (json!(null), true, true),
        ] {
            let template = json!({ "spec": { "nodeSelector": selector, "containers": [] } });
            let selector = NodeSelector::of_template(&serde_json::from_value(template).unwrap());
            assert_eq!(selector.admits(&node), of_labelled, "{selector:?}");
            assert_eq!(selector.admits(&bare), of_bare, "{selector:?}");
        }
    }
}
