//! The instance `dev` in namespace `team`, ready on `node-1`, its consumer pod, and the request
//! that creates it.

use serde_json::{Value, json};

use crate::CONTROLLER;

/// The instance.
pub fn instance() -> Value {
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
pub fn pod() -> Value {
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
pub fn creation(kind: &str, group: &str, object: &Value) -> Value {
    json!({
        "uid": "7b1c", "kind": { "group": group, "version": "v1", "kind": kind },
        "resource": { "group": group, "version": "v1", "resource": "things" },
        "name": "dev", "namespace": "team", "operation": "CREATE",
        "userInfo": { "username": CONTROLLER }, "object": object, "oldObject": null, "dryRun": false,
    })
}
