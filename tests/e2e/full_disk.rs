//! F22: the disk of some kept filesystems is full, or fails. Their owners are told; everybody else goes on.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use stoppablecontainer_api::conditions::FILESYSTEM_READY;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, disk_directory, in_namespace};

use crate::support::{blocked, condition, node_of, phase, run, running, shell_template, start, stop, told};

/// Who fills the disk is told by its own writes and can make room; a new one there waits with the reason; neighbours on
/// another disk do not notice; and with room again everything goes on by itself.
#[tokio::test]
async fn f22_a_full_disk_is_the_affair_of_those_on_it() {
    in_namespace("full-disk", async |ns| {
        let disk = place("full")?;
        let neighbour = run(&ns, "neighbour", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&neighbour)?).await?;
        node.sh(&format!(
            "mkdir -p {disk}; truncate -s 64M {disk}.image; mkfs.ext4 -q -F -m 0 {disk}.image
             mount -o loop {disk}.image {disk}; chmod 0700 {disk}"
        ))
        .await?;
        let tested = on_the_disk(&ns, &disk).await;
        forget(&ns, &["full", "late"]).await?;
        node.sh(&format!("umount {disk}; rmdir {disk}; rm {disk}.image"))
            .await?;
        tested?;
        let restarts = |pod: &Pod| {
            let status = pod.status.clone().unwrap_or_default();
            status
                .container_statuses
                .iter()
                .flatten()
                .map(|c| c.restart_count)
                .sum::<i32>()
        };
        ensure!(
            restarts(&running(&ns, "neighbour").await?) == 0,
            "the neighbour was disturbed"
        );
        node.close().await
    })
    .await;
}

/// A disk that does not take what nobody waited for: the one who wrote it and was stopped is told, may go on, and is told
/// no more once a stop went well.
#[tokio::test]
async fn i7_what_the_disk_did_not_take_is_told_when_it_stops() {
    in_namespace("failing-disk", async |ns| {
        let disk = place("failing")?;
        let somebody = run(&ns, "somebody", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&somebody)?).await?;
        // Blocks of the disk that were never written have no place in its image once that file's own disk is full. No
        // journal, which would end all writing at the first such block.
        node.sh(&format!(
            "mkdir -p {disk} {disk}.hardware; mount -t tmpfs -o size=8m none {disk}.hardware
             truncate -s 64M {disk}.hardware/image; mkfs.ext4 -q -F -m 0 -O ^has_journal {disk}.hardware/image
             mount -o loop,errors=continue {disk}.hardware/image {disk}; chmod 0700 {disk}"
        ))
        .await?;
        let tested = on_failing_hardware(&ns, &node, &disk).await;
        forget(&ns, &["writer"]).await?;
        node.sh(&format!(
            "umount {disk}; umount {disk}.hardware; rmdir {disk} {disk}.hardware"
        ))
        .await?;
        tested?;
        node.close().await
    })
    .await;
}

async fn on_failing_hardware(ns: &Namespace, node: &NodeShell<'_>, disk: &str) -> Result<()> {
    create_on(ns, "writer", disk).await?;
    running(ns, "writer").await?;
    ns.sh("writer", "main", "echo kept > /root/file && sync").await?;
    node.sh(&format!(
        "dd if=/dev/zero of={disk}.hardware/filler bs=64k || true"
    ))
    .await?;
    ns.sh("writer", "main", "dd if=/dev/zero of=/root/lost bs=64k count=64")
        .await?;

    let pod = running(ns, "writer").await?.name_any();
    stop(ns, "writer").await?;
    told(ns, "writer", "WriteFailed").await?;
    let stopped = phase(ns, "writer", Phase::Stopped).await?;
    let (_, reason, message) = condition(&stopped, FILESYSTEM_READY).context("no condition")?;
    ensure!(
        reason == "WriteFailed" && message.contains(disk) && message.contains(&pod),
        "{reason}: {message}"
    );

    node.sh(&format!("rm {disk}.hardware/filler")).await?;
    start(ns, "writer").await?;
    ensure!(
        ns.sh("writer", "main", "cat /root/file").await? == "kept",
        "the file is gone"
    );
    ns.sh("writer", "main", "rm /root/lost && echo new > /root/file")
        .await?;
    stop(ns, "writer").await?;
    let stopped = phase(ns, "writer", Phase::Stopped).await?;
    let (_, reason, message) = condition(&stopped, FILESYSTEM_READY).context("no condition")?;
    ensure!(reason == "AsRequested", "it is told for ever: {message}");
    Ok(())
}

/// A directory of the nodes, not there yet, for a disk.
fn place(name: &str) -> Result<String> {
    Ok(format!("{}/{name}", disk_directory()?))
}

/// Deletes those that are there.
async fn forget(ns: &Namespace, names: &[&str]) -> Result<()> {
    for name in names {
        if ns.api::<StoppableContainer>().get_opt(name).await?.is_some() {
            ns.delete::<StoppableContainer>(name).await?;
        }
    }
    Ok(())
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
