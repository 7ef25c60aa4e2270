//! The nodes that a provider may be on.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
    PodAntiAffinity, Volume,
};

use crate::reconcile::pods::provider::fields::PlacingFields;

/// Claims and affinity of a provider that is to find its node, or is to come to `kept_on`.
pub(super) fn placement(
    placing: Option<PlacingFields>,
    nodes: Option<&NodeSelector>,
    kept_on: Option<&str>,
    exclusive: &BTreeSet<String>,
) -> (Vec<Volume>, Option<Affinity>) {
    let Some(placing) = placing else {
        let nodes = kept_on.map(|node| pinned_to(node, nodes.cloned()));
        return (Vec::new(), affinity(nodes, None, None));
    };
    let shared = |volume: &Volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        claim.is_some_and(|claim| !exclusive.contains(&claim.claim_name))
    };
    let nodes = match &placing.node_name {
        Some(node) => Some(pinned_to(node, nodes.cloned())),
        None => Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: nodes.cloned(),
            preferred_during_scheduling_ignored_during_execution: placing.preferred_nodes,
        }),
    };
    let claims = placing.claims.into_iter().filter(shared).collect();
    (claims, affinity(nodes, placing.pods, placing.not_pods))
}

fn affinity(
    nodes: Option<NodeAffinity>,
    pods: Option<PodAffinity>,
    not_pods: Option<PodAntiAffinity>,
) -> Option<Affinity> {
    let affinity = Affinity {
        node_affinity: nodes.filter(|nodes| *nodes != NodeAffinity::default()),
        pod_affinity: pods,
        pod_anti_affinity: not_pods,
    };
    Some(affinity).filter(|affinity| *affinity != Affinity::default())
}

/// The template's required nodes, and of these only this one.
fn pinned_to(node: &str, required: Option<NodeSelector>) -> NodeAffinity {
    let mut terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: the pin has to be in each of them.
    for term in &mut terms {
        term.match_fields
            .get_or_insert_default()
            .push(NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            });
    }
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: terms,
        }),
        preferred_during_scheduling_ignored_during_execution: None,
    }
}
