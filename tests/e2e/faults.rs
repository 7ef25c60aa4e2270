//! What goes wrong on a node while containers use their kept filesystems.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde_json::json;
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{container_id, data_directory, node_of, run, running, shell_template, uid_of};

/// How long a pod may take to say something.
const PATIENCE: Duration = Duration::from_mins(1);

/// The consumer's process outlives its pod, which was deleted by force: the next pod waits and says for whom. There are
/// never two overlays on one upper directory.
#[tokio::test]
async fn f21_i2_a_process_that_outlives_its_pod_keeps_the_next_one_waiting() {
    in_namespace("outlives", async |ns| {
        let mut template = shell_template();
        let program = "cat /root/file; exec sleep infinity";
        template["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", program]);
        let old = run(&ns, "kept", template).await?;
        ns.sh("kept", "main", "echo the kept file > /root/file").await?;
        let node = NodeShell::on(&ns, &node_of(&old)?).await?;
        let data = data_directory(&ns, "kept").await?;
        let upper = format!("{}/upper", data.rsplit('/').next().context("no UID")?);
        let before = overlays(&node, &upper).await?;
        ensure!(before.lines().count() == 1, "overlays before: {before}");

        let holder = node.hold_mounts_of(&container_id(&old, "main")?).await?;
        node.signal_first(&container_id(&old, "main")?, "STOP").await?;
        let by_force = [
            "delete",
            "pod",
            "kept",
            "--grace-period=0",
            "--force",
            "--wait=false",
        ];
        ns.kubectl(&by_force).await?.success()?;
        let runs = |pod: &Pod| {
            let status = pod.status.as_ref();
            let mut containers = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            uid_of(pod) != uid_of(&old)
                && containers.any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()))
        };
        let waiting = ns.wait("kept", "the next pod's container runs", runs).await?;
        let words = format!("processes of an earlier start still use it (on the node: {holder})");
        says(&ns, "kept", &words).await?;
        let meanwhile = overlays(&node, &upper).await?;
        ensure!(
            meanwhile == before,
            "before: {before}, while the next one waits: {meanwhile}"
        );
        node.sh(&format!("kill -9 {holder}")).await?;
        // The same pod goes on, on the same files.
        says(&ns, "kept", "the kept file").await?;
        ensure!(
            running(&ns, "kept").await?.metadata.uid == waiting.metadata.uid,
            "another pod"
        );
        let after = overlays(&node, &upper).await?;
        ensure!(after.lines().count() == 1, "overlays after: {after}");
        node.close().await
    })
    .await;
}

/// The overlays, by the kernel's number, whose upper directory ends like this, in any mount table of the node.
async fn overlays(node: &NodeShell<'_>, upper: &str) -> Result<String> {
    let mounts = node.mounts_with(upper).await?;
    let mut numbers: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(" - overlay "))
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers.join("\n"))
}

/// Waits until the log of a pod's main container has these words.
async fn says(ns: &Namespace, pod: &str, words: &str) -> Result<()> {
    let params = LogParams {
        container: Some("main".to_owned()),
        follow: true,
        ..LogParams::default()
    };
    let said = async {
        let mut lines = ns.api::<Pod>().log_stream(pod, &params).await?.lines();
        while let Some(line) = lines.next().await {
            if line?.contains(words) {
                return Ok(());
            }
        }
        anyhow::bail!("the log ended")
    };
    tokio::time::timeout(PATIENCE, said)
        .await
        .with_context(|| format!("pod {pod} does not say {words:?}"))?
}
