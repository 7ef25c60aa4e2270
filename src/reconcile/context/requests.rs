/*!
Requests with bodies that are text already: fields that our types do not know reach the API server,
and a large template is not decoded to be sent.
*/

use std::fmt::Debug;

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Client, Error, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::{FIELD_MANAGER_CONTROLLER, FINALIZER};

use crate::dry_run::strict;

/// Creates an object. Fields that the API server does not know are refused, and not dropped
/// (invariant I19).
///
/// # Errors
/// When the API server refuses or cannot be asked.
pub(crate) async fn create<K: Resource + DeserializeOwned>(
    client: &Client,
    api: &Api<K>,
    object: &Json,
) -> Result<K, Error> {
    let request = Request::new(api.resource_url())
        .create(&post_params(), object.as_str().as_bytes().to_vec())
        .map_err(Error::BuildRequest)?;
    client.request(strict(request)).await
}

/// An operation of a JSON patch.
#[derive(Debug, Serialize)]
pub(crate) struct Operation<'a, T> {
    op: &'static str,
    path: &'static str,
    value: &'a T,
}

/// See [`Operation`].
pub(crate) fn operation<'a, T>(op: &'static str, path: &'static str, value: &'a T) -> Operation<'a, T> {
    Operation { op, path, value }
}

/// Patches an object with a list of operations.
///
/// # Errors
/// When the API server refuses or cannot be asked.
pub(crate) async fn json_patch<K: Resource + DeserializeOwned>(
    client: &Client,
    api: &Api<K>,
    name: &str,
    operations: &Json,
) -> Result<K, Error> {
    let empty = Patch::Json::<()>(json_patch::Patch(Vec::new()));
    let mut request = Request::new(api.resource_url())
        .patch(name, &patch_params(), &empty)
        .map_err(Error::BuildRequest)?;
    *request.body_mut() = operations.as_str().as_bytes().to_vec();
    client.request(request).await
}

/// Parameters of the controller's patches.
pub(crate) fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PatchParams::default()
    }
}

/// Parameters of the controller's creations.
pub(crate) fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PostParams::default()
    }
}

/// Merge patch that puts our finalizer on an object or takes it off, if the object is still the one
/// that was seen.
pub(crate) fn finalizer_patch(object: &impl ResourceExt, present: bool) -> Value {
    let mut finalizers: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|f| *f != FINALIZER)
        .cloned()
        .collect();
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
    json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } })
}

/// Merge patch that makes a status `new` if the object is still the one whose status was `old`. A
/// merge patch leaves what it does not name, so what `old` has and `new` has not is named with
/// null.
pub(crate) fn status_patch<S: Serialize>(
    object: &impl ResourceExt,
    old: Option<&S>,
    new: &S,
) -> Result<Value, serde_json::Error> {
    let old = old.map(serde_json::to_value).transpose()?.unwrap_or_default();
    let mut status = serde_json::to_value(new)?;
    null_what_is_absent(&old, &mut status);
    Ok(json!({ "metadata": { "resourceVersion": object.resource_version() }, "status": status }))
}

fn null_what_is_absent(old: &Value, new: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return;
    };
    for (field, old) in old {
        null_what_is_absent(old, new.entry(field).or_insert(Value::Null));
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use stoppablecontainer_api::StoppableContainer;

    use super::*;

    #[test]
    fn a_status_patch_makes_the_new_status_of_the_old_one() {
        let object: StoppableContainer = serde_json::from_value(json!({
            "metadata": ObjectMeta { resource_version: Some("7".to_owned()), ..ObjectMeta::default() },
            "spec": { "template": {} },
        }))
        .unwrap();
        let mut old = json!({ "a": { "b": 1, "c": 2 }, "d": [1, 2], "e": 3, "f": 4 });
        let new = json!({ "a": { "b": 1 }, "d": [2], "f": 4, "g": { "h": 5 } });
        let patch = status_patch(&object, Some(&old), &new).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], json!("7"));
        json_patch::merge(&mut old, &patch["status"]);
        assert_eq!(old, new);
        assert_eq!(status_patch(&object, None, &new).unwrap()["status"], new);
    }
}
