/*!
The CRDs, from the Rust types, with what derive macros cannot say.

A pod template's schema as generated from the Kubernetes OpenAPI document is stricter than the API server in one
place (a quantity may be a number, `cpu: 2`) and would be a megabyte with all its descriptions. Both are mended
here. Everything else about a pod is left to the API server's own validation.
*/

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::names::MAX_NAME_LENGTH;
use crate::{StoppableContainer, StoppableContainerInstance};

/// Descriptions are kept down to this depth of nested properties: enough for every field of ours, and for
/// `kubectl explain` of the pod template's and the pod spec's own fields.
const DESCRIBED_DEPTH: usize = 4;

/// The CRDs of both kinds, ready to be written to a manifest.
pub fn custom_resource_definitions() -> [CustomResourceDefinition; 2] {
    [mended(&StoppableContainer::crd()), mended(&StoppableContainerInstance::crd())]
}

fn mended(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = crd.clone();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else { continue };
        let mut value = serde_json::to_value(&*root).unwrap_or(Value::Null);
        trim_descriptions(&mut value, 0);
        require_short_name(&mut value);
        if let Ok(mended) = serde_json::from_value(value) {
            *root = mended;
        }
    }
    crd
}

/// Drops descriptions below [`DESCRIBED_DEPTH`] and keeps only the first paragraph of the others.
fn trim_descriptions(schema: &mut Value, depth: usize) {
    let Some(object) = schema.as_object_mut() else { return };
    if depth > DESCRIBED_DEPTH {
        object.remove("description");
    } else if let Some(Value::String(text)) = object.get_mut("description") {
        if let Some(end) = text.find("\n\n") {
            text.truncate(end);
        }
    }
    for (key, step) in [("properties", 1), ("items", 0), ("additionalProperties", 0)] {
        match object.get_mut(key) {
            Some(Value::Object(children)) if key == "properties" => {
                children.values_mut().for_each(|child| trim_descriptions(child, depth + step));
            }
            Some(child) => trim_descriptions(child, depth + step),
            None => {}
        }
    }
}

/// The name becomes a label value, see [`MAX_NAME_LENGTH`]; CEL sees `metadata.name` from the root of the schema.
fn require_short_name(root: &mut Value) {
    root["x-kubernetes-validations"] = json!([{
        "rule": format!("size(self.metadata.name) <= {MAX_NAME_LENGTH}"),
        "message": format!("metadata.name: at most {MAX_NAME_LENGTH} characters, because it becomes a label of the pods"),
    }]);
}
