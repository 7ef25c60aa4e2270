//! The disk of kept filesystems is not mounted: its empty mount point does not count as lost or
//! removed data.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::support::disk::Disk;
use crate::support::{
    blocked, condition, data_directory, node_of, phase, run, running, set_running, shell_template, start,
    stop,
};

const MEGABYTES: u32 = 64;
const NAME: &str = "kept";

/// Story: the disk was not mounted at a start, which did not find data and offered a reset. It was
/// not mounted at a deletion either, which reported the data as removed and left it on the disk.
#[tokio::test]
async fn i1_i11_data_on_a_disk_that_is_not_mounted_is_out_of_reach() {
    alone_in_namespace("unmounted", async |ns, alone| {
        let here = run(&ns, "here", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&here)?).await?;
        let disk = Disk::plain(&node, MEGABYTES, &alone).await?;
        let tested = away_and_back(&ns, &node, &disk).await;
        disk.after(tested, &ns, &node, &[NAME]).await?;
        node.close().await
    })
    .await;
}

async fn away_and_back(ns: &Namespace, node: &NodeShell<'_>, disk: &Disk) -> Result<()> {
    ns.create_json::<StoppableContainer>(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": NAME},
        "spec": {"running": true, "template": shell_template(), "hostPathPrefix": disk.place},
    }))
    .await?;
    running(ns, NAME).await?;
    ns.sh(NAME, "main", "echo kept > /root/file").await?;
    stop(ns, NAME).await?;

    disk.unmount(node).await?;
    set_running(ns, NAME, true).await?;
    let message = blocked(ns, NAME, FILESYSTEM_READY, reason::FILESYSTEM_UNREACHABLE).await?;
    ensure!(
        message.contains(&disk.place) && message.contains("Mount it"),
        "{message}"
    );
    phase(ns, NAME, Phase::Failed).await?;
    disk.mount_again(node).await?;
    found_ready(ns).await?;
    // A consumer that was created before the loss was detected restarts repeatedly, and appears to
    // run at each attempt.
    set_running(ns, NAME, false).await?;
    phase(ns, NAME, Phase::Stopped).await?;
    start(ns, NAME).await?;
    let file = ns.sh(NAME, "main", "cat /root/file").await?;
    ensure!(file.trim() == "kept", "{file}");
    stop(ns, NAME).await?;
    let data = data_directory(ns, NAME).await?;

    disk.unmount(node).await?;
    ns.api::<StoppableContainer>()
        .delete(NAME, &kube::api::DeleteParams::default())
        .await?;
    ns.wait(
        NAME,
        "the agent says that the data is out of reach",
        |instance: &StoppableContainerInstance| {
            let status = instance.status.as_ref();
            let filesystem = status.and_then(|status| status.filesystem.as_ref());
            filesystem.and_then(|f| f.reason.as_deref()) == Some(reason::FILESYSTEM_UNREACHABLE)
        },
    )
    .await?;
    disk.mount_again(node).await?;
    ns.wait_gone::<StoppableContainer>(NAME).await?;
    let left = node.sh(&format!("ls -d {data} 2>/dev/null || echo none")).await?;
    ensure!(left == "none", "left on the disk: {left}");
    ns.api::<Pod>()
        .get_opt(NAME)
        .await?
        .is_none()
        .then_some(())
        .context("a pod is left")
}

/// The agent checks again automatically.
async fn found_ready(ns: &Namespace) -> Result<()> {
    let ready = |object: &StoppableContainer| {
        condition(object, FILESYSTEM_READY).is_some_and(|(status, ..)| status == "True")
    };
    ns.wait(NAME, "the filesystem is ready again", ready)
        .await
        .map(drop)
}
