//! `whileStopped: Release`: a stopped container costs no pod, no address and no quota, only disk
//! space.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;
use stoppablecontainer_api::conditions::{PROVIDER_READY, reason};
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{
    blocked, data_directory, node_of, phase, run, running, set_running, shell_template, start,
};

/// Stops it and waits until nothing of it is left but the files.
async fn release(ns: &Namespace, name: &str) -> Result<()> {
    set_running(ns, name, false).await?;
    phase(ns, name, Phase::Stopped).await?;
    let pods = ns.api::<Pod>().list(&ListParams::default()).await?;
    ensure!(pods.items.is_empty(), "Stopped, and there are pods");
    Ok(())
}

#[tokio::test]
async fn i1_i11_a_released_container_costs_no_pod_and_keeps_its_files() {
    in_namespace("released", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"provider": {"whileStopped": "Release"}}}))
            .await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        release(&ns, "kept").await?;
        blocked(&ns, "kept", PROVIDER_READY, reason::RELEASED).await?;
        for _ in 0..2 {
            start(&ns, "kept").await?;
            ensure!(
                ns.sh("kept", "main", "cat /root/file").await? == "kept",
                "the file is gone"
            );
            release(&ns, "kept").await?;
        }
        // The wish can change while it is released.
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"provider": {"whileStopped": "Keep"}}}))
            .await?;
        ns.pod_ready(&provider_pod_name("kept")).await?;
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"provider": {"whileStopped": "Release"}}}))
            .await?;
        ns.wait_gone::<Pod>(&provider_pod_name("kept")).await?;
        set_running(&ns, "kept", true).await?;
        running(&ns, "kept").await?;
        release(&ns, "kept").await?;
        // Nothing of it runs, and its data is removed all the same.
        let directory = data_directory(&ns, "kept").await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        node.sh(&format!("test -d {directory}")).await?;
        ns.delete::<StoppableContainer>("kept").await?;
        let left = node.sh(&format!("ls -d {directory} || true")).await?;
        ensure!(left.is_empty(), "{left} is left");
        node.close().await
    })
    .await;
}
