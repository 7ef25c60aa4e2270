/*!
Containers with a device whose hooks the container runtime does not report.

Some of what a hook of a device does has to be repeated for the kept root, and the agent knows the
hooks only from the runtime. Without them the driver might work or not, and nothing would say so.
*/

use kube::Client;

use super::peer::ContainerError;
use crate::instance::{ObjectRef, pod};
use crate::node::Container;

/// Refuses such a container of a pod.
pub(super) async fn require(
    client: &Client,
    pod: &ObjectRef,
    container: &Container,
) -> Result<(), ContainerError> {
    if container.hooks.is_some() {
        return Ok(());
    }
    let device = pod::device_of(client, pod, &container.name).await;
    match device.map_err(anyhow::Error::from)? {
        None => Ok(()),
        Some((device, class)) => Err(ContainerError::UnseenHooks {
            container: container.name.clone(),
            class,
            device,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use testkit::scripted::Scripted;

    use super::*;
    use crate::node::Cri;
    use crate::node::fake::{FakeRuntime, Kind, host_at};

    /// What a consumer with these resources is answered, if the runtime gives this info.
    async fn required(info: &str, resources: Value, asks: bool) -> Result<(), String> {
        let node = tempfile::tempdir().unwrap();
        let socket = "/run/containerd/containerd.sock";
        let runtime = FakeRuntime::serve(node.path(), socket, Kind::Containerd, &[]);
        runtime.change(|known| known.add("c1", info));
        let cri = Cri::new(&host_at(node.path()), None);
        let container = cri.container("c1").await.unwrap();
        let pod = ObjectRef {
            namespace: "ns".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
        };
        let found = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"runtimeClassName": "vendor", "containers": [
                {"name": "other", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                {"name": container.name, "resources": resources},
            ]},
        });
        let (client, mut api) = Scripted::new();
        let answer = async {
            if asks {
                let call = api.expect("GET", "/api/v1/namespaces/ns/pods/web").await;
                call.answer(&found);
            }
        };
        let (required, ()) = tokio::join!(require(&client, &pod, &container), answer);
        required.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn i5_i12_a_device_whose_hooks_are_not_reported_is_refused_by_name() {
        for (resources, device) in [
            (
                json!({"limits": {"cpu": "1", "nvidia.com/gpu": "1"}}),
                "nvidia.com/gpu",
            ),
            (json!({"claims": [{"name": "gpu"}]}), "of claim gpu"),
        ] {
            let refused = required(r#"{"pid":7}"#, resources, true).await.unwrap_err();
            for words in [
                "does not report the hooks of container main (runtime class vendor)",
                &format!("for its device {device} cannot be carried over; use a runtime that reports them"),
                "or remove the device from spec.template",
            ] {
                assert!(refused.contains(words), "{words:?}: {refused}");
            }
        }
    }

    #[tokio::test]
    async fn i5_a_container_without_device_or_with_known_hooks_is_not() {
        let kubernetes = json!({"limits": {"cpu": "1", "hugepages-2Mi": "2Mi", "x.kubernetes.io/y": "1"}});
        assert_eq!(required(r#"{"pid":7}"#, kubernetes, true).await, Ok(()));
        let known = r#"{"pid":7,"runtimeSpec":{"hooks":{}}}"#;
        let device = json!({"limits": {"nvidia.com/gpu": "1"}});
        assert_eq!(required(known, device, false).await, Ok(()));
    }
}
