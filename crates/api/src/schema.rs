/*!
The CRDs, from the Rust types, with corrections that the derive macros cannot express.

- *Faithful*: a pod template that the API server accepts in a Deployment is accepted here as well
  (`cpu: 0.5` as a number, `creationTimestamp: null` as generators write it).
- *Strict*: a template that can never work (no container) is rejected at once, with the field's
  path.
- *Small*: with all its descriptions the pod template's schema would be a megabyte, and
  `kubectl apply` stores the whole manifest in an annotation of at most 256 KiB.
- *Open*: fields that a newer Kubernetes adds to pods are kept and reach the pod (invariant I19).
- *Bounded*: every list, map and text has a bound that real pods stay far below (invariant I18). The
  webhook bounds the template as a whole.

The API server's own validation checks everything else about a pod. The validating webhook calls it
with a dry run.
*/

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::bounds::max_items;
use crate::names::MAX_NAME_LENGTH;
use crate::{StoppableContainer, StoppableContainerInstance};

/// Maximum depth of nested properties whose descriptions are kept. It includes all fields of the
/// product and, for `kubectl explain`, the fields of the pod spec and of containers.
const DESCRIBED_DEPTH: usize = 5;

/// Properties of ObjectMeta that a pod template may have: those that Kubernetes' own controllers
/// copy into pods, and those that tools write into templates although they have no effect there.
const TEMPLATE_METADATA: [&str; 7] = [
    "annotations",
    "creationTimestamp",
    "finalizers",
    "generateName",
    "labels",
    "name",
    "namespace",
];

/// Maximum length of a path on Linux, PATH_MAX.
const MAX_PATH_LENGTH: usize = 4096;

/// Maximum number of conditions. The product uses seven.
const MAX_CONDITIONS: usize = 32;

/// Maximum number of entries of a map in a pod template.
const MAX_PROPERTIES: usize = 1024;

/// Maximum length of a text in a pod template. All annotations together have the same limit. An
/// argument or variable can have at most half of it (MAX_ARG_STRLEN).
const MAX_LENGTH: usize = 256 * 1024;

/// Metadata fields of objects inside a template, which are passed on unchanged: the claims of
/// `ephemeral` volumes.
const INNER_METADATA: [&str; 2] = ["annotations", "labels"];

/// The CRDs of both kinds, ready to be written to a manifest.
pub fn custom_resource_definitions() -> [CustomResourceDefinition; 2] {
    [
        mended(&StoppableContainer::crd()),
        mended(&StoppableContainerInstance::crd()),
    ]
}

fn mended(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = crd.clone();
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let mut value = serde_json::to_value(&*root).unwrap_or(Value::Null);
        mend_root(&mut value, &crd.spec.names.kind);
        if let Ok(mended) = serde_json::from_value(value) {
            *root = mended;
        }
    }
    crd
}

fn mend_root(root: &mut Value, kind: &str) {
    visit(root, "", 0, &mut mend_node);
    if let Some(map) = root.as_object_mut() {
        map.remove("title");
        map.insert(
            "description".to_owned(),
            json!(format!("{kind}: {}", kind_description(kind))),
        );
        map.insert("x-kubernetes-validations".to_owned(), short_name_rule());
    }
    if let Some(template) = root.pointer_mut("/properties/spec/properties/template") {
        mend_template(template);
    }
    if let Some(provider) = root.pointer_mut("/properties/spec/properties/provider") {
        visit(provider, "", 0, &mut bound);
    }
    for (field, length) in [
        ("hostPathPrefix", MAX_PATH_LENGTH),
        ("stoppableContainerName", MAX_NAME_LENGTH),
    ] {
        if let Some(text) = object_at(root, &format!("/properties/spec/properties/{field}")) {
            text.insert("maxLength".to_owned(), json!(length));
        }
    }
    if let Some(conditions) = object_at(root, "/properties/status/properties/conditions") {
        conditions.insert("maxItems".to_owned(), json!(MAX_CONDITIONS));
        conditions.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        conditions.insert("x-kubernetes-list-map-keys".to_owned(), json!(["type"]));
    }
}

