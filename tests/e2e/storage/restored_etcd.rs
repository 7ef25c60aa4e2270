//! etcd is restored from a backup, and the kept filesystems are newer than the objects.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace, cluster_command};

use crate::support::node::running_after_reboot;
use crate::support::release::Release;
use crate::support::{
    blocked, cleaned_up, container_id, data_directory, node_of, phase, run, shell_template, start, stop,
};

/// The objects before the backup: one that stays, and one that is deleted after it.
const KEPT: &str = "kept";
const ERASED: &str = "erased";
/// An object that is created after the backup.
const NEWER: &str = "newer";

#[tokio::test]
async fn f26_i1_i11_a_restored_backup_of_etcd_neither_deletes_data_nor_starts_on_an_empty_root() {
    alone_in_namespace("restored", async |ns, _alone| {
        let kept = run(&ns, KEPT, shell_template()).await?;
        run(&ns, ERASED, shell_template()).await?;
        for name in [KEPT, ERASED] {
            ns.sh(name, "main", "echo before > /root/file && sync").await?;
        }
        let directory = tempfile::tempdir()?;
        let backup = directory.path().join("etcd.snapshot");
        let backup = backup.to_str().context("a path that is not UTF-8")?;
        let what = "the command that saves a snapshot of etcd into a file";
        cluster_command("E2E_ETCD_SNAPSHOT_COMMAND", what, &[backup]).await?;

        ns.delete::<StoppableContainer>(ERASED).await?;
        stop(&ns, KEPT).await?;
        start(&ns, KEPT).await?;
        ns.sh(KEPT, "main", "echo after >> /root/file && sync").await?;
        let pod = run(&ns, NEWER, shell_template()).await?;
        ns.sh(NEWER, "main", "echo newer > /root/file && sync").await?;
        let newer = data_directory(&ns, NEWER).await?;

        let what =
            "the command that cuts the power of the whole cluster and starts it with a snapshot of etcd";
        cluster_command("E2E_RESTORE_ETCD_COMMAND", what, &[backup]).await?;
        Release::find(&ns.client).await?.rolled_out().await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let tested = as_kept(&ns, &node, &kept, &newer).await;
        let removed = node.sh(&format!("rm -rf {newer}")).await.map(drop);
        cleaned_up(tested, removed)?;
        node.close().await
    })
    .await;
}

/// Checks what became of the three objects. `kept` is the pod of the backup, and `newer` the data
/// of the object that is unknown now.
async fn as_kept(ns: &Namespace, node: &NodeShell<'_>, kept: &Pod, newer: &str) -> Result<()> {
    // The backup has the status of `kept`, too: both are ready in it, whatever its container does.
    let old = container_id(kept, "main")?;
    let renewed = |pod: &Pod| container_id(pod, "main").is_ok_and(|id| id != old);
    ns.wait(KEPT, "another container than that of the backup runs", renewed)
        .await?;
    running_after_reboot(ns, KEPT).await?;
    let file = ns.sh(KEPT, "main", "cat /root/file").await?;
    ensure!(file == "before\nafter", "{file}");
    let lost = blocked(ns, ERASED, FILESYSTEM_READY, reason::FILESYSTEM_LOST).await?;
    ensure!(!lost.is_empty(), "a loss without a message");
    phase(ns, ERASED, Phase::Failed).await?;
    let newer_object = ns.api::<StoppableContainer>().get_opt(NEWER).await?;
    ensure!(newer_object.is_none(), "the backup was not restored");
    let file = node.sh(&format!("cat {newer}/upper/root/file")).await?;
    ensure!(file == "newer", "{file}");
    Ok(())
}
