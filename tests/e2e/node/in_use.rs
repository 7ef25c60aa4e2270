//! Faults on a node while containers use their kept filesystems.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer, StoppableContainerInstance};
use testkit::{NodeShell, alone_in_namespace, in_namespace, patience};

use crate::support::counting::{counting, unnoticed};
use crate::support::{
    AGENTS, blocked_saying, container_id, create, data_directory, node_of, phase, run, running, says,
    shell_template, start, stop, told, uid_of,
};

/// Time limit for a start or for output of a pod.
const PATIENCE: Duration = Duration::from_mins(1);
/// Number of kills of the agent.
const KILLS: usize = 20;

/// The consumer's process outlives its pod, which was deleted by force. The next pod waits and
/// names the process. An upper directory never has two overlays.
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
        let runs = |pod: &Pod| uid_of(pod) != uid_of(&old) && is_running(pod);
        let waiting = ns.wait("kept", "the next pod's container runs", runs).await?;
        let words = format!("processes of an earlier start still use it (on the node: {holder})");
        says(&ns, "kept", &words).await?;
        // The kubelet reports the container as ready. I12: the object reports that its program has
        // not started.
        blocked_saying(
            &ns,
            "kept",
            CONSUMER_READY,
            reason::WAITING_FOR_FILESYSTEM,
            &words,
        )
        .await?;
        phase(&ns, "kept", Phase::ProviderReady).await?;
        told(&ns, "kept", reason::WAITING_FOR_FILESYSTEM).await?;
        let meanwhile = overlays(&node, &upper).await?;
        ensure!(
            meanwhile == before,
            "before: {before}, while the next one waits: {meanwhile}"
        );
        node.sh(&format!("kill -9 {holder}")).await?;
        // The same pod continues, on the same files.
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

/// The agent is killed repeatedly, each time as soon as it runs. Consumers are not affected, exec
/// and logs work, and a start is only delayed.
#[tokio::test]
async fn f18_i9_consumers_do_not_notice_twenty_kills_of_the_agent() {
    alone_in_namespace("agent-killed", async |ns, _alone| {
        let before = run(&ns, "kept", counting()).await?;
        let node = NodeShell::on(&ns, &node_of(&before)?).await?;
        let config = watcher::Config::default()
            .labels(AGENTS)
            .fields(&format!("spec.nodeName={}", node_of(&before)?));
        let agents = watcher(Api::<Pod>::all(ns.client.clone()), config).applied_objects();
        let mut agents = std::pin::pin!(agents);
        let mut killed: Vec<String> = Vec::new();
        for kill in 0..KILLS {
            let next = async {
                while let Some(agent) = agents.next().await {
                    // A broken watch restarts automatically.
                    let Ok(agent) = agent else { continue };
                    if is_running(&agent) && !killed.contains(&uid_of(&agent)) {
                        return Ok(agent);
                    }
                }
                anyhow::bail!("the watch ended")
            };
            let agent = tokio::time::timeout(patience(PATIENCE), next)
                .await
                .context("no agent starts")??;
            node.kill_first(&container_id(&agent, "node-agent")?).await?;
            // A new pod, because the kubelet delays the restart of pods that end often.
            let by_force = DeleteParams::default().grace_period(0);
            let api = Api::<Pod>::namespaced(ns.client.clone(), &agent.namespace().unwrap_or_default());
            api.delete(&agent.name_any(), &by_force).await?;
            killed.push(uid_of(&agent));
            ensure!(
                ns.sh(
                    "kept",
                    "main",
                    &format!("echo {kill} > /root/kill; cat /root/kill")
                )
                .await?
                    == kill.to_string()
            );
            if kill == KILLS / 2 {
                create(&ns, "late", true, shell_template()).await?;
            }
        }
        running(&ns, "late").await?;
        running(&ns, "kept").await?;
        unnoticed(&ns, &before).await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /root/kill").await? == (KILLS - 1).to_string());
        node.close().await
    })
    .await;
}

/// A running consumer takes edits at its next start, so the container of the running pod is still
/// the main one.
#[tokio::test]
async fn i3_a_container_that_is_called_otherwise_by_now_restarts_in_its_pod() {
    in_namespace("renamed", async |ns| {
        let before = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let mut template = shell_template();
        template["spec"]["containers"][0]["name"] = json!("another");
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": template}}))
            .await?;
        ns.wait(
            "kept",
            "the instance has the edited template",
            |object: &StoppableContainerInstance| {
                let object = serde_json::to_value(object).unwrap_or_default();
                object["spec"]["template"]["spec"]["containers"][0]["name"] == "another"
            },
        )
        .await?;
        let node = NodeShell::on(&ns, &node_of(&before)?).await?;
        node.kill_first(&container_id(&before, "main")?).await?;
        ns.wait("kept", "its container runs again", |pod: &Pod| {
            let status = pod.status.as_ref();
            let mut main = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            main.any(|c| c.name == "main" && c.restart_count > 0 && c.ready)
        })
        .await?;
        // Through the wrapper, which waits until the container is on its filesystem.
        let hook = [
            "/.stoppablecontainer/exec-wrapper",
            "hook",
            "--",
            "cat",
            "/root/file",
        ];
        let seen = ns.exec("kept", "main", &hook).await?.success()?;
        ensure!(seen.trim_end() == "kept", "it sees {seen:?}");
        node.close().await
    })
    .await;
}

fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut containers = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    containers.any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// The overlays, by the kernel's number, whose upper directory has this suffix, in all mount tables
/// of the node.
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
