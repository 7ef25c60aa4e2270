//! What the verbs do: the files of a container through its whole life.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::in_namespace;

use super::{create, failed, stopc};
use crate::support::{blocked, phase};

/// From `create` to `delete`: every wait ends when its state is there, and the files are kept.
#[tokio::test]
async fn plugin_create_stop_start_delete() {
    in_namespace("plugin-life", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let write = ["exec", "kept", "--", "sh", "-c", "echo kept > /root/file"];
        stopc(&ns, &write).await?.success()?;

        let said = stopc(&ns, &["stop", "kept"]).await?.success()?;
        ensure!(said.starts_with("stoppablecontainer/kept stopped ("), "{said}");
        let gone = ns.api::<Pod>().get_opt("kept").await?.is_none();
        ensure!(gone, "stop ended while the pod was there");
        let said = stopc(&ns, &["stop", "kept"]).await?.success()?;
        ensure!(
            said.starts_with("stoppablecontainer/kept already stopped"),
            "{said}"
        );
        let table = stopc(&ns, &["list"]).await?.success()?;
        ensure!(table.contains("kept   Stopped   True"), "{table}");

        let read = ["exec", "kept", "--", "cat", "/root/file"];
        failed(&stopc(&ns, &read).await?, 1, "kubectl stopc start kept")?;
        let read = ["exec", "kept", "--start", "--", "cat", "/root/file"];
        let file = stopc(&ns, &read).await?.success()?;
        ensure!(file == "kept\n", "{file:?}");
        stopc(&ns, &["status", "kept"]).await?.success()?;

        failed(&stopc(&ns, &["delete", "kept"]).await?, 2, "-y")?;
        let said = stopc(&ns, &["delete", "kept", "-y"]).await?.success()?;
        ensure!(said.starts_with("stoppablecontainer/kept deleted ("), "{said}");
        let gone = ns.api::<StoppableContainer>().get_opt("kept").await?.is_none();
        ensure!(gone, "delete ended while the object was there");
        stopc(&ns, &["delete", "kept", "-y", "--ignore-not-found"])
            .await?
            .success()
            .map(drop)
    })
    .await;
}

/// `restart` ends with another pod and the same files.
#[tokio::test]
async fn plugin_restart_replaces_the_pod() {
    in_namespace("plugin-restart", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let before = ns.api::<Pod>().get("kept").await?.uid();
        stopc(&ns, &["restart", "kept", "--grace-period=1"])
            .await?
            .success()?;
        let after = ns.api::<Pod>().get("kept").await?.uid();
        ensure!(before != after, "restart ended with the old pod");
        let file = ns.sh("kept", "main", "cat /root/file").await?;
        ensure!(file == "kept", "{file:?}");
        Ok(())
    })
    .await;
}

/// `reset` of a container without a problem: its files are gone, and it is as requested.
#[tokio::test]
async fn plugin_reset_of_healthy_files() {
    in_namespace("plugin-reset", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        failed(
            &stopc(&ns, &["reset", "kept"]).await?,
            2,
            "All its files are lost.",
        )?;
        stopc(&ns, &["reset", "kept", "-y"]).await?.success()?;
        ns.pod_ready("kept").await?;
        let file = ns.sh("kept", "main", "cat /root/file || echo none").await?;
        ensure!(file == "none", "{file:?}");
        Ok(())
    })
    .await;
}

/// `accept` uses the files with another image.
#[tokio::test]
async fn plugin_accept_uses_the_files_with_another_image() {
    in_namespace("plugin-accept", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        failed(
            &stopc(&ns, &["accept", "kept", "-y"]).await?,
            1,
            "nothing to accept",
        )?;
        stopc(&ns, &["stop", "kept"]).await?.success()?;
        let object = ns.api::<StoppableContainer>().get("kept").await?;
        let mut template = object.spec.template.value()?;
        template["spec"]["containers"][0]["image"] = json!("python:3.11");
        let patch = json!({ "spec": { "template": template } });
        ns.patch::<StoppableContainer>("kept", patch).await?;
        blocked(&ns, "kept", FILESYSTEM_READY, reason::IMAGE_CHANGED).await?;

        let start = stopc(&ns, &["start", "kept"]).await?;
        failed(&start, 1, "kubectl stopc accept kept")?;
        stopc(&ns, &["accept", "kept", "-y"]).await?.success()?;
        phase(&ns, "kept", Phase::Running).await?;
        ns.pod_ready("kept").await?;
        let seen = ns
            .sh("kept", "main", "cat /root/file; command -v python3")
            .await?;
        ensure!(
            seen.starts_with("kept\n/"),
            "not the files on the new image: {seen}"
        );
        Ok(())
    })
    .await;
}

/// `resize` says when the change takes effect, and it does.
#[tokio::test]
async fn plugin_resize_takes_effect_as_it_says() {
    in_namespace("plugin-resize", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let said = stopc(&ns, &["resize", "kept", "--memory", "96Mi"])
            .await?
            .success()?;
        if said.contains("at the next start") {
            stopc(&ns, &["stop", "kept", "--grace-period=1"])
                .await?
                .success()?;
            stopc(&ns, &["start", "kept"]).await?.success()?;
        } else {
            ensure!(said.contains("; live"), "{said}");
        }
        let pod = ns.api::<Pod>().get("kept").await?;
        let main = pod.spec.and_then(|spec| spec.containers.into_iter().next());
        let limits = main
            .and_then(|main| main.resources?.limits)
            .context("no limits")?;
        ensure!(
            limits.get("memory").map(|memory| memory.0.as_str()) == Some("96Mi"),
            "{limits:?}"
        );
        Ok(())
    })
    .await;
}
