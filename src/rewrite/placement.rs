/*!
How the consumer gets to the node that holds its filesystem: by `nodeName`, past the scheduler,
which is fastest; or, where that cannot work or would jump a queue, by a required node affinity, so
that the pod waits with a reason as any other. Decided anew at every call: a webhook after us may
have added a gate.
*/

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use stoppablecontainer_api::Placement;
use stoppablecontainer_api::names::{ANNOTATION_PLACEMENT, PLACEMENT_SCHEDULER};

use super::Facts;

/// The taint of a cordoned node. The API server's node controller sets it; `spec.unschedulable`
/// comes first.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Places the pod with this spec on `node`.
pub(super) fn place(pod: &Pod, spec: &mut PodSpec, node: &str, facts: &Facts<'_>) {
    match facts.placement.unwrap_or_else(|| decide(pod, spec, facts)) {
        Placement::Node => spec.node_name = Some(node.to_owned()),
        Placement::Scheduler => {
            spec.node_name = None;
            require_node(spec, node);
        }
    }
}

/// How `pod` is placed, as far as it is a placement on `node`: by its name, or else (if at all) by
/// affinity.
pub fn placement_of(pod: &Pod, node: &str) -> Option<Placement> {
    let name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    if name == Some(node) {
        Some(Placement::Node)
    } else {
        Some(Placement::Scheduler)
    }
}

fn decide(pod: &Pod, spec: &PodSpec, facts: &Facts<'_>) -> Placement {
    // Only the controller creates consumers, and it removes the template's own annotation.
    let asked = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(ANNOTATION_PLACEMENT));
    let asked = asked.is_some_and(|placement| placement == PLACEMENT_SCHEDULER);
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    let claims_devices = spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty());
    let ended_before = facts.instance.status.as_ref().and_then(|s| s.placement) == Some(Placement::Scheduler);
    let closed = facts
        .node
        .is_none_or(|node| !admits(node, spec.tolerations.as_deref().unwrap_or_default()));
    if gated || claims_devices || asked || ended_before || closed || needs_binding(spec, facts) {
        Placement::Scheduler
    } else {
        Placement::Node
    }
}

/// Whether a volume can only be bound, or kept exclusive, by the scheduler.
fn needs_binding(spec: &PodSpec, facts: &Facts<'_>) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        volume.ephemeral.is_some() || claim.is_some_and(|c| facts.scheduler_claims.contains(&c.claim_name))
    })
}

/// Whether the scheduler would let a pod with these tolerations onto the node, as far as cordon and
/// taints go.
fn admits(node: &Node, tolerations: &[Toleration]) -> bool {
    let Some(spec) = &node.spec else { return true };
    let cordon = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let cordon = (spec.unschedulable == Some(true)).then_some(&cordon);
    let taints = spec
        .taints
        .iter()
        .flatten()
        .filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    taints
        .chain(cordon)
        .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// The rule of `Toleration.ToleratesTaint` in Kubernetes.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let matches =
        |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == actual);
    if !matches(&toleration.effect, &taint.effect) || !matches(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

/// Adds the node to every term of the required node affinity: terms are alternatives, so each one
/// must say it.
fn require_node(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    let selector = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector {
            node_selector_terms: Vec::new(),
        });
    if selector.node_selector_terms.is_empty() {
        selector.node_selector_terms.push(NodeSelectorTerm::default());
        selector.node_selector_terms[0].match_fields = Some(vec![requirement]);
        return;
    }
    for term in &mut selector.node_selector_terms {
        let is_empty = |list: &Option<Vec<NodeSelectorRequirement>>| list.as_ref().is_none_or(Vec::is_empty);
        // A term without requirements matches no node. It must not begin to match one.
        if is_empty(&term.match_expressions) && is_empty(&term.match_fields) {
            continue;
        }
        let fields = term.match_fields.get_or_insert_default();
        if !fields.contains(&requirement) {
            fields.push(requirement.clone());
        }
    }
}
