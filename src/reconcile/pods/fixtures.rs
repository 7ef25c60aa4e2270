//! StoppableContainers, instances and their pods for tests, each one step away from the ordinary
//! case.

// Tables read better without borrows and wrappers.
#![allow(clippy::needless_pass_by_value)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::reconcile::pods::{OptOuts, Role, consumer_pod, placeholder_pod, provider_pod};

/// A StoppableContainer `web`. `change` is merged into it.
pub(crate) fn container(change: &Value) -> StoppableContainer {
    let mut object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": { "name": "web", "namespace": "team", "uid": "container-uid" },
        "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "i" }] } } },
    });
    json_patch::merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

/// An instance `web` with a main container `main`, running, with finalizer and without a status.
/// `change` is merged into it.
pub(crate) fn instance(change: Value) -> Arc<StoppableContainerInstance> {
    let mut object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "instance-uid", "generation": 3, "resourceVersion": "7",
            "finalizers": ["stoppablecontainer.xtlsoft.top/cleanup"],
        },
        "spec": {
            "stoppableContainerName": "web",
            "running": true,
            "template": { "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] } },
        },
    });
    json_patch::merge(&mut object, &change);
    Arc::new(serde_json::from_value(object).unwrap())
}

/// Status of an instance whose filesystem on node `n1` is ready.
pub(crate) fn prepared() -> Value {
    json!({
        "phase": "Stopped",
        "nodeName": "n1",
        "providerPodUid": "provider-uid",
        "filesystem": {
            "state": "Ready", "nodeName": "n1", "providerPodUid": "provider-uid",
            "image": { "reference": "nginx:1.25", "id": "sha256:1" },
            "identity": { "user": "", "uid": 0, "gid": 0 },
        },
    })
}

/// A pod of `instance` as our builders make it, as the API server returns it, with `status`.
pub(crate) fn pod(instance: &StoppableContainerInstance, role: Role, status: Value) -> Arc<Pod> {
    let mut pod = match role {
        Role::Provider => provider_pod(instance, "n1", &OptOuts::default()).unwrap(),
        Role::Consumer => serde_json::from_value(consumer_pod(instance).unwrap()).unwrap(),
        Role::Placeholder => {
            let pod = placeholder_pod(instance, &OptOuts::default()).unwrap();
            serde_json::from_value(pod).unwrap()
        }
    };
    pod.metadata.uid = Some(format!("{role}-uid"));
    pod.metadata.resource_version = Some("20".to_owned());
    pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    pod.status = serde_json::from_value(status).unwrap();
    Arc::new(pod)
}

/// Changes the template of an instance.
pub(crate) fn edit(instance: &mut StoppableContainerInstance, change: impl FnOnce(&mut Value)) {
    let mut template = serde_json::to_value(&instance.spec.template).unwrap();
    change(&mut template);
    instance.spec.template = serde_json::from_value(template).unwrap();
}

/// Status of a pod that runs and is ready.
pub(crate) fn up() -> Value {
    json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [{
            "name": "main", "ready": true, "restartCount": 0, "image": "", "imageID": "",
            "state": { "running": { "startedAt": null } },
        }],
    })
}

/// Status of a pod that the kubelet refused.
pub(crate) fn out_of_cpu() -> Value {
    json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu" })
}
