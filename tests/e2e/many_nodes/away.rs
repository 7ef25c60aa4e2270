//! Nodes that are drained or taken away.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stoppablecontainer_api::conditions::{PROVIDER_READY, READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, alone_in_namespace};

use crate::support::{
    blocked_saying, cleaned_up, create, node_of, nodes, phase, run, running, shell_template, told,
};

/// A shell on this node.
fn on(node: &str) -> serde_json::Value {
    let mut template = shell_template();
    template["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    template
}

/// A shell that could be anywhere and is on this node if there is room.
fn preferring(node: &str) -> serde_json::Value {
    let mut template = shell_template();
    let nodes = &mut template["spec"]["affinity"]["nodeAffinity"];
    nodes["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "weight": 100,
        "preference": { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] },
    }]);
    template
}

/// `kubectl drain` ends without force, the object says what it waits for, and starts by itself when
/// the node is back.
#[tokio::test]
async fn every_node_is_drained_in_turn_and_all_files_are_kept() {
    alone_in_namespace("drained", async |ns, _alone| {
        let all = nodes::at_least(&ns, 3).await?;
        for node in &all {
            run(&ns, node, on(node)).await?;
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
/// Objects without data go elsewhere by themselves, and no deletion hangs.
#[tokio::test]
async fn f24_a_node_is_taken_away_for_good() {
    alone_in_namespace("removed", async |ns, _alone| {
        let all = nodes::at_least(&ns, 3).await?;
        let last = all.last().context("no node")?;
        run(&ns, "pinned", on(last)).await?;
        run(&ns, "ran", preferring(last)).await?;
        ns.sh("ran", "main", "echo lost > /root/file").await?;
        create(&ns, "prepared", false, preferring(last)).await?;
        let object = phase(&ns, "prepared", Phase::Stopped).await?;
        let at = object.status.and_then(|status| status.node_name);
        ensure!(at.as_ref() == Some(last), "it was prepared on {at:?}");

        nodes::remove(last).await?;
        blocked_saying(&ns, "pinned", PROVIDER_READY, reason::NODE_GONE, last).await?;
        let message = blocked_saying(&ns, "ran", PROVIDER_READY, reason::NODE_GONE, last).await?;
        let command = message.split_once("kubectl ").context("no command")?.1;
        let command: Vec<_> = command.split_whitespace().collect();
        ns.kubectl(&command).await?.success()?;
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
