/*!
The part of a pod that the agent reads: its owner, its node, and the container that mounts our
volume, with its image. A pod may be as large as etcd allows, and every user who may create pods can
put our volume into one. So the agent reads nothing else of a pod (invariant I18).
*/

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Api, Client, ResourceExt};
use stoppablecontainer_api::json::Keep;
use stoppablecontainer_api::names::{ANNOTATION_IMAGE_ID, CSI_DRIVER};
use stoppablecontainer_api::trimmed::{METADATA, Selection, Trimmed};
use stoppablecontainer_api::{StoppableContainerInstance, controller_of};

use super::ObjectRef;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The `imagePullPolicy` by which the kubelet asks the registry what the name means.
const PULL_ALWAYS: &str = "Always";

/// Why a pod cannot have a volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// A later try may succeed.
    #[error("cannot ask the API server for pod {pod}: {cause}")]
    Unavailable { pod: ObjectRef, cause: String },
    #[error("pod {0} does not exist")]
    Missing(ObjectRef),
    #[error("pod {pod} has UID {found}, the volume is for {}", .pod.uid)]
    OtherUid { pod: ObjectRef, found: String },
    #[error("pod {pod} is on node {found}, not on {node}")]
    OtherNode {
        pod: ObjectRef,
        found: String,
        node: String,
    },
    #[error(
        "pod {0} is not controlled by a StoppableContainerInstance; only pods of a StoppableContainerInstance can \
         have the volume"
    )]
    OtherOwner(ObjectRef),
    #[error(
        "the volume of driver {CSI_DRIVER} in pod {0} must be mounted by exactly one of its containers and by no \
         init container"
    )]
    NotMountedByOne(ObjectRef),
}

/// The fields that the agent reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place;

/// Most entries of a list that are read. The agent does not find entries behind them and refuses
/// the pod.
const ENTRIES: usize = 2_048;

const CONTAINERS: Keep = Keep::First(
    ENTRIES,
    &Keep::Fields(&[
        ("image", Keep::All),
        ("imagePullPolicy", Keep::All),
        ("name", Keep::All),
        (
            "volumeMounts",
            Keep::First(
                ENTRIES,
                &Keep::Fields(&[("mountPath", Keep::All), ("name", Keep::All)]),
            ),
        ),
    ]),
);

impl Selection for Place {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", METADATA),
        (
            "spec",
            Keep::Fields(&[
                ("containers", CONTAINERS),
                ("initContainers", CONTAINERS),
                ("nodeName", Keep::All),
                (
                    "volumes",
                    Keep::First(
                        ENTRIES,
                        &Keep::Fields(&[
                            ("csi", Keep::Fields(&[("driver", Keep::All)])),
                            ("name", Keep::All),
                        ]),
                    ),
                ),
            ]),
        ),
    ]);
}

/// The pod of this name, if there is one. It may have another UID.
pub(crate) async fn get(client: &Client, pod: &ObjectRef) -> Result<Option<Pod>, PodError> {
    get_fields::<Place>(client, pod).await
}

async fn get_fields<F: Selection>(client: &Client, pod: &ObjectRef) -> Result<Option<Pod>, PodError> {
    let unavailable = |error: &dyn std::fmt::Display| PodError::Unavailable {
        pod: pod.clone(),
        cause: error.to_string(),
    };
    let api: Api<Trimmed<Pod, F>> = Api::namespaced(client.clone(), &pod.namespace);
    let asked = tokio::time::timeout(TIMEOUT, api.get_opt(&pod.name)).await;
    let found = asked.map_err(|e| unavailable(&e))?.map_err(|e| unavailable(&e))?;
    let found = found.map(Trimmed::into_object).transpose();
    found.map_err(|e| unavailable(&kube::Error::Service(Box::new(e))))
}

/// A pod of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedPod {
    /// The instance that controls it.
    pub(crate) owner: ObjectRef,
    /// Its one container that mounts our volume.
    pub(crate) container: String,
    /// The image of that container, if the kubelet starts it from the image that the node has.
    pub(crate) local_image: Option<String>,
    /// See [`ANNOTATION_IMAGE_ID`].
    pub(crate) image_id: Option<String>,
}

