//! The forms of patches that the controller and the agent send.

use serde_json::{Value, json};

use super::kind::Key;
use super::store::Refusal;

/// What a patch makes of an object, or of its status.
pub(super) fn patched(
    key: &Key,
    old: &Value,
    content_type: &str,
    patch: &Value,
    status: bool,
) -> Result<Value, Refusal> {
    let mut new = old.clone();
    match content_type {
        "application/merge-patch+json" => json_patch::merge(&mut new, patch),
        "application/json-patch+json" => apply_operations(key, &mut new, patch)?,
        "application/strategic-merge-patch+json" => apply_strategic(&mut new, patch),
        // Of server-side apply only what the agent does: it owns the whole of this field.
        "application/apply-patch+yaml" => {
            new["status"]["filesystem"] = patch["status"]["filesystem"].clone();
            let uid = &patch["metadata"]["uid"];
            if !uid.is_null() {
                new["metadata"]["uid"] = uid.clone();
            }
        }
        other => return Err(Refusal::new(415, "UnsupportedMediaType", other)),
    }
    for field in ["uid", "resourceVersion"] {
        if new["metadata"][field] != old["metadata"][field] {
            return Err(Refusal::conflict(key, "the object has been modified"));
        }
    }
    if status {
        let status = new["status"].take();
        new = old.clone();
        new["status"] = status;
    } else if key.kind.has_status() {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => {
                if let Some(new) = new.as_object_mut() {
                    new.remove("status");
                }
            }
        }
    }
    Ok(new)
}

fn apply_operations(key: &Key, new: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let unreadable = |error: serde_json::Error| Refusal::new(400, "BadRequest", error.to_string());
    let operations: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(unreadable)?;
    json_patch::patch(new, &operations).map_err(|error| {
        Refusal::new(
            422,
            "Invalid",
            format!("{} \"{}\": {error}", key.kind.plural(), key.name),
        )
    })
}

/// The only list that is merged by its key here is that of the gates.
fn apply_strategic(new: &mut Value, patch: &Value) {
    let mut rest = patch.clone();
    let gates = rest["spec"]["schedulingGates"].take();
    if let Some(spec) = rest["spec"].as_object_mut() {
        spec.remove("schedulingGates");
    }
    json_patch::merge(new, &rest);
    for gate in gates.as_array().into_iter().flatten() {
        if gate["$patch"] == "delete"
            && let Some(present) = new["spec"]["schedulingGates"].as_array_mut()
        {
            present.retain(|known| known["name"] != gate["name"]);
        }
    }
    if new["spec"]["schedulingGates"] == json!([])
        && let Some(spec) = new["spec"].as_object_mut()
    {
        spec.remove("schedulingGates");
    }
}
