//! Pods as JSON: lists that may be missing, things found by name, patches.

use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use json_patch::{Patch, jsonptr::PointerBuf};
use serde_json::{Value, json};

/// Collects the operations of a patch.
#[derive(Debug, Default)]
pub(crate) struct Operations(Vec<PatchOperation>);

/// The list at `key`; empty if there is none.
pub(crate) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object[key].as_array().map_or(&[], Vec::as_slice)
}

/// Edits the list at `key`, made if it is not there.
pub(crate) fn edit_list(object: &mut Value, key: &str, edit: impl FnOnce(&mut Vec<Value>)) {
    let mut items = match object[key].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    edit(&mut items);
    object[key] = Value::Array(items);
}

/// Edits every container of the list at `key` (`containers`, `initContainers`), if there is one.
pub(crate) fn edit_containers(pod: &mut Value, key: &str, edit: impl FnMut(&mut Value)) {
    if let Some(containers) = pod["spec"][key].as_array_mut() {
        containers.iter_mut().for_each(edit);
    }
}

/// Whether a list has something of this name.
pub(crate) fn has(items: &[Value], name: &str) -> bool {
    items.iter().any(|item| item["name"] == name)
}

/// Names of the containers.
pub(crate) fn container_names(pod: &Value) -> Vec<&str> {
    let containers = list(&pod["spec"], "containers");
    containers.iter().filter_map(|c| c["name"].as_str()).collect()
}

/// An annotation; empty if there is none.
pub(crate) fn annotation<'a>(pod: &'a Value, name: &str) -> &'a str {
    pod["metadata"]["annotations"][name].as_str().unwrap_or_default()
}

/// A label; empty if there is none.
pub(crate) fn label<'a>(pod: &'a Value, name: &str) -> &'a str {
    pod["metadata"]["labels"][name].as_str().unwrap_or_default()
}

/// Where the token of the service account is mounted: the first mount that looks like it, as
/// webhooks find it.
pub(crate) fn token_mount(container: &Value) -> Option<&Value> {
    let is_token = |mount: &&Value| {
        mount["mountPath"]
            .as_str()
            .is_some_and(|p| p.contains("serviceaccount"))
    };
    list(container, "volumeMounts").iter().find(is_token)
}

/// The patch of a webhook that edits the pod and sends the difference.
pub(crate) fn edited(pod: &Value, edit: impl FnOnce(&mut Value)) -> Patch {
    let mut new = pod.clone();
    edit(&mut new);
    json_patch::diff(pod, &new)
}

// === impl Operations ===

impl Operations {
    /// Sets or inserts a value.
    pub(crate) fn add<'a>(&mut self, path: impl IntoIterator<Item = &'a str>, value: Value) {
        let path = PointerBuf::from_tokens(path);
        self.0.push(PatchOperation::Add(AddOperation { path, value }));
    }

    /// Removes a value.
    pub(crate) fn remove<'a>(&mut self, path: impl IntoIterator<Item = &'a str>) {
        let path = PointerBuf::from_tokens(path);
        self.0.push(PatchOperation::Remove(RemoveOperation { path }));
    }

    /// Appends `items` to a list with `length` entries: the first makes the list where there is
    /// none, as patches by index have to.
    pub(crate) fn append(&mut self, path: &[&str], length: usize, items: impl IntoIterator<Item = Value>) {
        for (at, item) in items.into_iter().enumerate() {
            if length + at == 0 {
                self.add(path.iter().copied(), json!([item]));
            } else {
                self.add(path.iter().copied().chain(["-"]), item);
            }
        }
    }

    /// The patch.
    pub(crate) fn into_patch(self) -> Patch {
        Patch(self.0)
    }
}
