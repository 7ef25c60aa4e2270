/*!
The consumer pod as the controller asks for it: the user's template, our labels, the owner, that it
stays on its node, and a scheduling gate. What makes it run on the kept filesystem is the webhook's
work, at admission, with every other webhook in the chain; nothing is decided here. The rewrite
takes the gate off, so a pod that was not rewritten is bound to no node (invariant I3).

It is made from the template as it is stored: fields that our types do not know reach the API server
(invariant I19).
*/

use k8s_openapi::api::core::v1::Toleration;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use stoppablecontainer_api::names::{
    ANNOTATION_PLACEMENT, ANNOTATION_TEMPLATE_FIELDS, ANNOTATION_TEMPLATE_HASH, GATE, GATE_PLACEHOLDER,
    PLACEMENT_SCHEDULER,
};
use stoppablecontainer_api::{Placement, StoppableContainerInstance, TemplateError};

use crate::reconcile::pods::tolerations::missing_tolerations;
use crate::reconcile::pods::{Role, owner_reference, restart, template_fields, template_hash};

/// The consumer pod of `instance`. Of the template's metadata it takes what Kubernetes' own
/// controllers take: labels, annotations and finalizers.
///
/// # Errors
/// When the template cannot be worked on.
pub fn consumer_pod(instance: &StoppableContainerInstance) -> Result<Value, TemplateError> {
    let name = instance.name_any();
    let mut template = instance.spec.template.value()?;
    let fields = template_fields::annotation(instance);
    let placement = instance.status.as_ref().and_then(|status| status.placement);
    let mut given = |field: &str| match template["metadata"][field].take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut labels = given("labels");
    let ours = Role::Consumer.labels(&name);
    labels.extend(ours.map(|(key, value)| (key, json!(value))));
    let mut annotations = given("annotations");
    annotations.insert(
        ANNOTATION_TEMPLATE_HASH.to_owned(),
        json!(consumer_hash(instance)),
    );
    annotations.insert(ANNOTATION_TEMPLATE_FIELDS.to_owned(), json!(fields));
    // A user's own does not count.
    annotations.remove(ANNOTATION_PLACEMENT);
    if placement == Some(Placement::Scheduler) {
        annotations.insert(ANNOTATION_PLACEMENT.to_owned(), json!(PLACEMENT_SCHEDULER));
    }
    let mut metadata = json!({
        "name": Role::Consumer.pod_name(&name),
        "namespace": instance.namespace(),
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner_reference(instance)],
    });
    if let finalizers @ Value::Array(_) = template["metadata"]["finalizers"].take() {
        metadata["finalizers"] = finalizers;
    }
    let mut spec = template["spec"].take();
    stay(&mut spec);
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeName");
    }
    add_gate(&mut spec, GATE);
    Ok(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }))
}

/// Adds what keeps the pod on an unreachable node.
fn stay(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let tolerations = spec.entry("tolerations").or_insert(Value::Null);
    // Of another type it would not have been decoded.
    let given: Vec<Toleration> = serde_json::from_value(tolerations.clone()).unwrap_or_default();
    let mut all = tolerations.as_array().cloned().unwrap_or_default();
    all.extend(missing_tolerations(&given).into_iter().map(|added| json!(added)));
    *tolerations = Value::Array(all);
}

/// Makes `pod` wait until its placeholder is gone. The rewrite leaves such a pod to the scheduler.
pub(crate) fn wait_for_placeholder(pod: &mut Value) {
    add_gate(&mut pod["spec"], GATE_PLACEHOLDER);
}

/// Adds a gate to the template's own. The API server takes no pod that has both a node and a gate.
fn add_gate(spec: &mut Value, name: &str) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let gates = spec.entry("schedulingGates").or_insert(Value::Null);
    let mut all = gates.as_array().cloned().unwrap_or_default();
    if !all.iter().any(|gate| gate["name"] == name) {
        all.push(json!({ "name": name }));
    }
    *gates = Value::Array(all);
}

/// Identifies the template without its request for a restart: a consumer that never came up is
/// replaced when this changes.
pub fn consumer_hash(instance: &StoppableContainerInstance) -> String {
    let template = &instance.spec.template;
    restart::without_request(template).map_or_else(|| template_hash(template), |value| template_hash(&value))
}
