//! A first node that does not suit is given up for another one, as long as nothing has run there.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::many_nodes::preferring;
use crate::support::disk::Disk;
use crate::support::{
    cleaned_up, create, data_directory, forget, node_of, nodes, phase, run, running, set_running, told_about,
};

/// The object that moves.
const NAME: &str = "moves";
/// An image of one node only. No registry has it.
const ONLY_THERE: &str = "docker.io/test/only-there:1";

/// A shell that could be anywhere, is on this node if there is room, and asks for most of its
/// processors.
async fn large(ns: &Namespace, node: &str) -> Result<Value> {
    let status = ns.cluster_api::<Node>().get(node).await?.status;
    let has = status.and_then(|status| status.allocatable).unwrap_or_default();
    let cpus: u64 = has["cpu"].0.parse()?;
    let mut template = preferring(node);
    template["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": format!("{}m", cpus * 600) } });
    Ok(template)
}

/// Prepares the object on the node without starting it.
async fn prepared(ns: &Namespace, node: &str, template: Value) -> Result<()> {
    create(ns, NAME, false, template).await?;
    let object = phase(ns, NAME, Phase::Stopped).await?;
    let at = object.status.and_then(|status| status.node_name);
    ensure!(at.as_deref() == Some(node), "it was prepared on {at:?}");
    Ok(())
}

/// Waits until the object runs on another node. Its status counts the node, and its event has the
/// words of the component that made the controller give the node up.
async fn runs_elsewhere(ns: &Namespace, node: &str, words: &str) -> Result<()> {
    let about = ("StoppableContainer", NAME);
    told_about(ns.api(), about, reason::NODE_GIVEN_UP, words).await?;
    let pod = running(ns, NAME).await?;
    ensure!(node_of(&pod)? != node, "it is still on {node}");
    let object = ns.api::<StoppableContainer>().get(NAME).await?;
    let nodes = object
        .status
        .and_then(|status| status.given_up_nodes)
        .context("no count")?;
    ensure!(nodes.count == 1 && nodes.nodes == [node], "{nodes:?}");
    Ok(())
}

/// Runs a script on these nodes, then `test`, and then the second script, also after a failure.
async fn with(
    ns: &Namespace,
    nodes: &[String],
    [begin, end]: [&str; 2],
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let mut tested = Ok(());
    let mut shells = Vec::new();
    for name in nodes {
        let shell = NodeShell::on(ns, name).await;
        match shell {
            Ok(shell) => {
                tested = tested.and(shell.sh(begin).await.map(drop));
                shells.push(shell);
            }
            Err(error) => tested = tested.and(Err(error)),
        }
    }
    if tested.is_ok() {
        tested = test().await;
    }
    for shell in shells {
        tested = cleaned_up(tested, shell.sh(end).await.map(drop));
        tested = cleaned_up(tested, shell.close().await);
    }
    tested
}

/// A stopped object was prepared on a node that has got full since.
#[tokio::test]
async fn a_node_without_room_is_given_up_at_the_first_start() {
    alone_in_namespace("no-room", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let first = &all[0];
        let template = large(&ns, first).await?;
        prepared(&ns, first, template.clone()).await?;
        let directory = data_directory(&ns, NAME).await?;
        let mut other = template;
        other["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": first });
        run(&ns, "other", other).await?;

        set_running(&ns, NAME, true).await?;
        runs_elsewhere(&ns, first, "cpu").await?;
        let node = NodeShell::on(&ns, first).await?;
        let left = node.sh(&format!("ls -d {directory} || true")).await?;
        ensure!(left.is_empty(), "{directory} was left on {first}");
        node.close().await
    })
    .await;
}

/// A node got a taint after the object was prepared there.
#[tokio::test]
async fn a_node_with_a_taint_is_given_up_at_the_first_start() {
    alone_in_namespace("taint", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let first = &all[0];
        prepared(&ns, first, preferring(first)).await?;
        let taint = async |effect: &str| {
            let taint = format!("example.com/closed:{effect}");
            ns.kubectl(&["taint", "node", first, &taint])
                .await?
                .success()
                .map(drop)
        };
        taint("NoSchedule").await?;
        let moved = async {
            set_running(&ns, NAME, true).await?;
            runs_elsewhere(&ns, first, "taint").await
        };
        cleaned_up(moved.await, taint("NoSchedule-").await)
    })
    .await;
}

/// The kubelet of the node cannot get the image, another node has it.
#[tokio::test]
async fn a_node_without_the_image_is_given_up() {
    alone_in_namespace("no-image", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let (first, others) = all.split_first().context("no node")?;
        let ctr = std::env::var("E2E_CTR").unwrap_or_else(|_| "ctr".to_owned());
        let images = format!("{ctr} --namespace k8s.io images");
        let tag = format!("{images} tag --force docker.io/library/ubuntu:22.04 {ONLY_THERE}");
        let remove = format!("{images} rm {ONLY_THERE} || true");
        with(&ns, others, [&tag, &remove], async || {
            let mut template = preferring(first);
            template["spec"]["containers"][0]["image"] = json!(ONLY_THERE);
            create(&ns, NAME, true, template).await?;
            let moved = runs_elsewhere(&ns, first, ONLY_THERE).await;
            cleaned_up(moved, forget(&ns, NAME).await)
        })
        .await
    })
    .await;
}

/// The disk of the node has less free space than the agent keeps free.
#[tokio::test]
async fn a_node_without_room_on_its_disk_is_given_up() {
    alone_in_namespace("no-disk", async |ns, alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let (first, others) = all.split_first().context("no node")?;
        let node = NodeShell::on(&ns, first).await?;
        let disk = Disk::plain(&node, 64, &alone).await?;
        let place = disk.place.clone();
        node.sh(&format!("dd if=/dev/zero of={place}/filler bs=1M || true"))
            .await?;
        let make = [format!("mkdir -p {place}"), format!("rm -rf {place}")];
        let moved = with(&ns, others, [&make[0], &make[1]], async || {
            ns.create_json::<StoppableContainer>(json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
                "metadata": { "name": NAME },
                "spec": { "running": true, "template": preferring(first), "hostPathPrefix": place },
            }))
            .await?;
            let moved = runs_elsewhere(&ns, first, "minimumFree").await;
            cleaned_up(moved, forget(&ns, NAME).await)
        });
        let tested = disk.after(moved.await, &ns, &node, &[NAME]).await;
        cleaned_up(tested, node.close().await)
    })
    .await;
}
