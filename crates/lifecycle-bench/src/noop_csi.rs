//! A CSI driver that does nothing, on all nodes that take pods: `crates/csi-test`. The kubelet
//! calls it at each start of a pod with its volume, as it calls the product's driver.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode};
use kube::api::{ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::cluster::Cluster;

/// Name of the DaemonSet.
const NAME: &str = "noop-csi";
/// Label of its pods.
const LABEL: &str = "app";
/// Where most kubelets have their directory.
const KUBELET: &str = "/var/lib/kubelet";
/// Argument of the node agent with that directory.
const KUBELET_ARGUMENT: &str = "--kubelet-dir=";
const AGENTS: &str = "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=node-agent";

/// Starts the driver in the namespace of the cluster, and waits until the kubelets know it. Returns
/// the same namespace, whose pods have a volume of the driver. The driver goes with the namespace.
pub(crate) async fn prepare(cluster: &Cluster, image: &str, limit: Duration) -> Result<Cluster> {
    // A driver of its own for each run: what a run left that was killed does no harm.
    let driver = format!("noop.{}", cluster.namespace);
    let owner = cluster.owner().await?;
    let object: CSIDriver = serde_json::from_value(csi_driver(&driver, &owner))?;
    let client = &cluster.client;
    Api::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .context("creating the CSIDriver")?;
    let set = daemon_set(&driver, image, &kubelet_directory(cluster).await?);
    let set: DaemonSet = serde_json::from_value(set)?;
    Api::namespaced(client.clone(), &cluster.namespace)
        .create(&PostParams::default(), &set)
        .await
        .context("creating the DaemonSet of the CSI driver")?;
    let nodes = cluster.nodes_for_pods().await?;
    ensure!(!nodes.is_empty(), "the cluster has no node that takes pods");
    for node in nodes {
        let knows = |node: Option<&CSINode>| {
            node.is_some_and(|node| node.spec.drivers.iter().any(|known| known.name == driver))
        };
        let name = node.name_any();
        let known = await_condition(Api::<CSINode>::all(client.clone()), &name, knows);
        match timeout(limit, known).await {
            Ok(known) => known.map(drop)?,
            Err(_) => anyhow::bail!(
                "the kubelet of node {name} does not know the CSI driver {driver} after {} s: {}",
                limit.as_secs(),
                statuses(cluster).await?
            ),
        }
    }
    Ok(cluster.with_spec(with_volume(cluster.spec(), &driver)))
}

/// As the product's CSIDriver.
fn csi_driver(name: &str, owner: &Value) -> Value {
    json!({
        "metadata": { "name": name, "ownerReferences": [owner] },
        "spec": {
            "attachRequired": false,
            "podInfoOnMount": true,
            "volumeLifecycleModes": ["Ephemeral"],
            "fsGroupPolicy": "None",
        },
    })
}

fn daemon_set(driver: &str, image: &str, kubelet: &str) -> Value {
    let labels = json!({ LABEL: NAME });
    let registry = format!("{kubelet}/plugins_registry");
    json!({
        "metadata": { "name": NAME },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "containers": [{
                        "name": "driver",
                        "image": image,
                        "args": [driver, registry, "$(NODE_NAME)"],
                        "env": [{
                            "name": "NODE_NAME",
                            "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } },
                        }],
                        "securityContext": { "privileged": true, "runAsUser": 0 },
                        "resources": { "requests": { "cpu": "5m", "memory": "8Mi" } },
                        // At the same path as on the node: the kubelet reports paths of the node.
                        "volumeMounts": [{
                            "name": "kubelet", "mountPath": kubelet, "mountPropagation": "HostToContainer",
                        }],
                    }],
                    "volumes": [
                        { "name": "kubelet", "hostPath": { "path": kubelet, "type": "Directory" } },
                    ],
                },
            },
        },
    })
}

/// The spec of a pod whose first container has a volume of the driver.
fn with_volume(spec: &Value, driver: &str) -> Value {
    let mut spec = spec.clone();
    spec["volumes"] = json!([{ "name": "noop", "csi": { "driver": driver } }]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "noop", "mountPath": "/noop" }]);
    spec
}

/// The kubelet's directory, which the node agent has as an argument.
async fn kubelet_directory(cluster: &Cluster) -> Result<String> {
    let agents = Api::<Pod>::all(cluster.client.clone());
    let agents = agents.list(&ListParams::default().labels(AGENTS)).await;
    let agents = agents.context("listing the node agents")?.items;
    let containers = agents.iter().filter_map(|agent| agent.spec.as_ref());
    let arguments = containers
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.args.iter().flatten());
    let mut found = arguments.filter_map(|argument| argument.strip_prefix(KUBELET_ARGUMENT));
    Ok(found.next().unwrap_or(KUBELET).trim_end_matches('/').to_owned())
}

/// The statuses of the driver's containers, for a message.
async fn statuses(cluster: &Cluster) -> Result<String> {
    let params = ListParams::default().labels(&format!("{LABEL}={NAME}"));
    let pods = cluster.pods().list(&params).await?.items;
    let statuses: Vec<_> = pods.into_iter().map(|pod| pod.status).collect();
    Ok(serde_json::to_string(&statuses)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::pod_spec;

    #[test]
    fn the_objects_have_fields_that_exist() {
        let owner = json!({ "apiVersion": "v1", "kind": "Namespace", "name": "a", "uid": "1" });
        let driver = csi_driver("noop.a", &owner);
        let read: CSIDriver = serde_json::from_value(driver.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap()["spec"], driver["spec"]);
        let set = daemon_set("noop.a", "image", "/kubelet");
        let read: DaemonSet = serde_json::from_value(set.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap()["spec"], set["spec"]);
        let pod = json!({ "spec": with_volume(&pod_spec("image", &[]), "noop.a") });
        let read: Pod = serde_json::from_value(pod.clone()).unwrap();
        let read = serde_json::to_value(read).unwrap();
        assert_eq!(read["spec"]["volumes"], pod["spec"]["volumes"]);
        let mounts = |pod: &Value| pod["spec"]["containers"][0]["volumeMounts"].clone();
        assert_eq!(mounts(&read), mounts(&pod));
    }
}
