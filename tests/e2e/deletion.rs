//! Deleting an object leaves nothing, on the node or in the API.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{data_directory, node_of, run, shell_template, stop};

#[tokio::test]
async fn i11_deletion_leaves_nothing_and_the_name_starts_fresh() {
    in_namespace("deletion", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        for stopped_first in [false, true] {
            ns.sh(
                "kept",
                "main",
                "echo secret > /root/file && mkdir -p /a/b/c && ln -s /etc /a/link",
            )
            .await?;
            if stopped_first {
                stop(&ns, "kept").await?;
            }
            delete_and_look(&ns, &node).await?;
            run(&ns, "kept", shell_template()).await?;
            ensure!(
                ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?.code != 0,
                "a new object sees old data"
            );
        }
        node.close().await
    })
    .await;
}

async fn delete_and_look(ns: &Namespace, node: &NodeShell<'_>) -> Result<()> {
    let data = data_directory(ns, "kept").await?;
    ensure!(
        node.sh(&format!("test -d {data} && echo there")).await? == "there",
        "{data} does not exist"
    );
    ns.delete::<StoppableContainer>("kept").await?;
    for pod in ["kept", &provider_pod_name("kept")] {
        ensure!(
            ns.api::<Pod>().get_opt(pod).await?.is_none(),
            "pod {pod} outlived its object"
        );
    }
    let instance = ns.api::<StoppableContainerInstance>().get_opt("kept").await?;
    ensure!(instance.is_none(), "the instance outlived its object");
    ensure!(
        node.sh(&format!("test ! -e {data} && echo gone")).await? == "gone",
        "{data} is still there"
    );
    let uid = data.rsplit('/').next().context("no UID")?;
    let mounts = node.mounts_with(uid).await?;
    ensure!(mounts.is_empty(), "mounts are left:\n{mounts}");
    Ok(())
}
