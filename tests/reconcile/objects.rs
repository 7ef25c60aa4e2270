//! The objects of the tests, and the paths of their requests.

use serde_json::{Value, json};

pub(crate) const CONTAINER: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainers/web";
pub(crate) const CONTAINER_STATUS: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainers/web/status";
pub(crate) const INSTANCES: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainerinstances";
pub(crate) const INSTANCE: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainerinstances/web";
pub(crate) const INSTANCE_STATUS: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainerinstances/web/status";
pub(crate) const PODS: &str = "/api/v1/namespaces/team/pods";
pub(crate) const PROVIDER: &str = "/api/v1/namespaces/team/pods/web-provider";
pub(crate) const CONSUMER: &str = "/api/v1/namespaces/team/pods/web";

/// A StoppableContainer `web`, as the API server has it.
pub(crate) fn container() -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainer",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "container-uid", "generation": 4, "resourceVersion": "1",
            "finalizers": ["stoppablecontainer.xtlsoft.top/cleanup"],
        },
        "spec": {
            "running": true,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "nginx:1.25", "resources": { "limits": { "cpu": 0.5 } } }] },
            },
        },
    })
}

/// An instance `web` before its first reconciliation.
pub(crate) fn new_instance() -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "instance-uid", "generation": 1, "resourceVersion": "1",
        },
        "spec": {
            "stoppableContainerName": "web",
            "running": true,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] },
            },
        },
    })
}

/// The container's instance, with its status.
pub(crate) fn instance(container: &Value) -> Value {
    let mut spec = container["spec"].clone();
    spec["stoppableContainerName"] = json!("web");
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "instance-uid", "generation": 2, "resourceVersion": "5",
            "ownerReferences": [{
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
                "name": "web", "uid": "container-uid", "controller": true,
            }],
        },
        "spec": spec,
        "status": {
            "phase": "Running", "nodeName": "n1", "observedGeneration": 2,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AsRequested", "message": "pod web is ready",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
            }],
        },
    })
}

/// A running, ready pod of the instance.
pub(crate) fn pod(name: &str, role: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "team", "uid": uid, "resourceVersion": "50",
            "labels": {
                "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
                "stoppablecontainer.xtlsoft.top/instance": "web",
                "stoppablecontainer.xtlsoft.top/role": role,
            },
            "ownerReferences": [{
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "name": "web", "uid": "instance-uid", "controller": true,
            }],
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": role }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// `pod`, with deletion asked for.
pub(crate) fn terminating(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod
}

/// `object`, with deletion asked for.
pub(crate) fn deleted(mut object: Value) -> Value {
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object
}

/// The instance after an orphan deletion, or made by hand.
pub(crate) fn without_owner(instance: &Value) -> Value {
    let mut instance = instance.clone();
    instance["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("ownerReferences");
    instance
}
