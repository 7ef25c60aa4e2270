//! Claims that bind a pod to a node or exclude other pods: the placeholder makes them, and hands
//! them over to the consumer.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use testkit::{Namespace, alone_in_namespace, in_namespace};

use crate::support::{
    blocked_saying, cleaned_up, create, node_of, nodes, run, running, set_running, shell_template, start,
    stop,
};

/// The scheduler lets only one pod have such a claim: first the placeholder, then the consumer, and
/// others while the object is stopped.
#[tokio::test]
async fn a_claim_for_one_pod_is_free_while_its_object_is_stopped() {
    in_namespace("one-pod", async |ns| {
        let volume = json!({
            "metadata": { "name": ns.name }, "spec": {
                "accessModes": ["ReadWriteOncePod"], "capacity": { "storage": "1Gi" }, "storageClassName": "",
                "claimRef": { "name": "data", "namespace": ns.name },
                "hostPath": { "path": "/tmp", "type": "Directory" },
            },
        });
        let volumes = ns.cluster_api::<PersistentVolume>();
        volumes
            .create(&PostParams::default(), &serde_json::from_value(volume)?)
            .await?;
        let tested = one_pod(&ns).await;
        let removed = volumes.delete(&ns.name, &DeleteParams::default()).await;
        cleaned_up(tested, removed.map(drop).map_err(Into::into))
    })
    .await;
}

async fn one_pod(ns: &Namespace) -> Result<()> {
    let claim = json!({
        "metadata": { "name": "data" }, "spec": {
            "accessModes": ["ReadWriteOncePod"], "storageClassName": "", "volumeName": ns.name,
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    ns.create_json::<PersistentVolumeClaim>(claim).await?;
    let mut template = shell_template();
    template["spec"]["volumes"] =
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    template["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    run(ns, "ours", template.clone()).await?;
    stop(ns, "ours").await?;
    let mut plain = template;
    plain["metadata"]["name"] = json!("plain");
    ns.create_json::<Pod>(plain).await?;
    ns.pod_ready("plain").await?;
    set_running(ns, "ours", true).await?;
    let in_use = "already in-use by another pod";
    blocked_saying(ns, "ours", CONSUMER_READY, reason::UNSCHEDULABLE, in_use).await?;
    ns.delete::<Pod>("plain").await?;
    running(ns, "ours").await?;
    stop(ns, "ours").await?;
    start(ns, "ours").await.map(drop)
}

/// Dynamic Resource Allocation: one node has the only device of a class. The device is free again
/// when the placeholder's own claim is gone. No driver prepares it, so the consumer does not run.
#[tokio::test]
async fn the_first_node_is_the_one_with_the_claimed_device() {
    alone_in_namespace("resource-claim", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let node = all.last().context("no node")?;
        let devices = devices(&ns.name, node).to_string();
        ns.kubectl_with_input(&["apply", "-f", "-"], &devices)
            .await?
            .success()?;
        let tested = claimed(&ns, node).await;
        let removed = ns.kubectl_with_input(&["delete", "-f", "-"], &devices).await;
        cleaned_up(tested, removed.and_then(|output| output.success().map(drop)))
    })
    .await;
}

/// A class of devices with this name, of which `node` has one, and a template for claims to it.
fn devices(name: &str, node: &str) -> Value {
    let api = "resource.k8s.io/v1";
    let requests = json!([{ "name": "device", "exactly": { "deviceClassName": name } }]);
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": api, "kind": "DeviceClass", "metadata": { "name": name },
            "spec": { "selectors": [{ "cel": { "expression": format!("device.driver == \"{name}.example.com\"") } }] },
        },
        {
            "apiVersion": api, "kind": "ResourceSlice", "metadata": { "name": name },
            "spec": {
                "driver": format!("{name}.example.com"), "nodeName": node, "devices": [{ "name": "one" }],
                "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
            },
        },
        {
            "apiVersion": api, "kind": "ResourceClaimTemplate", "metadata": { "name": "device", "namespace": name },
            "spec": { "spec": { "devices": { "requests": requests } } },
        },
    ] })
}

async fn claimed(ns: &Namespace, node: &str) -> Result<()> {
    let mut template = shell_template();
    template["spec"]["resourceClaims"] = json!([{ "name": "device", "resourceClaimTemplateName": "device" }]);
    template["spec"]["containers"][0]["resources"] = json!({ "claims": [{ "name": "device" }] });
    create(ns, "ours", true, template).await?;
    let bound = |pod: &Pod| node_of(pod).is_ok();
    let consumer = ns.wait("ours", "it has a node", bound).await?;
    ensure!(node_of(&consumer)? == *node, "it is on {}", node_of(&consumer)?);
    let object = ns.api::<StoppableContainer>().get("ours").await?;
    let given_up = object.status.and_then(|status| status.given_up_nodes);
    ensure!(given_up.is_none(), "{given_up:?}");
    ns.delete::<StoppableContainer>("ours").await
}
