//! Operations on a stopped container.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::in_namespace;

use crate::support::{create, keeping_node, phase, run, shell_template, start, stop};

/// With `running: false` from the start, only the provider is created. Autoscalers may remove its
/// node until the container has run.
#[tokio::test]
async fn i14_created_stopped_makes_only_the_provider() {
    in_namespace("created-stopped", async |ns| {
        create(&ns, "kept", false, shell_template()).await?;
        phase(&ns, "kept", Phase::Stopped).await?;
        let provider = ns.pod_ready(&provider_pod_name("kept")).await?;
        ensure!(
            keeping_node(&provider).is_empty(),
            "nothing is lost with the node: {provider:#?}"
        );
        ensure!(
            ns.api::<Pod>().get_opt("kept").await?.is_none(),
            "a consumer although running is false"
        );
        start(&ns, "kept").await?;
        let keeps = |pod: &Pod| keeping_node(pod).len() == 2;
        ns.wait(&provider_pod_name("kept"), "it keeps its node", keeps)
            .await?;
        Ok(())
    })
    .await;
}

/// Edits of env, resources and command while stopped take effect at the next start, and the files
/// are kept.
#[tokio::test]
async fn template_edits_while_stopped_hold_at_the_next_start() {
    in_namespace("edits", async |ns| -> Result<()> {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        stop(&ns, "kept").await?;
        ns.patch::<StoppableContainer>(
            "kept",
            json!({"spec": {"template": {"spec": {"containers": [{
                "name": "main", "image": "ubuntu:22.04",
                "command": ["/bin/sh", "-c", "echo $GREETING > /root/greeting; exec sleep infinity"],
                "env": [{"name": "GREETING", "value": "hello"}],
                "resources": {"limits": {"memory": "96Mi"}},
            }]}}}}),
        )
        .await?;
        let pod = start(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /root/greeting /root/file").await? == "hello\nkept");
        let limits = pod
            .spec
            .and_then(|s| s.containers.into_iter().next())
            .and_then(|c| c.resources?.limits);
        let memory = limits.and_then(|l| l.get("memory").map(|q| q.0.clone()));
        ensure!(memory.as_deref() == Some("96Mi"), "memory limit is {memory:?}");
        Ok(())
    })
    .await;
}

/// Stopping a container that is still starting ends in phase Stopped.
#[tokio::test]
async fn i14_stop_during_start() {
    in_namespace("stop-early", async |ns| {
        create(&ns, "kept", true, shell_template()).await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        Ok(())
    })
    .await;
}
