/*!
The placeholder pod: what the consumer needs, without what it runs. The scheduler chooses the first
node for it, as it would for a plain pod of the template, and it holds the room there until the
consumer is created.

The provider cannot do this: it asks for a few millicores, and a provider that asked for the
consumer's devices would hold them. The consumer cannot do it either: its command and environment
need the image's config, which is read on the node.

It never starts. The kubelet mounts the volumes of a pod before it pulls an image or makes a
sandbox, and the node agent does not publish the volume of a placeholder. So it may carry the user's
labels, which affinity and topology spread of other pods select on: without an address it is in no
Service.
*/

use kube::ResourceExt;
use serde_json::{Map, Value, json};
use stoppablecontainer_api::names::{
    ANNOTATION_AVOID_NODES, ANNOTATION_TEMPLATE_HASH, CSI_DRIVER, VOLUME_MOUNT_PATH, VOLUME_NAME,
};
use stoppablecontainer_api::{StoppableContainerInstance, TemplateError};

use crate::reconcile::pods::{OptOuts, Role, owner_reference, template_hash};

/// Fields of a pod's spec that say where the pod can run, or that admission checks.
const POD_FIELDS: &[&str] = &[
    "affinity",
    "hostNetwork",
    "hostUsers",
    "imagePullSecrets",
    "nodeSelector",
    "os",
    "preemptionPolicy",
    "priorityClassName",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
];
/// The same of a container. The image counts: the scheduler prefers nodes that have it.
const CONTAINER_FIELDS: &[&str] = &[
    "image",
    "imagePullPolicy",
    "name",
    "ports",
    "resources",
    "restartPolicy",
    "securityContext",
];
/// Resources that a stopped object needs no room for: a node whose containers run may still keep
/// its files. Devices are not among them: a node either has a kind of device or has not.
const SHARED_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Terms against the nodes that were given up, for each preference of the template: such a node
/// gets at most a tenth of the score of another one by its affinity.
const STRONGER: usize = 10;
/// The most of these terms: a template with very many preferences must not make a pod that is too
/// large for the API server.
const MOST_TERMS: usize = 100;

/// The placeholder pod of `instance`.
///
/// # Errors
/// When the template or `spec.provider` cannot be worked on.
pub(crate) fn placeholder_pod(
    instance: &StoppableContainerInstance,
    opt_outs: &OptOuts,
) -> Result<Value, TemplateError> {
    let name = instance.name_any();
    let mut template = instance.spec.template.value()?;
    let given = template["spec"].take();
    let mut labels = match template["metadata"]["labels"].take() {
        Value::Object(labels) => labels,
        _ => Map::new(),
    };
    labels.extend(json_map(&opt_outs.labels));
    labels.extend(
        Role::Placeholder
            .labels(&name)
            .map(|(key, value)| (key, json!(value))),
    );
    let mut annotations = json_map(&opt_outs.annotations);
    annotations.insert(
        ANNOTATION_TEMPLATE_HASH.to_owned(),
        json!(placeholder_hash(instance)),
    );
    let mut spec = kept(&given, POD_FIELDS);
    for kind in ["initContainers", "containers"] {
        if let Some(containers) = given[kind].as_array() {
            let containers = containers
                .iter()
                .map(|given| container(given, instance.spec.running));
            spec.insert(kind.to_owned(), containers.collect());
        }
    }
    if let Some(first) = spec.get_mut("containers").and_then(|all| all.get_mut(0)) {
        // The kubelet mounts only volumes that a container mounts.
        first["volumeMounts"] =
            json!([{ "name": VOLUME_NAME, "mountPath": VOLUME_MOUNT_PATH, "readOnly": true }]);
    }
    spec.insert("volumes".to_owned(), volumes(&given));
    spec.insert("restartPolicy".to_owned(), json!("Always"));
    spec.insert("terminationGracePeriodSeconds".to_owned(), json!(0));
    spec.insert("automountServiceAccountToken".to_owned(), json!(false));
    spec.insert("enableServiceLinks".to_owned(), json!(false));
    let mut spec = Value::Object(spec);
    add_provider(&mut spec, instance)?;
    if let Some(node) = given["nodeName"].as_str().filter(|node| !node.is_empty()) {
        require_node(&mut spec, node);
    }
    prefer_others(&mut spec, avoided(instance));
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": Role::Placeholder.pod_name(&name),
            "namespace": instance.namespace(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(instance)],
        },
        "spec": spec,
    }))
}

