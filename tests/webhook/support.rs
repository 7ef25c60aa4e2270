//! A webhook with one instance `dev` in namespace `team`, ready on `node-1`.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use stoppablecontainer::metrics::Metrics;
use stoppablecontainer::rewrite::Wrapper;
use stoppablecontainer::webhook::{CacheWriters, Caches, Settings, Webhook};
use tower::ServiceExt;

pub(crate) const CONTROLLER: &str = "system:serviceaccount:operators:controller";

pub(crate) struct Harness {
    reviewer: Reviewer,
    pub(crate) writers: CacheWriters,
    pub(crate) metrics: Metrics,
}

/// The half that asks.
#[derive(Clone)]
pub(crate) struct Reviewer(Router);

/// The answer in a review.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Value);

impl Harness {
    /// Empty caches.
    pub(crate) fn empty() -> Self {
        Self::build(|webhook| webhook)
    }

    /// Empty caches, and an API server that answers dry runs like this.
    pub(crate) fn with_api(api: Router) -> Self {
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
        let metrics = Metrics::default();
        let router = change(Webhook::new(settings, caches, metrics.admission())).router();
        Self {
            reviewer: Reviewer(router),
            writers,
            metrics,
        }
    }

    /// Caches with the node and the instance.
    pub(crate) fn new() -> Self {
        let mut harness = Self::empty();
        harness.node(&json!({}));
        harness.instance(&instance());
        harness
    }

    pub(crate) fn node(&mut self, spec: &Value) {
        let node = json!({ "metadata": { "name": "node-1" }, "spec": spec });
        self.writers
            .nodes
            .apply_watcher_event(&Event::Apply(serde_json::from_value(node).unwrap()));
    }

    pub(crate) fn claim(&mut self, name: &str, phase: &str, mode: &str) {
        let claim = json!({
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "accessModes": [mode] },
            "status": { "phase": phase },
        });
        self.writers
            .claims
            .apply_watcher_event(&Event::Apply(serde_json::from_value(claim).unwrap()));
    }

    pub(crate) fn instance(&mut self, instance: &Value) {
        let instance = serde_json::from_value(instance.clone()).unwrap();
        self.writers
            .instances
            .apply_watcher_event(&Event::Apply(instance));
        self.writers.changed.send_replace(());
    }

    pub(crate) fn reviewer(&self) -> Reviewer {
        self.reviewer.clone()
    }
}

impl std::ops::Deref for Harness {
    type Target = Reviewer;

    fn deref(&self) -> &Reviewer {
        &self.reviewer
    }
}

impl Reviewer {
    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (
            status,
            to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec(),
        )
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.into());
        self.send(request.unwrap()).await
    }

    /// The answer to a review with this request.
    pub(crate) async fn review(&self, path: &str, request: &Value) -> Answer {
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
    pub(crate) async fn mutated(&self, pod: &Value) -> Value {
        self.review("/mutate", &creation("Pod", "", pod))
            .await
            .applied(pod)
    }

    pub(crate) async fn final_state(&self, pod: &Value) -> Answer {
        self.review("/validate-pod", &creation("Pod", "", pod)).await
    }
}

impl Answer {
    pub(crate) fn is_allowed(&self) -> bool {
        self.0["allowed"].as_bool().unwrap()
    }

    pub(crate) fn message(&self) -> &str {
        assert!(!self.is_allowed(), "{:?}", self.0);
        self.0["status"]["message"].as_str().unwrap()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.0["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|w| w.as_str().unwrap())
            .collect()
    }

    pub(crate) fn applied(&self, to: &Value) -> Value {
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

pub(crate) fn instance() -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": { "name": "dev", "namespace": "team", "uid": "i-1" },
        "spec": {
            "stoppableContainerName": "dev",
            "running": true,
            "template": { "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] } },
        },
        "status": {
            "nodeName": "node-1",
            "providerPodUid": "p-1",
            "filesystem": {
                "state": "Ready",
                "nodeName": "node-1",
                "providerPodUid": "p-1",
                "image": {
                    "reference": "nginx:1.25", "id": "sha256:0", "entrypoint": ["/docker-entrypoint.sh"],
                    "cmd": ["nginx", "-g", "daemon off;"], "env": ["PATH=/usr/bin"], "stopSignal": "SIGQUIT",
                },
                "identity": { "user": "", "uid": 0, "gid": 0 },
            },
        },
    })
}

/// The consumer as the controller creates it.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "dev",
            "namespace": "team",
            "labels": {
                "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
                "stoppablecontainer.xtlsoft.top/instance": "dev",
                "stoppablecontainer.xtlsoft.top/role": "consumer",
            },
            "ownerReferences": [{
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "name": "dev", "uid": "i-1", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [{ "name": "main", "image": "nginx:1.25", "resources": {} }], "restartPolicy": "Always",
            "schedulingGates": [{ "name": "stoppablecontainer.xtlsoft.top/rewrite" }],
        },
    })
}

/// A request to create something, by the controller.
pub(crate) fn creation(kind: &str, group: &str, object: &Value) -> Value {
    json!({
        "uid": "7b1c", "kind": { "group": group, "version": "v1", "kind": kind },
        "resource": { "group": group, "version": "v1", "resource": "things" },
        "name": "dev", "namespace": "team", "operation": "CREATE",
        "userInfo": { "username": CONTROLLER }, "object": object, "oldObject": null, "dryRun": false,
    })
}
