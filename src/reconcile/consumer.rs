/*!
The consumer pod as the controller asks for it: the user's template, our labels,
the owner, that it stays on its node, and a scheduling gate. What makes it run on the kept filesystem is the
webhook's work, at admission, with every other webhook in the chain; nothing is decided here. The rewrite takes the
gate off, so a pod that was not rewritten is bound to no node (invariant I3).
*/

use k8s_openapi::api::core::v1::{Pod, PodSchedulingGate, PodSpec};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::{ANNOTATION_TEMPLATE_HASH, GATE};

use super::hash::template_hash;
use super::pods::{Role, owner_reference};
use super::tolerations::staying;

/// The consumer pod of `instance`. Of the template's metadata it takes what Kubernetes' own controllers take: labels,
/// annotations and finalizers.
pub fn consumer_pod(instance: &StoppableContainerInstance) -> Pod {
    let name = instance.name_any();
    let given = instance.spec.template.metadata.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.extend(Role::Consumer.labels(&name));
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), consumer_hash(instance));
    let spec = instance.spec.template.spec.clone().map(|spec| PodSpec {
        tolerations: Some(staying(spec.tolerations.unwrap_or_default())),
        scheduling_gates: Some(gated(spec.scheduling_gates.unwrap_or_default())),
        // The rewrite sets it; the API server takes no pod that has both it and a gate.
        node_name: None,
        ..spec
    });
    Pod {
        metadata: ObjectMeta {
            name: Some(Role::Consumer.pod_name(&name)),
            namespace: instance.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            finalizers: given.finalizers,
            owner_references: Some(vec![owner_reference(instance)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The template's gates and ours.
fn gated(mut gates: Vec<PodSchedulingGate>) -> Vec<PodSchedulingGate> {
    if !gates.iter().any(|gate| gate.name == GATE) {
        gates.push(PodSchedulingGate {
            name: GATE.to_owned(),
        });
    }
    gates
}

/// Identifies the template: a consumer that never came up is replaced when this changes.
pub fn consumer_hash(instance: &StoppableContainerInstance) -> String {
    template_hash(&instance.spec.template)
}
