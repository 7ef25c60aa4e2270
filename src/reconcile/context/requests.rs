/*!
Requests whose bodies are text already: fields that our types do not know reach
the API server, and a large template is not decoded to be sent.
*/

use kube::api::Patch;
use kube::core::Request;
use kube::{Api, Client, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stoppablecontainer_api::json::Json;

use crate::reconcile::instance::apply::{creating, ours};
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
