//! Nodes that are drained or taken away.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{PROVIDER_READY, READY, reason};
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, alone_in_namespace};

use crate::many_nodes::preferring;
use crate::support::node::{Partition, reboot, running_after_reboot};
use crate::support::{
    blocked_saying, cleaned_up, create, data_directory, node_of, nodes, phase, run, running, shell_on, told,
    told_about, uid_of,
};

/// An image that no registry has.
const NOWHERE: &str = "docker.io/test/nowhere:1";
/// A file of the image that nothing reads before the end.
const UNREAD: &str = "/usr/bin/od";

/// A shell on this node whose command needs its grace period: it reads a file of the image for the
/// first time, and then writes into the kept root.
fn ending_slowly(node: &str) -> Value {
    let mut template = shell_on(node);
    let end = format!("sleep 3; cksum < {UNREAD} > /root/ended; exit 0");
    let spec = &mut template["spec"];
    spec["terminationGracePeriodSeconds"] = json!(30);
    spec["containers"][0]["command"] = json!([
        "/bin/sh",
        "-c",
        format!("trap '{end}' TERM; sleep infinity & wait")
    ]);
    template
}

/// `kubectl drain` ends without force and evicts consumer and provider in any order. The consumer
/// ends by itself within its grace period, the object says what it waits for, and starts by itself
/// when the node is back.
#[tokio::test]
async fn every_node_is_drained_in_turn_and_all_files_are_kept() {
    alone_in_namespace("drained", async |ns, _alone| {
        let all = nodes::at_least(&ns, 3).await?;
        for node in &all {
            run(&ns, node, ending_slowly(node)).await?;
            ns.sh(node, "main", &format!("echo {node} > /root/file")).await?;
        }
        for node in &all {
            let drained = drained(&ns, node).await;
            cleaned_up(drained, nodes::uncordon(&ns, node).await)?;
            running(&ns, node).await?;
        }
        for node in &all {
            let pod = running(&ns, node).await?;
            ensure!(node_of(&pod)? == *node, "{node}'s object is elsewhere");
            ensure!(
                ns.sh(node, "main", "cat /root/file").await? == *node,
                "the file is gone"
            );
            let ended = format!("test \"$(cat /root/ended)\" = \"$(cksum < {UNREAD})\"");
            ns.sh(node, "main", &ended)
                .await
                .context("the command did not end by itself")?;
        }
        Ok(())
    })
    .await;
}

async fn drained(ns: &Namespace, node: &str) -> Result<()> {
    nodes::drain(ns, node).await?;
    let there = nodes::nodes_of(ns, |_| true).await?;
    ensure!(
        !there.values().any(|at| at == node),
        "pods are left on {node}: {there:?}"
    );
    let uncordon = format!("kubectl uncordon {node}");
    blocked_saying(ns, node, READY, reason::NODE_CORDONED, &uncordon).await?;
    Ok(())
}

/// The data went with its node. The object says so, with the command that begins anew elsewhere.
/// Objects without data go elsewhere by themselves. No deletion hangs, also not that of an object
/// for which nothing was made on the node.
#[tokio::test]
async fn f24_a_node_is_taken_away_for_good() {
    alone_in_namespace("removed", async |ns, _alone| {
        let all = nodes::at_least(&ns, 3).await?;
        let last = all.last().context("no node")?;
        run(&ns, "pinned", shell_on(last)).await?;
        run(&ns, "ran", preferring(last)).await?;
        ns.sh("ran", "main", "echo lost > /root/file").await?;
        create(&ns, "prepared", false, preferring(last)).await?;
        let object = phase(&ns, "prepared", Phase::Stopped).await?;
        let at = object.status.and_then(|status| status.node_name);
        ensure!(at.as_ref() == Some(last), "it was prepared on {at:?}");
        let mut unmade = shell_on(last);
        unmade["spec"]["containers"][0]["image"] = json!(NOWHERE);
        create(&ns, "unmade", true, unmade).await?;
        let bound = |pod: &Pod| node_of(pod).is_ok();
        ns.wait(&provider_pod_name("unmade"), "it has a node", bound)
            .await?;

        nodes::remove(last).await?;
        ns.delete::<StoppableContainer>("unmade").await?;
        blocked_saying(&ns, "pinned", PROVIDER_READY, reason::NODE_GONE, last).await?;
        let message = blocked_saying(&ns, "ran", PROVIDER_READY, reason::NODE_GONE, last).await?;
        let (_, delete) = message.split_once("To DELETE").context("no way out")?;
        run_command(&ns, delete).await?;
        let pod = running(&ns, "ran").await?;
        ensure!(node_of(&pod)? != *last, "it runs on a node that is gone");
        let file = ns.sh("ran", "main", "cat /root/file || true").await?;
        ensure!(file.is_empty(), "the file is there");
        told(&ns, "prepared", reason::NODE_GIVEN_UP).await?;
        let object = ns
            .wait(
                "prepared",
                "it is prepared elsewhere",
                |object: &StoppableContainer| {
                    let status = object.status.as_ref();
                    status.is_some_and(|s| {
                        s.phase == Some(Phase::Stopped) && s.node_name.as_ref() != Some(last)
                    })
                },
            )
            .await?;
        ensure!(object.status.is_some_and(|status| status.node_name.is_some()));
        for name in ["pinned", "ran", "prepared"] {
            ns.delete::<StoppableContainer>(name).await?;
        }
        nodes::at_least(&ns, all.len()).await.map(drop)
    })
    .await;
}

