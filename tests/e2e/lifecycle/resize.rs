//! CPU and memory of a container that runs.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::RESTART_REQUIRED;
use testkit::{Namespace, fact, in_namespace};

use crate::support::kubelet::with_setting;
use crate::support::{condition, node_of, run, shell_template, uid_of};

fn with(resources: &Value) -> Value {
    let mut template = shell_template();
    template["spec"]["containers"][0]["resources"] = resources.clone();
    template
}

async fn edit(ns: &Namespace, resources: &Value) -> Result<()> {
    let patch = json!({ "spec": { "template": with(resources) } });
    ns.patch::<StoppableContainer>("kept", patch).await?;
    Ok(())
}

/// The limit of memory that the kubelet reports for the main container.
fn actual_limit(pod: &Pod) -> Option<&str> {
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let main = statuses.find(|status| status.name == "main")?;
    let limit = main.resources.as_ref()?.limits.as_ref()?.get("memory")?;
    Some(&limit.0)
}

/// Notes which control groups the kubelet made the change in.
async fn note_cgroups(ns: &Namespace, node: &str) -> Result<()> {
    let version = match ns.sh("kept", "main", "stat -fc %T /sys/fs/cgroup").await?.trim() {
        "cgroup2fs" => "v2",
        "tmpfs" => "v1",
        other => bail!("/sys/fs/cgroup is {other}"),
    };
    let setting = with_setting(node, "failCgroupV1").await?;
    fact(
        &format!("a node with cgroup {version}"),
        &format!("the kubelet runs{setting}"),
    );
    Ok(())
}

/// The kubelet changes the running container, as it does that of a plain pod. What cannot change in
/// place has its reason in the condition, and a restart applies it.
#[tokio::test]
async fn i12_cpu_and_memory_change_while_it_runs() {
    in_namespace("resize", async |ns| {
        let first = json!({ "limits": { "memory": "64Mi" }, "requests": { "cpu": "10m", "memory": "32Mi" } });
        let before = run(&ns, "kept", with(&first)).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;

        let more = json!({ "limits": { "memory": "96Mi" }, "requests": { "cpu": "20m", "memory": "32Mi" } });
        edit(&ns, &more).await?;
        let is_changed = |pod: &Pod| actual_limit(pod) == Some("96Mi");
        let pod = ns.wait::<Pod>("kept", "has the new limit", is_changed).await?;
        ensure!(uid_of(&pod) == uid_of(&before), "the pod was replaced");
        let node = node_of(&pod)?;
        let statuses = pod.status.and_then(|status| status.container_statuses);
        let restarts: i32 = statuses.iter().flatten().map(|status| status.restart_count).sum();
        ensure!(restarts == 0, "a container was started again");
        fact(
            "edits of CPU and memory of a container that runs",
            "the kubelet changes it in place, without a restart",
        );
        note_cgroups(&ns, &node).await?;
        let is_current = |object: &StoppableContainer| {
            let status = object.status.as_ref();
            status.and_then(|status| status.observed_generation) == object.metadata.generation
                && condition(object, RESTART_REQUIRED).is_none()
        };
        ns.wait("kept", "no restart is required", is_current).await?;
        edit(&ns, &json!({ "requests": { "cpu": "20m", "memory": "32Mi" } })).await?;
        let required = |object: &StoppableContainer| condition(object, RESTART_REQUIRED).is_some();
        let object = ns.wait("kept", "a restart is required", required).await?;
        let (_, _, message) = condition(&object, RESTART_REQUIRED).context("no condition")?;
        ensure!(
            message.contains("resources.limits.memory of container main cannot be removed"),
            "{message}"
        );
        let read = ns.sh("kept", "main", "cat /root/file").await?;
        ensure!(read == "kept", "{read}");
        Ok(())
    })
    .await;
}
