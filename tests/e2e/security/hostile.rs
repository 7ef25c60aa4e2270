//! Hostile images and consumers: the node, its driver and their neighbours stay unchanged, and the
//! result is that of a plain pod or a rejection with a one-line message.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use testkit::{Namespace, NodeShell};

use crate::support::{agent_on, data_directory, node_of, run, shell_template, uid_of};

mod connections;
mod descriptors;
mod files;
mod images;
mod processes;
mod silent_volumes;
mod wrapper;

const NEIGHBOUR: &str = "neighbour";
/// The neighbour's file in its kept filesystem.
const SECRET: &str = "the neighbour's";

/// Runs an attack on the node of a neighbour, and compares node, agent and neighbour before and
/// after.
async fn harmless<F>(ns: &Namespace, attack: F) -> Result<()>
where
    F: AsyncFnOnce(&NodeShell<'_>) -> Result<()>,
{
    let neighbour = run(ns, NEIGHBOUR, shell_template()).await?;
    ns.sh(NEIGHBOUR, "main", &format!("echo \"{SECRET}\" > /root/file"))
        .await?;
    let name = node_of(&neighbour)?;
    let node = NodeShell::on(ns, &name).await?;
    let kept = format!("{}/upper", data_directory(ns, NEIGHBOUR).await?);
    let (agent, before) = (agent_on(&ns.client, &name).await?, node.snapshot(&[kept]).await?);

    attack(&node).await?;

    node.ensure_unchanged(&before).await?;
    let after = agent_on(&ns.client, &name).await?;
    ensure!(
        uid_of(&agent) == uid_of(&after) && restarts(&agent) == restarts(&after),
        "the agent was restarted"
    );
    // Through the wrapper in its volume, like a probe.
    let hook = [
        "/.stoppablecontainer/exec-wrapper",
        "hook",
        "--",
        "cat",
        "/root/file",
    ];
    let seen = ns.exec(NEIGHBOUR, "main", &hook).await?.success()?;
    ensure!(seen.trim_end() == SECRET, "the neighbour sees {seen:?}");
    node.close().await
}

/// A template that sleeps on the neighbour's node, with these fields of the main container.
async fn beside_neighbour(ns: &Namespace, main: &Value) -> Result<Value> {
    let node = node_of(&ns.api::<Pod>().get(NEIGHBOUR).await?)?;
    let mut template = shell_template();
    json_patch::merge(&mut template["spec"]["containers"][0], main);
    template["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}],
    }}});
    Ok(template)
}

/// Creates the template as a plain pod with this name.
async fn create_plain(ns: &Namespace, name: &str, template: &Value) -> Result<()> {
    let mut plain = template.clone();
    plain["metadata"] = json!({"name": name});
    ns.create_json::<Pod>(plain).await.map(drop)
}

/// The end of the main container's last attempt: exit code and message.
async fn ended(ns: &Namespace, pod: &str) -> Result<(i32, String)> {
    let last = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        let state = [&status.state, &status.last_state];
        state
            .into_iter()
            .find_map(|state| state.as_ref()?.terminated.clone())
    };
    let seen = ns
        .wait(pod, "its container ended", |pod: &Pod| last(pod).is_some())
        .await?;
    let end = last(&seen).context("the container has not ended")?;
    Ok((end.exit_code, end.message.unwrap_or_default()))
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|c| c.restart_count).sum()
}
