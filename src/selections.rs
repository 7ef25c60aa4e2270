/*!
The fields that caches hold of each object: only those that the operator uses, trimmed while it is
read (invariant I18).

The memory of the operator then depends on the size of our objects, and on the few fields of pods,
nodes and claims that it uses, not on anything else that their authors put into them.
*/

use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::json::Keep;
use stoppablecontainer_api::trimmed::{METADATA, Selection, Trimmed};

/// A pod as the controllers see it.
pub type TrimmedPod = Trimmed<Pod, Pods>;

/// A pod as the API server answers to its creation.
pub type CreatedPod = Trimmed<Pod, CreatedPods>;

/// Pods at their creation: what [`Pods`] has, and whether they were rewritten.
#[derive(Clone, Copy, Debug)]
pub struct CreatedPods;

/// Pods: what they are, where, how they are doing, and what their containers may use.
#[derive(Clone, Copy, Debug)]
pub struct Pods;

/// Nodes: that they exist, how they are doing, who may be placed there, and what their runtimes can
/// do.
#[derive(Clone, Copy, Debug)]
pub struct Nodes;

/// Which CSI drivers a kubelet has.
#[derive(Clone, Copy, Debug)]
pub struct Drivers;

/// Whether a claim is bound, and how it may be used.
#[derive(Clone, Copy, Debug)]
pub struct Claims;

const CONDITIONS: Keep = Keep::First(
    64,
    &Keep::Fields(&[
        ("lastTransitionTime", Keep::All),
        ("message", Keep::All),
        ("reason", Keep::All),
        ("status", Keep::All),
        ("type", Keep::All),
    ]),
);

/// Most containers of a pod that are looked at. A template has 64 of each sort at most; injectors
/// add a few.
const CONTAINERS: usize = 128;

/// Most volumes of a pod, and mounts of a container, that are looked at.
const VOLUMES: usize = 2_048;

const GATES: Keep = Keep::First(64, &Keep::Fields(&[("name", Keep::All)]));

const AMOUNTS: Keep = Keep::Fields(&[
    ("cpu", Keep::All),
    ("ephemeral-storage", Keep::All),
    ("memory", Keep::All),
]);

const RESOURCES: Keep = Keep::Fields(&[("limits", AMOUNTS), ("requests", AMOUNTS)]);

const CONTAINER: Keep = Keep::First(
    CONTAINERS,
    &Keep::Fields(&[
        ("image", Keep::All),
        ("name", Keep::All),
        ("resources", RESOURCES),
    ]),
);

const CONTAINER_STATUS: Keep = Keep::First(
    CONTAINERS,
    &Keep::Fields(&[
        ("containerID", Keep::All),
        ("image", Keep::All),
        ("imageID", Keep::All),
        ("lastState", Keep::All),
        ("name", Keep::All),
        ("ready", Keep::All),
        ("restartCount", Keep::All),
        ("started", Keep::All),
        ("state", Keep::All),
    ]),
);

impl Selection for Pods {
    const KEEP: Keep = Keep::Fields(&[
        ("apiVersion", Keep::All),
        ("kind", Keep::All),
        ("metadata", METADATA),
        (
            "spec",
            Keep::Fields(&[
                ("containers", CONTAINER),
                ("nodeName", Keep::All),
                ("schedulingGates", GATES),
            ]),
        ),
        (
            "status",
            Keep::Fields(&[
                ("conditions", CONDITIONS),
                ("containerStatuses", CONTAINER_STATUS),
                ("initContainerStatuses", CONTAINER_STATUS),
                ("message", Keep::All),
                ("nominatedNodeName", Keep::All),
                ("phase", Keep::All),
                ("reason", Keep::All),
                ("startTime", Keep::All),
            ]),
        ),
    ]);
}

