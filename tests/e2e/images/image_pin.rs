//! I20: the image's layers stay on the node while a consumer uses them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::support::{cleaned_up, node_of, run, running, shell_template, start, stop};

/// An image that does not share layers with other images on the node.
const IMAGE: &str = "docker.io/test/named-user:1";
/// A file of the image that is not read before, because the template has its own command.
const FILE: &str = "/usr/local/bin/wait-for-signal";
const NAME: &str = "pinned";

/// The node's disk is full: the kubelet evicts the provider and removes its image. Without the
/// lease, the layers would be removed although a consumer uses them.
#[tokio::test]
async fn i20_the_layers_stay_when_provider_and_image_go() {
    alone_in_namespace("image-pin", async |ns, _alone| {
        let mut template = shell_template();
        template["spec"]["containers"][0]["image"] = json!(IMAGE);
        let pod = run(&ns, NAME, template).await?;
        let node_name = node_of(&pod)?;
        let node = NodeShell::on(&ns, &node_name).await?;
        cordon(&ns, &node_name, true).await?;
        let tested = without_image(&ns, &node).await;
        cleaned_up(tested, cordon(&ns, &node_name, false).await)?;
        // The provider is running again, with the image.
        running(&ns, NAME).await?;
        ns.pod_ready(&provider_pod_name(NAME)).await?;
        stop(&ns, NAME).await?;
        start(&ns, NAME).await?;
        node.close().await
    })
    .await;
}

async fn without_image(ns: &Namespace, node: &NodeShell<'_>) -> Result<()> {
    let provider = ns.api::<Pod>().get(&provider_pod_name(NAME)).await?;
    let statuses = provider
        .status
        .context("a pod without status")?
        .container_statuses;
    let id = statuses
        .unwrap_or_default()
        .into_iter()
        .find_map(|c| c.container_id);
    let id = id.context("a provider without container")?;
    let id = id.rsplit('/').next().unwrap_or_default().to_owned();
    ns.api::<Pod>()
        .delete(&provider_pod_name(NAME), &DeleteParams::default())
        .await?;
    let ctr = std::env::var("E2E_CTR").unwrap_or_else(|_| "ctr".to_owned());
    // Like the kubelet's garbage collection: removes all names of the image when no container uses
    // it.
    node.sh(&format!(
        "ctr() {{ {ctr} --namespace k8s.io \"$@\"; }}
         for try in $(seq 600); do ctr containers info {id} >/dev/null 2>&1 || break; sleep 0.1; done
         ! ctr containers info {id} >/dev/null 2>&1
         digest=$(ctr images ls name=={IMAGE} | awk 'NR == 2 {{ print $3 }}')
         test -n \"$digest\"
         ctr images rm --sync $(ctr images ls -q target.digest==$digest)
         test -z \"$(ctr images ls -q target.digest==$digest)\""
    ))
    .await?;
    let read = ns.sh(NAME, "main", &format!("cat {FILE}")).await?;
    ensure!(read.contains("trap"), "of the image: {read:?}");
    Ok(())
}

async fn cordon(ns: &Namespace, node: &str, unschedulable: bool) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "unschedulable": unschedulable } }));
    Api::<Node>::all(ns.client.clone())
        .patch(node, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}
