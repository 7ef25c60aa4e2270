//! Data without an instance: the agent lists it, and only an administrator removes it.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX;
use testkit::{Namespace, NodeShell, alone_in_namespace, kubectl, patience};

use crate::support::agents::Agents;
use crate::support::metrics::scraped;
use crate::support::{agent_on, cleaned_up, data_directory, node_of, run, shell_template};

/// Like the data of an instance whose finalizer was removed by hand.
const ORPHAN: &str = "00000000-0000-4000-8000-000000000011";

#[tokio::test]
async fn i11_data_without_instance_is_listed_and_removed_on_request_alone() {
    alone_in_namespace("orphans", async |ns, _alone| {
        let pod = run(&ns, "owned", shell_template()).await?;
        let node_name = node_of(&pod)?;
        let node = NodeShell::on(&ns, &node_name).await?;
        let directory = format!("{DEFAULT_HOST_PATH_PREFIX}/{ORPHAN}");
        node.sh(&format!("mkdir -m 700 {directory} {directory}/upper"))
            .await?;
        let tested = listed_and_removed(&ns, &node, &node_name, &directory).await;
        let removed = node.sh(&format!("rm -rf {directory}")).await.map(drop);
        cleaned_up(tested, removed)?;
        node.close().await
    })
    .await;
}

async fn listed_and_removed(
    ns: &Namespace,
    node: &NodeShell<'_>,
    node_name: &str,
    directory: &str,
) -> Result<()> {
    // The agent searches at its start.
    Agents::find(ns).await?.restart().await?;
    told_about_node(ns, node_name, directory).await?;
    let counted =
        format!("stoppablecontainer_orphaned_filesystems{{prefix=\"{DEFAULT_HOST_PATH_PREFIX}\"}} 1");
    let metrics = scraped(ns).await?;
    ensure!(
        metrics
            .iter()
            .any(|text| text.lines().any(|line| line == counted)),
        "{metrics:?}"
    );

    let agent = agent_on(&ns.client, node_name).await?;
    let owned = data_directory(ns, "owned").await?;
    let listed = orphans(&agent, &[]).await?.success()?;
    ensure!(listed.contains(directory) && !listed.contains(&owned), "{listed}");
    let key = owned.rsplit('/').next().context("a key")?;
    let refused = orphans(&agent, &["--remove", key]).await?;
    ensure!(
        refused.code != 0
            && refused
                .stderr
                .contains("no data without an instance has this name"),
        "{refused:?}"
    );
    node.sh(&format!("test -d {owned}/upper")).await?;
    orphans(&agent, &["--remove", ORPHAN]).await?.success()?;
    node.sh(&format!("test ! -e {directory}")).await?;
    Ok(())
}

async fn orphans(agent: &Pod, args: &[&str]) -> Result<testkit::Output> {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let mut all = vec!["-n", &namespace, "exec", &name, "--", "/node-agent", "orphans"];
    all.extend(args);
    kubectl(&all, "").await
}

/// Watches until the node has the event.
async fn told_about_node(ns: &Namespace, node: &str, directory: &str) -> Result<()> {
    let events = Api::<Event>::namespaced(ns.client.clone(), "default");
    let fields = format!("regarding.kind=Node,regarding.name={node},reason=OrphanedFilesystem");
    let params = ListParams::default().fields(&fields);
    let says = |event: &Event| event.note.as_deref().is_some_and(|note| note.contains(directory));
    if events.list(&params).await?.iter().any(says) {
        return Ok(());
    }
    let watch = watcher(events, watcher::Config::default().fields(&fields))
        .default_backoff()
        .applied_objects();
    let mut watch = std::pin::pin!(watch.filter_map(async |event| event.ok()));
    let seen = async { while watch.next().await.is_some_and(|event| !says(&event)) {} };
    tokio::time::timeout(patience(std::time::Duration::from_mins(1)), seen)
        .await
        .context("no event about the orphan")
}
