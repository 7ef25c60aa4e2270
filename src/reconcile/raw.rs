/*!
Requests whose bodies are text already: fields that our types do not know reach
the API server, and a large template is not decoded to be sent.
*/

use kube::core::Request;
use kube::{Api, Client, Error, Resource};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::json::Json;

use super::apply::creating;

/// Creates an object.
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

/// Fields that the API server does not know are refused, and not dropped (invariant I19).
fn strict(mut request: http::Request<Vec<u8>>) -> http::Request<Vec<u8>> {
    let uri = request.uri().to_string();
    let separator = if uri.ends_with('?') { "" } else { "&" };
    if let Ok(uri) = format!("{uri}{separator}fieldValidation=Strict").parse() {
        *request.uri_mut() = uri;
    }
    request
}