/// Identifies what a placeholder was made from: one that has no node yet is replaced when this
/// changes.
pub(crate) fn placeholder_hash(instance: &StoppableContainerInstance) -> String {
    let spec = &instance.spec;
    template_hash(&(&spec.template, &spec.provider, spec.running))
}

/// Nodes that were given up before the first start.
pub(crate) fn avoided(instance: &StoppableContainerInstance) -> impl Iterator<Item = &str> {
    let names = instance.annotations().get(ANNOTATION_AVOID_NODES);
    let names = names.map(String::as_str).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty())
}

fn container(given: &Value, running: bool) -> Value {
    let mut container = kept(given, CONTAINER_FIELDS);
    if !running && let Some(resources) = container.get_mut("resources") {
        for kind in ["requests", "limits"] {
            if let Some(amounts) = resources.get_mut(kind).and_then(Value::as_object_mut) {
                amounts.retain(|name, _| !SHARED_RESOURCES.contains(&name.as_str()));
            }
        }
    }
    Value::Object(container)
}

/// The volumes that decide on a node, and ours, which keeps the pod from starting.
fn volumes(given: &Value) -> Value {
    let ours = json!({ "name": VOLUME_NAME, "csi": { "driver": CSI_DRIVER, "readOnly": true } });
    let given = given["volumes"].as_array().into_iter().flatten();
    let decide =
        |volume: &&Value| volume["persistentVolumeClaim"].is_object() || volume["ephemeral"].is_object();
    std::iter::once(ours)
        .chain(given.filter(decide).cloned())
        .collect()
}

/// Adds where `spec.provider` lets the provider run: it goes to the same node.
fn add_provider(spec: &mut Value, instance: &StoppableContainerInstance) -> Result<(), TemplateError> {
    let provider = instance.spec.provider.decode()?;
    for (key, value) in provider.node_selector {
        spec["nodeSelector"][key] = json!(value);
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.extend(provider.tolerations.iter().map(|toleration| json!(toleration)));
    if !tolerations.is_empty() {
        spec["tolerations"] = Value::Array(tolerations);
    }
    Ok(())
}

/// Terms are alternatives, so the node has to be in each of them.
fn require_node(spec: &mut Value, node: &str) {
    let requirement = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let terms = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    if terms.as_array().is_none_or(Vec::is_empty) {
        *terms = json!([{}]);
    }
    for term in terms.as_array_mut().into_iter().flatten() {
        push(&mut term["matchFields"], requirement.clone());
    }
}

/// Prefers other nodes than these, whatever the template prefers. The scheduler adds up the weights
/// of the terms that a node matches, and the weight of a term is at most 100.
fn prefer_others<'a>(spec: &mut Value, nodes: impl Iterator<Item = &'a str>) {
    // The API server allows one value in each field requirement.
    let fields: Vec<_> = nodes
        .map(|node| json!({ "key": "metadata.name", "operator": "NotIn", "values": [node] }))
        .collect();
    if fields.is_empty() {
        return;
    }
    let preferred = &mut spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let terms = 1 + STRONGER * preferred.as_array().map_or(0, Vec::len);
    for _ in 0..terms.min(MOST_TERMS) {
        push(
            preferred,
            json!({ "weight": 100, "preference": { "matchFields": fields } }),
        );
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

fn kept(given: &Value, fields: &[&str]) -> Map<String, Value> {
    let of = |field: &&str| {
        Some((
            (*field).to_owned(),
            given.get(*field).filter(|v| !v.is_null())?.clone(),
        ))
    };
    fields.iter().filter_map(of).collect()
}

fn json_map(map: &std::collections::BTreeMap<String, String>) -> Map<String, Value> {
    map.iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect()
}

#[cfg(test)]
mod tests;