/// The pod of an instance that has the UID of `pod` and is on `node`.
pub(crate) async fn owned(client: &Client, pod: &ObjectRef, node: &str) -> Result<OwnedPod, PodError> {
    let found = get(client, pod)
        .await?
        .ok_or_else(|| PodError::Missing(pod.clone()))?;
    let container = container_of(&found, pod)?;
    Ok(OwnedPod {
        owner: owner_of(&found, pod, node)?,
        container: container.name.clone(),
        local_image: container
            .image
            .clone()
            .filter(|_| container.image_pull_policy.as_deref() != Some(PULL_ALWAYS)),
        image_id: found.annotations().get(ANNOTATION_IMAGE_ID).cloned(),
    })
}

/// The fields that tell whether a container has a device.
#[derive(Clone, Copy, Debug)]
struct Devices;

impl Selection for Devices {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", Keep::Fields(&[("name", Keep::All)])),
        (
            "spec",
            Keep::Fields(&[
                (
                    "containers",
                    Keep::First(
                        ENTRIES,
                        &Keep::Fields(&[
                            ("name", Keep::All),
                            (
                                "resources",
                                Keep::Fields(&[
                                    ("claims", Keep::First(1, &Keep::All)),
                                    ("limits", Keep::All),
                                ]),
                            ),
                        ]),
                    ),
                ),
                ("runtimeClassName", Keep::All),
            ]),
        ),
    ]);
}

/// A device of a container, by the name of its resource or claim, and the runtime class of the pod.
pub(crate) async fn device_of(
    client: &Client,
    pod: &ObjectRef,
    container: &str,
) -> Result<Option<(String, Option<String>)>, PodError> {
    let found = get_fields::<Devices>(client, pod).await?;
    let spec = found.and_then(|pod| pod.spec).unwrap_or_default();
    let mut containers = spec.containers.iter();
    let device = containers
        .find(|found| found.name == container)
        .and_then(device_in);
    Ok(device.map(|device| (device, spec.runtime_class_name)))
}

/// Kubernetes' own resources have no domain, or one of kubernetes.io.
fn device_in(container: &Container) -> Option<String> {
    let resources = container.resources.as_ref()?;
    let of_kubernetes = |name: &str| {
        let domain = name.split_once('/').map(|(domain, _)| domain);
        domain.is_none_or(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
    };
    let limits = resources.limits.iter().flatten().map(|(name, _)| name.clone());
    let claims = resources.claims.iter().flatten();
    let claims = claims.map(|claim| format!("of claim {}", claim.name));
    claims.chain(limits.filter(|name| !of_kubernetes(name))).next()
}

/// The one container that mounts a volume of ours. What a pod's containers mount never changes,
/// unlike a template or an annotation. (Ephemeral containers come later; they are not among these.)
fn container_of<'a>(found: &'a Pod, pod: &ObjectRef) -> Result<&'a Container, PodError> {
    let spec = found.spec.as_ref();
    let ours = |name: &str| {
        let mut volumes = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
        volumes.any(|volume| {
            volume.name == name && volume.csi.as_ref().is_some_and(|csi| csi.driver == CSI_DRIVER)
        })
    };
    let mounts = |container: &&Container| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| ours(&mount.name))
    };
    let init = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let main: Vec<_> = main.iter().filter(mounts).collect();
    match main[..] {
        [only] if !init.into_iter().any(|container| mounts(&container)) => Ok(only),
        _ => Err(PodError::NotMountedByOne(pod.clone())),
    }
}

