/*!
Who may have a volume.

What the kubelet says of a pod (name, namespace, UID) is compared with the API
server's pod, and that pod's UID with what the instance's status records as its
provider or consumer. Labels, annotations and volume attributes say nothing.
*/

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::{CSI_DRIVER, GROUP};
use tonic::Status;

use crate::agent::Agent;
use crate::instance::pod;
use crate::instance::state::id_of;
use crate::volumes::record::{Object, Record, Role};

/// How long the instance's status may lag behind its pods. The kubelet tries again after a refusal, so this only
/// has to be long enough for the usual case.
const LAG: Duration = Duration::from_secs(10);

/// A pod that may have a volume.
#[derive(Clone, Debug)]
pub(crate) struct Authorised {
    pub(crate) instance: Object,
    pub(crate) role: Role,
    pub(crate) prefix: PathBuf,
    /// The container that the volume is for.
    pub(crate) container: String,
}

/// Decides whether a pod may have a volume, and which instance's.
pub(crate) async fn authorise(agent: &Agent, pod: &Object) -> Result<Authorised, Status> {
    let found = find(agent, pod).await?;
    let owner = owner_of(&found, pod, &agent.node_name).map_err(Status::permission_denied)?;
    let container = container_of(&found, pod).map_err(Status::permission_denied)?;
    let recorded = agent
        .instances
        .wait_for(&owner.uid, LAG, |object| role_of(object, pod).is_some())
        .await;
    let object = recorded.map_err(|object| {
        Status::permission_denied(match object {
            None => format!(
                "StoppableContainerInstance {owner} (UID {}), which owns pod {pod}, is not an instance of node {}",
                owner.uid, agent.node_name
            ),
            Some(_) => format!(
                "pod {pod} (UID {}) is neither the provider nor the consumer that StoppableContainerInstance {owner} \
                 records in its status",
                pod.uid
            ),
        })
    })?;
    let Some(role) = role_of(&object, pod) else {
        return Err(Status::internal("the instance changed while it was read"));
    };
    // A user may have written the owner reference. Its UID is compared above; names are the object's own.
    let instance = id_of(&object).filter(|id| *id == owner).ok_or_else(|| {
        Status::permission_denied(format!(
            "pod {pod} names its owner {owner}, which is called otherwise"
        ))
    })?;
    Ok(Authorised {
        instance,
        role,
        prefix: object.spec.host_path_prefix.clone().into(),
        container,
    })
}

/// The container of a pod that the volume is for, of a record that does not say.
pub(crate) async fn main_container(agent: &Agent, record: &Record) -> Result<String, Status> {
    if let Some(container) = &record.container {
        return Ok(container.clone());
    }
    let found = find(agent, &record.pod).await?;
    owner_of(&found, &record.pod, &agent.node_name).map_err(Status::permission_denied)?;
    container_of(&found, &record.pod).map_err(Status::permission_denied)
}

async fn find(agent: &Agent, pod: &Object) -> Result<Pod, Status> {
    let asked = pod::get(&agent.client, &pod.namespace, &pod.name);
    let asked = tokio::time::timeout(LAG, asked).await;
    let unavailable = |error: &dyn std::fmt::Display| {
        Status::unavailable(format!("cannot ask the API server for pod {pod}: {error}"))
    };
    let found = asked.map_err(|e| unavailable(&e))?.map_err(|e| unavailable(&e))?;
    found.ok_or_else(|| Status::permission_denied(format!("pod {pod} does not exist")))
}

/// The one container that mounts a volume of ours. What a pod's containers mount never changes, unlike a template or an
/// annotation. (Ephemeral containers come later; they are not among these.)
fn container_of(found: &Pod, pod: &Object) -> Result<String, String> {
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
        [only] if !init.into_iter().any(|container| mounts(&container)) => Ok(only.name.clone()),
        _ => Err(format!(
            "the volume of driver {CSI_DRIVER} in pod {pod} must be mounted by one of its containers, and by no other"
        )),
    }
}

/// The instance that controls a pod. The message of the error is for the pod's events.
fn owner_of(found: &Pod, pod: &Object, node: &str) -> Result<Object, String> {
    let uid = found.metadata.uid.as_deref().unwrap_or_default();
    if uid != pod.uid {
        return Err(format!("pod {pod} has UID {uid}, the volume is for {}", pod.uid));
    }
    let on = found.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if on != Some(node) {
        return Err(format!(
            "pod {pod} is on node {}, not on {node}",
            on.unwrap_or("none")
        ));
    }
    let owners = found.metadata.owner_references.iter().flatten();
    let ours = |api_version: &str| {
        api_version
            .split_once('/')
            .is_some_and(|(group, _)| group == GROUP)
    };
    let owner = owners
        .filter(|owner| owner.controller == Some(true))
        .find(|owner| owner.kind == "StoppableContainerInstance" && ours(&owner.api_version));
    let Some(owner) = owner else {
        return Err(format!(
            "pod {pod} is not controlled by a StoppableContainerInstance; the volume is for those alone"
        ));
    };
    Ok(Object {
        namespace: pod.namespace.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

/// What a pod is to an instance, by the instance's status.
fn role_of(object: &StoppableContainerInstance, pod: &Object) -> Option<Role> {
    let status = object.status.as_ref()?;
    let is = |uid: &Option<String>| uid.as_deref() == Some(pod.uid.as_str());
    if is(&status.provider_pod_uid) {
        Some(Role::Provider)
    } else if is(&status.consumer_pod_uid) {
        Some(Role::Consumer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Object {
        Object {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u1".into(),
        }
    }

    fn check(change: impl FnOnce(&mut Value)) -> Result<Object, String> {
        let mut found = json!({
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1", "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "StoppableContainerInstance", "name": "x", "uid": "o0" },
                { "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                  "name": "web", "uid": "o1", "controller": true },
            ]},
            "spec": { "nodeName": "node1", "containers": [] },
        });
        change(&mut found);
        owner_of(&serde_json::from_value(found).unwrap(), &pod(), "node1")
    }

    #[test]
    fn the_controller_of_the_pod_is_the_instance() {
        let owner = check(|_| {}).unwrap();
        assert_eq!(
            owner,
            Object {
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

    /// By what its containers mount: neither their order nor a name in the template, which its user may edit meanwhile.
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
            container_of(&serde_json::from_value(found).unwrap(), &pod())
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

    #[test]
    fn i8_only_the_recorded_pods_have_a_role() {
        let object = |status: Value| {
            let object = json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "metadata": { "name": "web" },
                "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
                "status": status,
            });
            serde_json::from_value::<StoppableContainerInstance>(object).unwrap()
        };
        assert_eq!(role_of(&object(json!({})), &pod()), None);
        assert_eq!(
            role_of(&object(json!({"providerPodUid": "u1"})), &pod()),
            Some(Role::Provider)
        );
        assert_eq!(
            role_of(
                &object(json!({"providerPodUid": "u0", "consumerPodUid": "u1"})),
                &pod()
            ),
            Some(Role::Consumer)
        );
        assert_eq!(role_of(&object(json!({"consumerPodUid": "u2"})), &pod()), None);
    }
}
