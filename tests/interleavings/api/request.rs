//! Requests of the kube client, as the simulated API server understands them.

use http::{Method, Request};
use kube::client::Body;
use serde_json::Value;

use super::kind::{Key, Kind};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    Create,
    DryRun,
    Patch,
    Delete,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) key: Key,
    /// It is about the status of the object.
    pub(crate) status: bool,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

// === impl Call ===

impl Call {
    /// Reads a request. A request that the simulation does not know ends the test.
    pub(super) async fn read(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = match body.collect_bytes().await {
            Ok(bytes) if bytes.is_empty() => Value::Null,
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(error) => panic!("body of {path}: {error}"),
        };
        let segments: Vec<_> = path.split('/').collect();
        let at = segments
            .iter()
            .position(|segment| Kind::of_plural(segment).is_some());
        let Some(at) = at else {
            panic!("{} {path}", parts.method)
        };
        let Some(kind) = Kind::of_plural(segments[at]) else {
            panic!("{path}")
        };
        let verb = match parts.method {
            Method::GET => Verb::Get,
            Method::POST if query.contains("dryRun=All") => Verb::DryRun,
            Method::POST => Verb::Create,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            method => panic!("{method} {path}"),
        };
        let name = segments
            .get(at + 1)
            .copied()
            .or(body["metadata"]["name"].as_str());
        let Some(name) = name.or((verb == Verb::DryRun).then_some("")) else {
            panic!("{} {path}: lists come from the history", parts.method)
        };
        let content_type = parts.headers.get(http::header::CONTENT_TYPE);
        Self {
            verb,
            key: Key::new(kind, name),
            status: segments.get(at + 2) == Some(&"status"),
            content_type: content_type
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            body,
        }
    }

    /// Whether it may change something.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb, Verb::Get | Verb::DryRun)
    }
}