impl Selection for CreatedPods {
    const KEEP: Keep = Keep::Fields(&[
        ("apiVersion", Keep::All),
        ("kind", Keep::All),
        ("metadata", METADATA),
        (
            "spec",
            Keep::Fields(&[
                (
                    "containers",
                    Keep::First(
                        CONTAINERS,
                        &Keep::Fields(&[
                            ("command", Keep::First(CONTAINERS, &Keep::All)),
                            ("image", Keep::All),
                            ("name", Keep::All),
                            ("resources", RESOURCES),
                            ("volumeMounts", Keep::First(VOLUMES, &Keep::All)),
                        ]),
                    ),
                ),
                ("nodeName", Keep::All),
                ("schedulingGates", GATES),
                (
                    "volumes",
                    Keep::First(
                        VOLUMES,
                        &Keep::Fields(&[
                            ("csi", Keep::Fields(&[("driver", Keep::All)])),
                            ("name", Keep::All),
                        ]),
                    ),
                ),
            ]),
        ),
        ("status", Keep::Fields(&[("phase", Keep::All)])),
    ]);
}

/// Enough of the metadata of what is not ours.
const IDENTITY: Keep = Keep::Fields(&[
    ("name", Keep::All),
    ("namespace", Keep::All),
    ("resourceVersion", Keep::All),
    ("uid", Keep::All),
]);

const NODE_INFO: Keep = Keep::Fields(&[("containerRuntimeVersion", Keep::All)]);

const RUNTIME_HANDLERS: Keep = Keep::First(
    64,
    &Keep::Fields(&[
        ("features", Keep::Fields(&[("userNamespaces", Keep::All)])),
        ("name", Keep::All),
    ]),
);

impl Selection for Nodes {
    const KEEP: Keep = Keep::Fields(&[
        (
            "metadata",
            Keep::Fields(&[
                ("labels", Keep::All),
                ("name", Keep::All),
                ("resourceVersion", Keep::All),
                ("uid", Keep::All),
            ]),
        ),
        (
            "spec",
            Keep::Fields(&[
                ("taints", Keep::First(1_024, &Keep::All)),
                ("unschedulable", Keep::All),
            ]),
        ),
        (
            "status",
            Keep::Fields(&[
                ("conditions", CONDITIONS),
                ("nodeInfo", NODE_INFO),
                ("runtimeHandlers", RUNTIME_HANDLERS),
            ]),
        ),
    ]);
}

impl Selection for Drivers {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", IDENTITY),
        (
            "spec",
            Keep::Fields(&[(
                "drivers",
                Keep::First(
                    1_024,
                    &Keep::Fields(&[("name", Keep::All), ("nodeID", Keep::All)]),
                ),
            )]),
        ),
    ]);
}

impl Selection for Claims {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", IDENTITY),
        (
            "spec",
            Keep::Fields(&[("accessModes", Keep::First(16, &Keep::All))]),
        ),
        ("status", Keep::Fields(&[("phase", Keep::All)])),
    ]);
}

