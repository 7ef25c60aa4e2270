/*!
Requests whose bodies are text already: fields that our types do not know reach
the API server, and a large template is not decoded to be sent.
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

use crate::trial::strict;

/// Creates an object. Fields that the API server does not know are refused, and not dropped (invariant I19).
///
/// # Errors
/// When the API server refuses or cannot be asked.
pub(crate) async fn create<K: Resource + DeserializeOwned>(
    client: &Client,
    api: &Api<K>,
    object: &Json,
) -> Result<K, Error> {
    let request = Request::new(api.resource_url())
        .create(&creating(), object.as_str().as_bytes().to_vec())
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
        .patch(name, &ours(), &empty)
        .map_err(Error::BuildRequest)?;
    *request.body_mut() = operations.as_str().as_bytes().to_vec();
    client.request(request).await
}

/// Parameters of the controller's patches.
pub(crate) fn ours() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PatchParams::default()
    }
}

/// Parameters of the controller's creations.
pub(crate) fn creating() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PostParams::default()
    }
}

/// Merge patch that puts our finalizer on an object or takes it off, if the object is still the one that was seen.
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
