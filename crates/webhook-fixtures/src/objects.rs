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

/// The spec of a template as users write it: settings, ports, probes, volumes, and a second
/// container.
pub fn typical_spec() -> Value {
    let settings =
        (0..10).map(|n| json!({ "name": format!("SETTING_{n}"), "value": format!("value of setting {n}") }));
    json!({
        "terminationGracePeriodSeconds": 30,
        "containers": [
            {
                "name": "main", "image": "nginx:1.25", "args": ["--listen", "$(SETTING_0)"],
                "env": settings.collect::<Vec<_>>(),
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "memory": "2Gi" } },
                "readinessProbe": { "httpGet": { "path": "/", "port": "http" } },
                "livenessProbe": { "exec": { "command": ["/bin/alive"] } },
                "lifecycle": { "preStop": { "exec": { "command": ["/bin/drain"] } } },
                "volumeMounts": [
                    { "name": "scratch", "mountPath": "/scratch" },
                    { "name": "config", "mountPath": "/etc/app", "readOnly": true },
                ],
            },
            { "name": "helper", "image": "busybox:1.36", "command": ["sleep", "infinity"] },
        ],
        "volumes": [
            { "name": "scratch", "emptyDir": {} },
            { "name": "config", "configMap": { "name": "app" } },
        ],
    })
}

/// The same with this many variables in the main container, some of which refer to others.
pub fn spec_with_variables(count: usize) -> Value {
    let mut spec = typical_spec();
    let variables = (0..count).map(|n| {
        let value = match n % 10 {
            9 => format!("$(VARIABLE_{}) and more", n - 1),
            _ => format!("value of variable {n}"),
        };
        json!({ "name": format!("VARIABLE_{n}"), "value": value })
    });
    spec["containers"][0]["env"] = variables.collect();
    spec
}

/// The instance and the consumer pod of a template with this spec.
pub fn consumer_of(spec: &Value) -> (Value, Value) {
    let (mut instance, mut pod) = (instance(), pod());
    instance["spec"]["template"]["spec"] = spec.clone();
    let gates = pod["spec"]["schedulingGates"].take();
    pod["spec"] = spec.clone();
    pod["spec"]["schedulingGates"] = gates;
    (instance, pod)
}