/// A pod that the API server answered with.
///
/// # Errors
/// When it is not a pod.
pub fn pod<S>(held: Trimmed<Pod, S>) -> Result<Pod, kube::Error> {
    held.into_object()
        .map_err(|unreadable| kube::Error::Service(Box::new(unreadable)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
    use k8s_openapi::api::storage::v1::CSINode;
    use kube::Resource;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn held<K: Resource<DynamicType = ()> + DeserializeOwned, S: Selection>(object: &Value) -> K {
        let held: Trimmed<K, S> = serde_json::from_str(&object.to_string()).unwrap();
        held.into_object().unwrap()
    }

    /// Story: a user puts our labels on a pod of his own, and the controllers' cache holds it with
    /// all that it has.
    #[test]
    fn i18_of_a_pod_with_our_labels_little_is_held() {
        let many = |element: Value| Value::Array(vec![element; 31_000]);
        let pod: Pod = held::<Pod, Pods>(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "team", "uid": "u", "resourceVersion": "1",
                "labels": { "stoppablecontainer.xtlsoft.top/instance": "web", "app": "x" },
                "annotations": { "stoppablecontainer.xtlsoft.top/template-hash": "h", "big": "x".repeat(9_000) },
                "managedFields": many(json!({ "manager": "m", "fieldsV1": {} })),
                "finalizers": ["f"],
            },
            "spec": {
                "nodeName": "n1", "volumes": many(json!({ "name": "v" })),
                "containers": [{
                    "name": "main", "image": "i", "env": many(json!({ "name": "E" })),
                    "resources": { "limits": { "example.com/gpu": "1", "cpu": "1", "ephemeral-storage": "1Gi" } },
                }],
            },
            "status": {
                "phase": "Running", "podIPs": many(json!({ "ip": "::" })),
                "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [{ "name": "main", "ready": true, "restartCount": 2, "image": "", "imageID": "" }],
            },
        }));
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "team", "uid": "u", "resourceVersion": "1", "finalizers": ["f"],
                "labels": { "stoppablecontainer.xtlsoft.top/instance": "web" },
                "annotations": { "stoppablecontainer.xtlsoft.top/template-hash": "h" },
            },
            "spec": { "nodeName": "n1", "containers": [{
                "name": "main", "image": "i", "resources": { "limits": { "cpu": "1", "ephemeral-storage": "1Gi" } },
            }] },
            "status": {
                "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [{ "name": "main", "ready": true, "restartCount": 2, "image": "", "imageID": "" }],
            },
        });
        assert_eq!(serde_json::to_value(&pod).unwrap(), expected);
        let crowd =
            json!({ "metadata": { "name": "c" }, "spec": { "containers": many(json!({ "name": "c" })) } });
        assert_eq!(
            held::<Pod, Pods>(&crowd).spec.unwrap().containers.len(),
            CONTAINERS
        );
    }

    #[test]
    fn i18_of_nodes_drivers_and_claims_the_little_that_is_asked_for_is_held() {
        let node = json!({
            "metadata": { "name": "n", "labels": { "a": "b" }, "annotations": { "a": "b" } },
            "spec": { "podCIDR": "10.0.0.0/24", "unschedulable": true, "taints": [{ "key": "k", "effect": "NoSchedule" }] },
            "status": {
                "images": [{ "names": ["i"] }], "conditions": [{ "type": "Ready", "status": "True" }],
                "nodeInfo": { "containerRuntimeVersion": "containerd://2.4.2", "bootID": "b" },
                "runtimeHandlers": [
                    { "name": "", "features": { "userNamespaces": true, "recursiveReadOnlyMounts": true } },
                ],
            },
        });
        let node = held::<Node, Nodes>(&node);
        assert_eq!(
            (node.metadata.labels.unwrap().len(), node.metadata.annotations),
            (1, None)
        );
        let spec = node.spec.unwrap();
        assert_eq!(
            (spec.pod_cidr, spec.unschedulable, spec.taints.unwrap().len()),
            (None, Some(true), 1)
        );
        let status = node.status.unwrap();
        assert_eq!((status.images, status.conditions.unwrap().len()), (None, 1));
        let (info, handlers) = (status.node_info.unwrap(), status.runtime_handlers.unwrap());
        let features = handlers[0].features.clone().unwrap();
        assert_eq!(
            (features.user_namespaces, features.recursive_read_only_mounts),
            (Some(true), None)
        );
        assert_eq!(
            (info.container_runtime_version.as_str(), info.boot_id.as_str()),
            ("containerd://2.4.2", "")
        );
        let drivers = held::<CSINode, Drivers>(&json!({
            "metadata": { "name": "n" },
            "spec": { "drivers": [{ "name": "d", "nodeID": "n", "topologyKeys": ["k"] }] },
        }));
        assert_eq!(drivers.spec.drivers[0].name, "d");
        assert_eq!(drivers.spec.drivers[0].topology_keys, None);
        let claim = held::<PersistentVolumeClaim, Claims>(&json!({
            "metadata": { "name": "c", "namespace": "team", "annotations": { "a": "b" } },
            "spec": { "accessModes": ["ReadWriteOncePod"], "volumeName": "v" },
            "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } },
        }));
        assert_eq!(claim.metadata.annotations, None);
        assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Bound"));
        assert_eq!(claim.spec.unwrap().access_modes.unwrap(), ["ReadWriteOncePod"]);
    }
}