fn kind_description(kind: &str) -> &'static str {
    match kind {
        "StoppableContainer" => {
            "a container that can be stopped and started again with its whole root filesystem kept."
        }
        _ => {
            "one kept filesystem on one node, with its provider and consumer pods. Created by the controller."
        }
    }
}

/// The name becomes a label value, see [`MAX_NAME_LENGTH`]. CEL rules can read `metadata.name` only
/// at the root of the schema.
fn short_name_rule() -> Value {
    json!([{
        "rule": format!("size(self.metadata.name) <= {MAX_NAME_LENGTH}"),
        "message": format!("metadata.name: at most {MAX_NAME_LENGTH} characters, because it becomes a label of the pods"),
    }])
}

/// Calls `mend` for `schema` and every schema below it, with the name of its property and its depth
/// in properties.
fn visit(
    schema: &mut Value,
    name: &str,
    depth: usize,
    mend: &mut impl FnMut(&mut Map<String, Value>, &str, usize),
) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    mend(object, name, depth);
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, child) in properties {
            visit(child, name, depth + 1, mend);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key) {
            visit(child, name, depth, mend);
        }
    }
}

fn mend_node(schema: &mut Map<String, Value>, name: &str, depth: usize) {
    // An `Option` of Rust means "may be absent". `nullable` would also allow a stored `null`, which
    // bypasses defaults and which clients do not expect.
    schema.remove("nullable");
    // In a pod, a field that is an integer or a string is a port or a quantity.
    if name != "port" && schema.remove("x-kubernetes-int-or-string").is_some() {
        // The API server parses a quantity from any JSON number, but `int-or-string` rejects
        // `cpu: 0.5`. A schema without a type must preserve unknown fields to be structural. The
        // webhook rejects invalid quantities.
        schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    trim_description(schema, depth);
}

/// Removes descriptions below [`DESCRIBED_DEPTH`]. Of the others it keeps the first paragraph, as
/// one line, without the brackets of Rust's links.
fn trim_description(schema: &mut Map<String, Value>, depth: usize) {
    if depth > DESCRIBED_DEPTH {
        schema.remove("description");
    } else if let Some(Value::String(text)) = schema.get_mut("description") {
        let first = text.split("\n\n").next().unwrap_or_default();
        *text = first.replace('\n', " ").replace("[`", "`").replace("`]", "`");
    }
}

fn mend_template(template: &mut Value) {
    if let Some(spec) = template.pointer_mut("/properties/spec") {
        visit(spec, "", 0, &mut open);
    }
    visit(template, "", 0, &mut bound);
    if let Some(map) = template.as_object_mut() {
        map.insert("required".to_owned(), json!(["spec"]));
    }
    if let Some(metadata) = object_at(template, "/properties/metadata/properties") {
        metadata.retain(|name, _| TEMPLATE_METADATA.contains(&name.as_str()));
    }
    // Go's encoder writes `creationTimestamp: null` into every manifest.
    if let Some(created) = object_at(template, "/properties/metadata/properties/creationTimestamp") {
        created.insert("nullable".to_owned(), json!(true));
    }
    if let Some(containers) = object_at(template, "/properties/spec/properties/containers") {
        containers.insert("minItems".to_owned(), json!(1));
    }
}

/// Allows unknown fields in an object of a pod spec. Fields that are only passed on, or always
/// rejected, have no further schema.
fn open(schema: &mut Map<String, Value>, name: &str, _: usize) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    match name {
        // A template must not have ephemeral containers.
        "ephemeralContainers" => _ = schema.remove("properties"),
        "metadata" => properties.retain(|name, _| INNER_METADATA.contains(&name.as_str())),
        _ => {}
    }
    if name == "ephemeralContainers" {
        schema.remove("required");
    }
    schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
}

/// Bounds a list, a map or a text.
fn bound(schema: &mut Map<String, Value>, name: &str, _: usize) {
    if schema.get("type") == Some(&json!("string")) {
        schema.insert("maxLength".to_owned(), json!(MAX_LENGTH));
    }
    if schema.contains_key("items") {
        schema.insert("maxItems".to_owned(), json!(max_items(name)));
    }
    if schema.contains_key("additionalProperties") {
        schema.insert("maxProperties".to_owned(), json!(MAX_PROPERTIES));
    }
}

fn object_at<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    value.pointer_mut(pointer).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
