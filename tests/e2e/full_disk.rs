//! F22: the disk of some kept filesystems is full. Their owners are told; everybody else goes on.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::FILESYSTEM_READY;
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{blocked, node_of, run, running, shell_template, start, stop, told};

/// Who fills the disk is told by its own writes and can make room; a new one there waits with the reason; neighbours on
/// another disk do not notice; and with room again everything goes on by itself.
#[tokio::test]
async fn f22_a_full_disk_is_the_affair_of_those_on_it() {
    in_namespace("full-disk", async |ns| {
        let prefix = std::env::var("E2E_DISK").context(
            "E2E_DISK is not set: a directory of the nodes that spec.hostPathPrefix may name (`cargo xtask test` sets \
             it on the embedded cluster)",
        )?;
        let neighbour = run(&ns, "neighbour", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&neighbour)?).await?;
        node.sh(&format!(
            "mkdir -p {prefix}; truncate -s 64M {prefix}.image; mkfs.ext4 -q -F -m 0 {prefix}.image
             mount -o loop {prefix}.image {prefix}; chmod 0700 {prefix}"
        ))
        .await?;
        let tested = on_the_disk(&ns, &prefix).await;
        for name in ["full", "late"] {
            if ns.api::<StoppableContainer>().get_opt(name).await?.is_some() {
                ns.delete::<StoppableContainer>(name).await?;
            }
        }
        node.sh(&format!("umount {prefix}; rmdir {prefix}; rm {prefix}.image")).await?;
        tested?;
        let restarts = |pod: &Pod| {
            let status = pod.status.clone().unwrap_or_default();
            status.container_statuses.iter().flatten().map(|c| c.restart_count).sum::<i32>()
        };
        ensure!(restarts(&running(&ns, "neighbour").await?) == 0, "the neighbour was disturbed");
        node.close().await
    })
    .await;
}

async fn on_the_disk(ns: &Namespace, prefix: &str) -> Result<()> {
    create_on(ns, "full", prefix).await?;
    running(ns, "full").await?;
    ns.sh("full", "main", "echo kept > /root/file && sync").await?;
    let fill = "dd if=/dev/zero of=/root/filler bs=1M 2>&1 || true; sync";
    let said = ns.sh("full", "main", fill).await?;
    ensure!(
        said.contains("No space left on device"),
        "the disk is not full: {said}"
    );

    create_on(ns, "late", prefix).await?;
    let message = blocked(ns, "late", FILESYSTEM_READY, "InsufficientDisk").await?;
    ensure!(message.contains(prefix), "which disk? {message}");
    told(ns, "late", "InsufficientDisk").await?;
    ns.sh("neighbour", "main", "echo fine > /root/file && sync")
        .await?;

    // Its owner may stop and start it, full as it is, and make room.
    stop(ns, "full").await?;
    start(ns, "full").await?;
    ensure!(
        ns.sh("full", "main", "cat /root/file").await? == "kept",
        "the file is gone"
    );
    ns.sh("full", "main", "rm /root/filler && sync").await?;
    running(ns, "late").await?;
    ns.sh("late", "main", "echo mine > /root/file && sync")
        .await
        .map(drop)
}

async fn create_on(ns: &Namespace, name: &str, prefix: &str) -> Result<()> {
    ns.create_json::<StoppableContainer>(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": name},
        "spec": {"running": true, "template": shell_template(), "hostPathPrefix": prefix},
    }))
    .await
    .map(drop)
}
