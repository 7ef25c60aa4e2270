//! An API server in memory: list, watch, create, replace and JSON patch of named objects, with
//! resource versions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct FakeApi(Arc<Inner>);

struct Inner {
    state: Mutex<Objects>,
    version: watch::Sender<usize>,
}

#[derive(Default)]
struct Objects {
    /// By collection and name.
    stored: BTreeMap<(String, String), Value>,
    /// What happened, in order; the resource version is the index.
    log: Vec<(String, &'static str, Value)>,
    /// Requests that changed something or tried to.
    writes: Vec<String>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            version: watch::Sender::default(),
        }))
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Router::new().fallback(serve).with_state(self.clone()), "default")
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.0
            .state
            .lock()
            .unwrap()
            .stored
            .get(&(collection.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Stores an object as another client would.
    pub(crate) fn put(&self, collection: &str, object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut state = self.0.state.lock().unwrap();
        let known = state.stored.contains_key(&(collection.to_owned(), name.clone()));
        let stored = state.record(collection, if known { "MODIFIED" } else { "ADDED" }, object);
        state.stored.insert((collection.to_owned(), name), stored.clone());
        self.0.version.send_replace(state.log.len());
        stored
    }

    pub(crate) fn change(&self, collection: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(collection, name).unwrap();
        change(&mut object);
        self.put(collection, object);
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        let mut state = self.0.state.lock().unwrap();
        let object = state
            .stored
            .remove(&(collection.to_owned(), name.to_owned()))
            .unwrap();
        state.record(collection, "DELETED", object);
        self.0.version.send_replace(state.log.len());
    }

    /// Returns once `condition` holds for an object.
    pub(crate) async fn until(
        &self,
        collection: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut version = self.0.version.subscribe();
        loop {
            version.mark_unchanged();
            if let Some(object) = self.get(collection, name).filter(|object| condition(object)) {
                return object;
            }
            version.changed().await.unwrap();
        }
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.state.lock().unwrap().writes.clone()
    }
}

impl Objects {
    fn record(&mut self, collection: &str, kind: &'static str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.log.len() + 1).to_string());
        self.log.push((collection.to_owned(), kind, object.clone()));
        object
    }
}

async fn serve(State(api): State<FakeApi>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().trim_end_matches('/');
    let query = parameters(uri.query().unwrap_or_default());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method == Method::GET {
        let name = query["fieldSelector"]
            .strip_prefix("metadata.name=")
            .unwrap()
            .to_owned();
        return if query.contains_key("watch") {
            api.watch(path, name, &query)
        } else {
            api.list(path, &name)
        };
    }
    api.0
        .state
        .lock()
        .unwrap()
        .writes
        .push(format!("{method} {path}"));
    if method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap();
        return if api.get(path, name).is_some() {
            failure(StatusCode::CONFLICT, "AlreadyExists")
        } else {
            axum::Json(api.put(path, body)).into_response()
        };
    }
    let (collection, name) = path.rsplit_once('/').unwrap();
    let Some(mut stored) = api.get(collection, name) else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    if method == Method::PUT {
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        return axum::Json(api.put(collection, body)).into_response();
    }
    assert_eq!(method, Method::PATCH);
    let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
    match json_patch::patch(&mut stored, &patch) {
        Ok(()) => axum::Json(api.put(collection, stored)).into_response(),
        Err(_) => failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    }
}

/// Parameters of a query; of the escapes only that of `=` occurs.
fn parameters(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=")))
        .collect()
}

impl FakeApi {
    fn list(&self, collection: &str, name: &str) -> Response {
        let items: Vec<_> = self.get(collection, name).into_iter().collect();
        let version = self.0.version.borrow().to_string();
        axum::Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }))
            .into_response()
    }

    fn watch(&self, collection: &str, name: String, query: &HashMap<String, String>) -> Response {
        let from: usize = query["resourceVersion"].parse().unwrap();
        let start = (
            self.clone(),
            self.0.version.subscribe(),
            from,
            collection.to_owned(),
            name,
        );
        let events =
            futures::stream::unfold(start, |(api, mut version, mut at, collection, name)| async move {
                loop {
                    version.mark_unchanged();
                    let entry = api.0.state.lock().unwrap().log.get(at).cloned();
                    let Some((of, kind, object)) = entry else {
                        version.changed().await.ok()?;
                        continue;
                    };
                    at += 1;
                    if of == collection && object["metadata"]["name"] == *name {
                        let line = format!("{}\n", json!({ "type": kind, "object": object }));
                        return Some((
                            Ok::<_, std::io::Error>(line),
                            (api, version, at, collection, name),
                        ));
                    }
                }
            });
        Body::from_stream(events).into_response()
    }
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason });
    (code, axum::Json(status)).into_response()
}
