/*!
Requests whose bodies are text already: fields that our types do not know reach
the API server, and a large template is not decoded to be sent.
*/

use kube::core::Request;
use kube::{Api, Client, Error, Resource};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::json::Json;

use super::apply::creating;
use crate::trial::strict;

/// Creates an object. Fields that the API server does not know are refused, and not dropped (invariant I19).
///
/// # Errors
/// When the API server refuses or cannot be asked.
pub(super) async fn create<K: Resource + DeserializeOwned>(
    client: &Client,
    api: &Api<K>,
    object: &Json,
) -> Result<K, Error> {
    let request = Request::new(api.resource_url())
        .create(&creating(), object.as_str().as_bytes().to_vec())
        .map_err(Error::BuildRequest)?;
    client.request(strict(request)).await
}
