/*!
Which pods may have a volume.

The agent compares the pod of the request (name, namespace, UID) with the API server's pod, and that
pod's UID with the provider or consumer in the instance's status. Labels, annotations and other
volume attributes decide nothing.
*/

use std::path::PathBuf;
use std::time::Duration;

use stoppablecontainer_api::StoppableContainerInstance;

use super::CsiError;
use crate::filesystem::Filesystems;
use crate::instance::ObjectRef;
use crate::instance::pod::{self, OwnedPod};
use crate::volumes::Role;

/// How long the instance's status may lag behind its pods. The kubelet tries again after a refusal,
/// so this only has to be long enough for the usual case.
const LAG: Duration = Duration::from_secs(10);
/// How long a placeholder's call is left open. Shorter than the kubelet's own time limit for CSI
/// calls (2 minutes, `csiTimeout` in its `pkg/volume/csi`), which it would report as a failure of
/// the agent.
const PLACEHOLDER: Duration = Duration::from_secs(100);

/// A pod that may have a volume.
#[derive(Clone, Debug)]
pub(super) struct Authorized {
    pub(super) pod: OwnedPod,
    pub(super) role: Role,
    pub(super) prefix: PathBuf,
}

/// Decides whether a pod may have a volume, and which instance's.
pub(super) async fn authorize(filesystems: &Filesystems, pod: &ObjectRef) -> Result<Authorized, CsiError> {
    let node = &filesystems.node.name;
    let found = pod::owned(&filesystems.client, pod, node).await?;
    let owner = &found.owner;
    let recorded = filesystems
        .instances
        .wait_for(&owner.uid, LAG, |object| {
            role_of(object, pod).is_some() || is_placeholder(object, pod)
        })
        .await;
    let object = recorded.map_err(|object| match object {
        None => CsiError::UnknownInstance {
            owner: Box::new(owner.clone()),
            pod: pod.clone(),
            node: node.clone(),
        },
        Some(_) => CsiError::NotRecorded {
            owner: Box::new(owner.clone()),
            pod: pod.clone(),
        },
    })?;
    if is_placeholder(&object, pod) {
        // A refusal would be an event of the pod, and be repeated; the placeholder usually goes
        // within seconds.
        let gone = filesystems
            .instances
            .wait_for(&owner.uid, PLACEHOLDER, |object| !is_placeholder(object, pod));
        drop(gone.await);
        return Err(CsiError::Placeholder(pod.clone()));
    }
    let role = role_of(&object, pod).ok_or(CsiError::InstanceChanged)?;
    // A user may have written the owner reference. Its UID is compared above; names are the
    // object's own.
    if ObjectRef::of(&object).as_ref() != Some(owner) {
        return Err(CsiError::OwnerName {
            owner: Box::new(owner.clone()),
            pod: pod.clone(),
        });
    }
    Ok(Authorized {
        role,
        prefix: object.spec.host_path_prefix.clone().into(),
        pod: found,
    })
}

/// Whether a pod holds room for the instance's consumer. Such a pod never starts.
fn is_placeholder(object: &StoppableContainerInstance, pod: &ObjectRef) -> bool {
    let status = object.status.as_ref();
    status.and_then(|status| status.placeholder_pod_uid.as_deref()) == Some(pod.uid.as_str())
}

/// The role of a pod, by the instance's status.
fn role_of(object: &StoppableContainerInstance, pod: &ObjectRef) -> Option<Role> {
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

    fn pod() -> ObjectRef {
        ObjectRef {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u1".into(),
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