/// Runs the command of a message, which ends with it.
async fn run_command(ns: &Namespace, message: &str) -> Result<()> {
    let (_, command) = message.split_once("kubectl ").context("no command")?;
    let command: Vec<_> = command.split_whitespace().collect();
    ns.kubectl(&command).await?.success().map(drop)
}

/// Only the disk of the kept filesystems is left of the machine: images, containers and the state
/// of the kubelet are new.
#[tokio::test]
async fn f24_a_machine_that_is_replaced_keeps_the_files_of_its_disk() {
    alone_in_namespace("replaced", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let last = all.last().context("no node")?;
        run(&ns, "kept", shell_on(last)).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
        nodes::replace(&ns, last, last).await?;
        continues(&ns, last).await
    })
    .await;
}

/// The disk of a node that is gone is in a node with another name. Its agent finds the files, and
/// an event on the node has the command that continues the object there.
#[tokio::test]
async fn f24_a_disk_in_another_node_is_found_and_offered() {
    alone_in_namespace("renamed", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let last = all.last().context("no node")?;
        let other = format!("node{}", all.len() + 1);
        run(&ns, "kept", preferring(last)).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
        let directory = data_directory(&ns, "kept").await?;
        nodes::replace(&ns, last, &other).await?;
        let message = blocked_saying(&ns, "kept", PROVIDER_READY, reason::NODE_GONE, last).await?;
        ensure!(message.contains("If another node has its disk now"), "{message}");
        let offer = told_about(
            Api::namespaced(ns.client.clone(), "default"),
            ("Node", &other),
            reason::MOVED_FILESYSTEM,
            &directory,
        )
        .await?;
        run_command(&ns, &offer).await?;
        continues(&ns, &other).await?;
        ns.delete::<StoppableContainer>("kept").await?;
        nodes::remove(&other).await?;
        nodes::at_least(&ns, all.len()).await.map(drop)
    })
    .await;
}

async fn continues(ns: &Namespace, node: &str) -> Result<()> {
    let pod = running(ns, "kept").await?;
    ensure!(node_of(&pod)? == node, "it is on {}", node_of(&pod)?);
    let file = ns.sh("kept", "main", "cat /root/file").await?;
    ensure!(file == "kept", "the file has {file:?}");
    Ok(())
}

/// An administrator declares a node out of service. Its pods are deleted without it, and the object
/// starts again when the node is back: there is no other place with the files.
#[tokio::test]
async fn f24_a_node_out_of_service_loses_its_pods_and_no_files() {
    alone_in_namespace("out-of-service", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let last = all.last().context("no node")?;
        run(&ns, "kept", shell_on(last)).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
        let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
        let partition = Partition::cut(&ns, last).await?;
        let declared = async {
            ns.wait("kept", "its node is unreachable", is_unreachable).await?;
            ns.kubectl(&["taint", "node", last, taint]).await?.success()?;
            ns.wait_gone::<Pod>("kept").await
        };
        let declared = declared.await;
        let healed = partition.heal().await;
        let untaint = ns.kubectl(&["taint", "node", last, &format!("{taint}-")]).await;
        cleaned_up(declared, healed)?;
        untaint?.success()?;
        continues(&ns, last).await
    })
    .await;
}

fn is_unreachable(object: &StoppableContainer) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|condition| condition.type_ == READY);
    conditions.any(|condition| condition.reason == reason::NODE_UNREACHABLE)
}

/// The Node object is deleted by mistake, and the machine registers again with its disk.
#[tokio::test]
async fn f24_a_node_that_comes_back_with_its_disk_brings_the_files() {
    alone_in_namespace("returns", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let last = all.last().context("no node")?;
        run(&ns, "kept", shell_on(last)).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
        ns.kubectl(&["delete", "node", last]).await?.success()?;
        blocked_saying(&ns, "kept", PROVIDER_READY, reason::NODE_GONE, last).await?;
        // The kubelet registers when it starts.
        reboot(last).await?;
        nodes::at_least(&ns, all.len()).await?;
        let pod = running_after_reboot(&ns, "kept").await?;
        ensure!(node_of(&pod)? == *last, "it is elsewhere");
        ensure!(
            ns.sh("kept", "main", "cat /root/file").await? == "kept",
            "the file is gone"
        );
        Ok(())
    })
    .await;
}

/// A budget of the user's own keeps the consumer where it is, and the drain says so.
#[tokio::test]
async fn a_disruption_budget_on_consumers_is_respected() {
    alone_in_namespace("budget", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let last = all.last().context("no node")?;
        let mut template = shell_on(last);
        template["metadata"]["labels"] = json!({ "app": "kept" });
        let before = run(&ns, "kept", template).await?;
        ns.create_json::<PodDisruptionBudget>(json!({
            "metadata": { "name": "kept" },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "kept" } } },
        }))
        .await?;
        let drained = refused_drain(&ns, last).await;
        cleaned_up(drained, nodes::uncordon(&ns, last).await)?;
        let after = running(&ns, "kept").await?;
        ensure!(uid_of(&after) == uid_of(&before), "the consumer was evicted");
        Ok(())
    })
    .await;
}

async fn refused_drain(ns: &Namespace, node: &str) -> Result<()> {
    let selector = "--pod-selector=app=kept";
    let args = ["drain", node, "--ignore-daemonsets", "--timeout=10s", selector];
    let output = ns.kubectl(&args).await?;
    ensure!(
        output.code != 0 && output.stderr.contains("disruption budget"),
        "{}",
        output.stderr
    );
    Ok(())
}
