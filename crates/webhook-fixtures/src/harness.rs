//! The webhook's router, and the reviews that a test sends to it.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use kube::runtime::watcher::Event;
use metrics::Metrics;
use serde_json::{Value, json};
use stoppablecontainer::metrics::AdmissionMetrics;
use stoppablecontainer::rewrite::Wrapper;
use stoppablecontainer::webhook::{CacheWriters, Caches, Settings, Webhook};
use tower::ServiceExt;

use crate::objects::{creation, instance};

/// User name of the controller in reviews.
pub const CONTROLLER: &str = "system:serviceaccount:operators:controller";

/// A webhook with caches that a test fills.
pub struct Harness {
    reviewer: Reviewer,
    /// The write halves of its caches.
    pub writers: CacheWriters,
    /// Its metrics.
    pub metrics: Metrics,
}

/// The half that asks.
#[derive(Clone)]
pub struct Reviewer(Router);

/// The answer in a review.
#[derive(Debug)]
pub struct Answer(pub Value);

impl Harness {
    /// Empty caches.
    pub fn empty() -> Self {
        Self::build(|webhook| webhook)
    }

    /// Empty caches, and an API server that answers dry runs like this.
    pub fn with_api(api: Router) -> Self {
        Self::build(|webhook| webhook.with_dry_run(kube::Client::new(api, "default")))
    }

    fn build(change: impl FnOnce(Webhook) -> Webhook) -> Self {
        let settings = Settings {
            wrapper: Wrapper {
                image: "example/wrapper:1".to_owned(),
                pull_secret: None,
            },
            allowed_prefixes: vec!["/var/lib/stoppablecontainer".to_owned(), "/data/sc".to_owned()],
            excluded_namespaces: vec!["kube-system".to_owned()],
            controller: CONTROLLER.to_owned(),
        };
        let (caches, writers) = Caches::new();
        let metrics = Metrics::new("0");
        let router = change(Webhook::new(settings, caches, AdmissionMetrics::new(&metrics))).router();
        Self {
            reviewer: Reviewer(router),
            writers,
            metrics,
        }
    }

    /// Caches with the node and the instance.
    pub fn new() -> Self {
        let mut harness = Self::empty();
        harness.node(&json!({}));
        harness.instance(&instance());
        harness
    }

    /// Shows the webhook node `node-1` with this spec.
    pub fn node(&mut self, spec: &Value) {
        let node = json!({ "metadata": { "name": "node-1" }, "spec": spec });
        self.writers
            .nodes
            .apply_watcher_event(&Event::Apply(serde_json::from_value(node).unwrap()));
    }

    /// Shows the webhook a node whose container runtime supports user namespaces, or not.
    pub fn runtime(&mut self, name: &str, user_namespaces: bool) {
        let node = json!({ "metadata": { "name": name }, "status": {
            "nodeInfo": { "containerRuntimeVersion": "containerd://2.4.2" },
            "runtimeHandlers": [{ "name": "", "features": { "userNamespaces": user_namespaces } }],
        } });
        self.writers
            .nodes
            .apply_watcher_event(&Event::Apply(serde_json::from_value(node).unwrap()));
    }

    /// Shows the webhook a claim of namespace `team`.
    pub fn claim(&mut self, name: &str, phase: &str, mode: &str) {
        let claim = json!({
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "accessModes": [mode] },
            "status": { "phase": phase },
        });
        self.writers
            .claims
            .apply_watcher_event(&Event::Apply(serde_json::from_value(claim).unwrap()));
    }

    /// Shows the webhook an instance.
    pub fn instance(&mut self, instance: &Value) {
        let instance = serde_json::from_value(instance.clone()).unwrap();
        self.writers
            .instances
            .apply_watcher_event(&Event::Apply(instance));
        self.writers.changed.send_replace(());
    }

    /// The half that asks, to be moved into a task.
    pub fn reviewer(&self) -> Reviewer {
        self.reviewer.clone()
    }
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Harness {
    type Target = Reviewer;

    fn deref(&self) -> &Reviewer {
        &self.reviewer
    }
}

impl Reviewer {
    /// Sends a request.
    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (
            status,
            to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec(),
        )
    }

    /// Posts a body of JSON.
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.into());
        self.send(request.unwrap()).await
    }

    /// The answer to a review with this request.
    pub async fn review(&self, path: &str, request: &Value) -> Answer {
        let review =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let (status, body) = self.post(path, review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["uid"], request["uid"]);
        Answer(answer["response"].clone())
    }

    /// The pod after `/mutate`.
    pub async fn mutated(&self, pod: &Value) -> Value {
        self.review("/mutate", &creation("Pod", "", pod))
            .await
            .applied(pod)
    }

    /// The answer of `/validate-pod` to the creation of a pod.
    pub async fn final_state(&self, pod: &Value) -> Answer {
        self.review("/validate-pod", &creation("Pod", "", pod)).await
    }
}

impl Answer {
    /// Whether the request is allowed.
    pub fn is_allowed(&self) -> bool {
        self.0["allowed"].as_bool().unwrap()
    }

    /// Why it is not.
    pub fn message(&self) -> &str {
        assert!(!self.is_allowed(), "{:?}", self.0);
        self.0["status"]["message"].as_str().unwrap()
    }

    /// The warnings.
    pub fn warnings(&self) -> Vec<&str> {
        self.0["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|w| w.as_str().unwrap())
            .collect()
    }

    /// `to` with the patch applied.
    pub fn applied(&self, to: &Value) -> Value {
        assert!(self.is_allowed(), "{:?}", self.0);
        let mut value = to.clone();
        if let Some(patch) = self.0.get("patch") {
            assert_eq!(self.0["patchType"], "JSONPatch");
            let bytes: k8s_openapi::ByteString = serde_json::from_value(patch.clone()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&bytes.0).unwrap();
            json_patch::patch(&mut value, &patch).unwrap();
        }
        value
    }
}