/// The instance that controls a pod.
fn owner_of(found: &Pod, pod: &ObjectRef, node: &str) -> Result<ObjectRef, PodError> {
    let uid = found.metadata.uid.as_deref().unwrap_or_default();
    if uid != pod.uid {
        return Err(PodError::OtherUid {
            pod: pod.clone(),
            found: uid.to_owned(),
        });
    }
    let on = found.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if on != Some(node) {
        return Err(PodError::OtherNode {
            pod: pod.clone(),
            found: on.unwrap_or("none").to_owned(),
            node: node.to_owned(),
        });
    }
    let owner = controller_of::<StoppableContainerInstance>(found);
    let Some(owner) = owner else {
        return Err(PodError::OtherOwner(pod.clone()));
    };
    Ok(ObjectRef {
        namespace: pod.namespace.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn i18_of_a_pod_little_is_read_and_of_its_lists_no_more_than_some() {
        let volumes = vec![json!({ "name": "v" }); 31_000];
        let pod = json!({
            "metadata": {
                "name": "web", "namespace": "ns", "uid": "u1", "annotations": { "big": "x".repeat(9_000) },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "o1", "controller": true }],
            },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c" }], "volumes": volumes },
        });
        let held: Trimmed<Pod, Place> = serde_json::from_str(&pod.to_string()).unwrap();
        let pod = held.into_object().unwrap();
        assert_eq!(pod.metadata.owner_references.unwrap().len(), 1);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.volumes.map(|volumes| volumes.len()), Some(ENTRIES));
    }

    fn pod() -> ObjectRef {
        ObjectRef {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u1".into(),
        }
    }

    fn check(change: impl FnOnce(&mut Value)) -> Result<ObjectRef, String> {
        let mut found = json!({
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1", "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "StoppableContainerInstance", "name": "x", "uid": "o0" },
                { "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                  "name": "web", "uid": "o1", "controller": true },
            ]},
            "spec": { "nodeName": "node1", "containers": [] },
        });
        change(&mut found);
        owner_of(&serde_json::from_value(found).unwrap(), &pod(), "node1").map_err(|e| e.to_string())
    }

    #[test]
    fn the_controller_of_the_pod_is_the_instance() {
        let owner = check(|_| {}).unwrap();
        assert_eq!(
            owner,
            ObjectRef {
                namespace: "ns".into(),
                name: "web".into(),
                uid: "o1".into()
            }
        );
    }

    #[test]
    fn i8_anything_else_is_refused() {
        assert!(
            check(|p| p["metadata"]["uid"] = json!("u2"))
                .unwrap_err()
                .contains("UID u2")
        );
        assert!(
            check(|p| p["spec"]["nodeName"] = json!("node2"))
                .unwrap_err()
                .contains("node2")
        );
        assert!(check(|p| p["spec"]["nodeName"] = Value::Null).is_err());
        assert!(check(|p| p["metadata"]["ownerReferences"] = json!([])).is_err());
        let owner = |p: &mut Value, key: &str, value: Value| p["metadata"]["ownerReferences"][1][key] = value;
        assert!(check(|p| owner(p, "controller", json!(false))).is_err());
        assert!(check(|p| owner(p, "apiVersion", json!("evil.example/v1"))).is_err());
        assert!(check(|p| owner(p, "apiVersion", json!("v1"))).is_err());
        assert!(check(|p| owner(p, "kind", json!("StoppableContainer"))).is_err());
        // Labels and annotations say nothing.
        let claim = json!({"stoppablecontainer.xtlsoft.top/instance": "web", "stoppablecontainer.xtlsoft.top/role": "consumer"});
        assert!(
            check(|p| {
                p["metadata"]["labels"] = claim;
                p["metadata"]["ownerReferences"] = json!([]);
            })
            .is_err()
        );
    }

    /// By what its containers mount: neither their order nor a name in the template, which its user
    /// may edit meanwhile.
    #[test]
    fn i3_i8_the_main_container_is_the_one_that_mounts_the_volume() {
        let found = |containers: Value, init: Value, driver: &str| {
            let found = json!({
                "metadata": { "name": "web" },
                "spec": {
                    "containers": containers, "initContainers": init,
                    "volumes": [{ "name": "data" }, { "name": "v", "csi": { "driver": driver } }],
                },
            });
            let found = serde_json::from_value(found).unwrap();
            let container = container_of(&found, &pod()).map(|container| container.name.clone());
            container.map_err(|e| e.to_string())
        };
        let container = |name: &str, volume: &str| json!({ "name": name, "volumeMounts": [{ "name": volume, "mountPath": "/x" }] });
        let (side, main) = (container("side", "data"), container("main", "v"));
        assert_eq!(
            found(json!([side, main]), json!([side]), CSI_DRIVER),
            Ok("main".to_owned())
        );
        for (containers, init, driver) in [
            (json!([side]), json!([]), CSI_DRIVER),
            (json!([main, container("other", "v")]), json!([]), CSI_DRIVER),
            (json!([side, main]), json!([container("first", "v")]), CSI_DRIVER),
            (json!([side, main]), json!([]), "csi.example.org"),
        ] {
            let refused = found(containers, init, driver).unwrap_err();
            assert!(
                refused.contains("ns/web") && refused.contains(CSI_DRIVER),
                "{refused}"
            );
        }
    }
}
