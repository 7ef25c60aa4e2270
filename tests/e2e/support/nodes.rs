//! A cluster of several nodes: how many there are, what they have, and nodes that come and go.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::names::CSI_DRIVER;
use testkit::{Namespace, cluster_command, patience};

use crate::support::cleaned_up;

/// A device that no plugin brings.
pub(crate) const GPU: &str = "example.com/gpu";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Waits until at least `count` nodes can run containers of ours, adding what is missing, and
/// returns the names of all, sorted.
pub(crate) async fn at_least(ns: &Namespace, count: usize) -> Result<Vec<String>> {
    let there = names(ns).await?;
    if there.len() < count {
        let what = "the command that brings the cluster up with as many nodes as its last argument says";
        cluster_command("E2E_NODES_COMMAND", what, &[&count.to_string()]).await?;
    }
    let there = names(ns).await?;
    ensure!(
        there.len() >= count,
        "the cluster has {there:?}, and {count} nodes are needed"
    );
    for name in &there {
        agent_registered(ns, name).await?;
    }
    Ok(there)
}

/// Takes a node away for good, with its disk.
pub(crate) async fn remove(node: &str) -> Result<()> {
    let what = "the command that takes the node in its last argument away for good";
    cluster_command("E2E_REMOVE_NODE_COMMAND", what, &[node])
        .await
        .map(drop)
}

/// Takes a node away for good, and adds a machine with this name and its disk of kept filesystems.
pub(crate) async fn replace(ns: &Namespace, node: &str, by: &str) -> Result<()> {
    let what = "the command that replaces the node in its first argument by one with the name in its second, which has \
                the disk of its kept filesystems";
    cluster_command("E2E_REPLACE_NODE_COMMAND", what, &[node, by]).await?;
    agent_registered(ns, by).await
}

/// Cordons a node and evicts its pods, as `kubectl drain` does without force.
pub(crate) async fn drain(ns: &Namespace, node: &str) -> Result<()> {
    let args = [
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ];
    // Other tests' pods are not this test's to evict, and neither are those of the product.
    let pods = format!("--pod-selector={}", "stoppablecontainer.xtlsoft.top/managed-by");
    let args = [&args[..], &[&pods]].concat();
    ns.kubectl(&args).await?.success().map(drop)
}

/// Lets pods onto a node again.
pub(crate) async fn uncordon(ns: &Namespace, node: &str) -> Result<()> {
    ns.kubectl(&["uncordon", node]).await?.success().map(drop)
}

/// Gives a node devices for as long as `test` runs.
pub(crate) async fn with_devices<T>(
    ns: &Namespace,
    node: &str,
    count: u32,
    test: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    set_devices(ns, node, count).await?;
    let tested = test().await;
    cleaned_up(tested, set_devices(ns, node, 0).await)
}

async fn set_devices(ns: &Namespace, node: &str, count: u32) -> Result<()> {
    let status = json!({ "status": { "capacity": { GPU: count.to_string() } } });
    ns.cluster_api::<Node>()
        .patch_status(node, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    devices_are(ns, node, GPU, count).await
}

/// Waits until the kubelet has taken the number of a device over into what pods may use: the
/// scheduler goes by that, also when the next test begins.
pub(crate) async fn devices_are(ns: &Namespace, node: &str, device: &str, count: u32) -> Result<()> {
    let may_use = |found: &Node| {
        let amounts = found
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        let amount = amounts.and_then(|amounts| amounts.get(device));
        amount.map_or("0", |amount| &amount.0) == count.to_string()
    };
    until(ns.cluster_api(), node, may_use)
        .await
        .with_context(|| format!("{node} does not have {count} {device}"))
}

/// Nodes by zone.
pub(crate) async fn zones(ns: &Namespace) -> Result<BTreeMap<String, Vec<String>>> {
    let mut zones = BTreeMap::<_, Vec<_>>::new();
    for node in ns.cluster_api::<Node>().list(&ListParams::default()).await? {
        if let Some(zone) = node.labels().get(ZONE) {
            zones.entry(zone.clone()).or_default().push(node.name_any());
        }
    }
    Ok(zones)
}

/// The node of each pod of the namespace whose name `wanted` accepts.
pub(crate) async fn nodes_of(
    ns: &Namespace,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>> {
    let pods = ns.api::<Pod>().list(&ListParams::default()).await?;
    let pods = pods.into_iter().filter(|pod| wanted(&pod.name_any()));
    let bound = pods.filter_map(|pod| Some((pod.name_any(), pod.spec?.node_name?)));
    Ok(bound.collect())
}

async fn names(ns: &Namespace) -> Result<Vec<String>> {
    let nodes = ns.cluster_api::<Node>().list(&ListParams::default()).await?;
    let mut names: Vec<_> = nodes.iter().map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

async fn agent_registered(ns: &Namespace, node: &str) -> Result<()> {
    let ours = |found: &CSINode| found.spec.drivers.iter().any(|driver| driver.name == CSI_DRIVER);
    until(ns.cluster_api::<CSINode>(), node, ours).await
}

/// Watches an object of the cluster until it is as wanted.
async fn until<K>(api: Api<K>, name: &str, wanted: impl Fn(&K) -> bool) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    let seen = async {
        while let Some(found) = watch.next().await {
            if found.as_ref().is_ok_and(&wanted) {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(patience(std::time::Duration::from_mins(2)), seen).await?
}
