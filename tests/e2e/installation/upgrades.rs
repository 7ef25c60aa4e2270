//! Upgrades and rollbacks beside containers that run.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testkit::{Namespace, alone_in_namespace};

use super::helm::Helm;
use crate::support::release::CONTROLLERS;
use crate::support::{AGENTS, cleaned_up, run, running, shell_template, start, stop, uid_of};

/// An annotation of all pods of the release: an upgrade to it replaces each of them.
const ANNOTATION: &str = "installation-test";

/// Helm replaces the controllers and the agents twice. The container runs on, and its files are
/// there after its next start. The cluster is then as the chart rendered it: a GitOps tool has
/// nothing to repair, after everything that the other tests did.
#[tokio::test]
async fn i9_f27_an_upgrade_and_a_rollback_leave_containers_running() {
    alone_in_namespace("upgraded", async |ns, _alone| {
        let helm = Helm::installed(&ns).await?;
        helm.does_not_drift().await?;
        let revision = helm.revision().await?;
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;

        let annotations =
            ["controller", "agent"].map(|part| format!("{part}.podAnnotations.{ANNOTATION}=upgraded"));
        let annotations = annotations.join(",");
        let upgraded = async {
            helm.upgrade(&["--set-string", &annotations]).await?;
            ensure!(
                all_annotated(&ns, true).await?,
                "pods of the earlier revision are left"
            );
            continues(&ns, &pod).await?;
            helm.does_not_drift().await
        };
        let upgraded = upgraded.await;
        let pod = running(&ns, "kept").await?;
        cleaned_up(upgraded, helm.roll_back(&revision).await)?;
        ensure!(
            all_annotated(&ns, false).await?,
            "pods of the later revision are left"
        );
        continues(&ns, &pod).await?;
        helm.does_not_drift().await
    })
    .await;
}

/// The consumer is the same, and its container was not restarted. It then stops and starts with its
/// file.
async fn continues(ns: &Namespace, before: &Pod) -> Result<()> {
    let after = running(ns, "kept").await?;
    ensure!(uid_of(&after) == uid_of(before), "the consumer is another pod");
    let status = after.status.context("no status")?;
    let restarts: i32 = status
        .container_statuses
        .iter()
        .flatten()
        .map(|container| container.restart_count)
        .sum();
    ensure!(restarts == 0, "{restarts} restarts");
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    let file = ns.sh("kept", "main", "cat /root/file").await?;
    ensure!(file == "kept", "the file has {file:?}");
    Ok(())
}

/// Whether the controllers and agents that are not on their way out have the annotation, or do not
/// have it.
async fn all_annotated(ns: &Namespace, wanted: bool) -> Result<bool> {
    for labels in [CONTROLLERS, AGENTS] {
        let all = Api::<Pod>::all(ns.client.clone());
        let mut pods = all.list(&ListParams::default().labels(labels)).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        ensure!(!pods.is_empty(), "no pod has the labels {labels}");
        if pods
            .iter()
            .any(|pod| pod.annotations().contains_key(ANNOTATION) != wanted)
        {
            return Ok(false);
        }
    }
    Ok(true)
}
