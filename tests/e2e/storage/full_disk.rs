//! F22: the disk of some kept filesystems is full or fails. Their owners get a message; other
//! containers are not affected.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::FILESYSTEM_READY;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::support::disk::Disk;
use crate::support::{
    blocked, blocked_saying, cleaned_up, condition, node_of, phase, run, running, shell_on, shell_template,
    start, stop, told,
};

const MEGABYTES: u32 = 64;
const UNUSABLE: &str = "FilesystemUnusable";

/// A program that fills the disk gets errors from its writes and can delete files. A new filesystem
/// there waits with a reason. Containers on another disk are not affected. When there is space
/// again, everything continues automatically.
#[tokio::test]
async fn f22_a_full_disk_is_the_affair_of_those_on_it() {
    alone_in_namespace("full-disk", async |ns, alone| {
        let neighbour = run(&ns, "neighbour", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&neighbour)?).await?;
        let disk = Disk::plain(&node, MEGABYTES, &alone).await?;
        let tested = on_the_disk(&ns, &disk.place).await;
        disk.after(tested, &ns, &node, &["full", "late"]).await?;
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

/// A disk fails to store data that was not synced. After the stop, the object of the container
/// reports it and can be started. The report clears at the next clean stop.
#[tokio::test]
async fn i7_what_the_disk_did_not_take_is_reported_when_it_stops() {
    alone_in_namespace("failing-disk", async |ns, alone| {
        let somebody = run(&ns, "somebody", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&somebody)?).await?;
        let disk = Disk::that_can_fail(&node, MEGABYTES, &alone).await?;
        let tested = on_failing_hardware(&ns, &node, &disk).await;
        disk.after(tested, &ns, &node, &["writer"]).await?;
        node.close().await
    })
    .await;
}

/// A disk that does not answer: containers that need it wait and report the reason, once for all of
/// them. Containers on another disk of the same node start and stop. When the disk answers again,
/// everything continues automatically.
#[tokio::test]
async fn f22_a_disk_that_does_not_answer_is_the_affair_of_those_on_it() {
    alone_in_namespace("hanging-disk", async |ns, alone| {
        let neighbour = run(&ns, "neighbour", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&neighbour)?).await?;
        let disk = Disk::plain(&node, MEGABYTES, &alone).await?;
        node.sh(&format!("fsfreeze --freeze {}", disk.place)).await?;
        let tested = on_hanging_disk(&ns, &disk.place).await;
        let thawed = node
            .sh(&format!("fsfreeze --unfreeze {}", disk.place))
            .await
            .map(drop);
        let tested = match cleaned_up(tested, thawed) {
            Ok(()) => running(&ns, "waiting").await.map(drop),
            error => error,
        };
        disk.after(tested, &ns, &node, &["waiting"]).await?;
        node.close().await
    })
    .await;
}

async fn on_hanging_disk(ns: &Namespace, prefix: &str) -> Result<()> {
    create_on(ns, "waiting", prefix).await?;
    blocked_saying(
        ns,
        "waiting",
        FILESYSTEM_READY,
        "Preparing",
        "disk I/O did not finish within",
    )
    .await?;
    stop(ns, "neighbour").await?;
    start(ns, "neighbour").await?;
    run(ns, "newcomer", shell_template()).await.map(drop)
}

/// A file system that is unsuitable for an upper directory is rejected before anything is written
/// there, and the object reports why. The template excludes other nodes, so the controller does not
/// give this one up, on a cluster of many nodes either.
#[tokio::test]
async fn h26_a_disk_that_cannot_hold_upper_directories_is_refused() {
    alone_in_namespace("unsuitable-disk", async |ns, alone| {
        let first = run(&ns, "first", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&first)?).await?;
        let unsuitable = Disk::unsuitable(&node, MEGABYTES, &alone).await?;
        let tested = refused_on(&ns, &node, &node_of(&first)?, &unsuitable).await;
        unsuitable.after(tested, &ns, &node, &["refused"]).await?;
        node.close().await
    })
    .await;
}

async fn refused_on(ns: &Namespace, node: &NodeShell<'_>, name: &str, disk: &Disk) -> Result<()> {
    let words = "does not report the types of directory entries";
    create_from(ns, "refused", &disk.place, shell_on(name)).await?;
    let message = blocked(ns, "refused", FILESYSTEM_READY, UNUSABLE).await?;
    phase(ns, "refused", Phase::Failed).await?;
    told(ns, "refused", UNUSABLE).await?;
    ensure!(
        message.contains(&disk.place) && message.contains(words),
        "which disk, and why: {message}"
    );
    ensure!(
        ns.api::<Pod>().get_opt("refused").await?.is_none(),
        "it was started without its filesystem"
    );
    let written = node.sh(&format!("ls -A {}", disk.place)).await?;
    ensure!(written == "lost+found", "written there: {written}");
    Ok(())
}

async fn on_failing_hardware(ns: &Namespace, node: &NodeShell<'_>, disk: &Disk) -> Result<()> {
    create_on(ns, "writer", &disk.place).await?;
    running(ns, "writer").await?;
    ns.sh("writer", "main", "echo kept > /root/file && sync").await?;
    disk.fail(node).await?;
    ns.sh("writer", "main", "dd if=/dev/zero of=/root/lost bs=64k count=64")
        .await?;

    let pod = running(ns, "writer").await?.name_any();
    stop(ns, "writer").await?;
    told(ns, "writer", "WriteFailed").await?;
    let stopped = phase(ns, "writer", Phase::Stopped).await?;
    let (_, reason, message) = condition(&stopped, FILESYSTEM_READY).context("no condition")?;
    ensure!(
        reason == "WriteFailed" && message.contains(&disk.place) && message.contains(&pod),
        "{reason}: {message}"
    );

    disk.repair(node).await?;
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
    ensure!(reason == "AsRequested", "the warning does not clear: {message}");
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

    // The owner can stop and start the container on the full disk, and delete files.
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
    create_from(ns, name, prefix, shell_template()).await
}

async fn create_from(ns: &Namespace, name: &str, prefix: &str, template: Value) -> Result<()> {
    ns.create_json::<StoppableContainer>(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": name},
        "spec": {"running": true, "template": template, "hostPathPrefix": prefix},
    }))
    .await
    .map(drop)
}
