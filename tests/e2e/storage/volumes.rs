//! Volumes that change while a container runs on its kept filesystem, and devices.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{cleaned_up, forget, node_of, run, running, shell_template, start, stop};

/// The kubelet replaces the files of a projected volume (for example tokens before they expire) by
/// renaming a symlink in it. The container has the volume itself and not a copy, so it sees the
/// change.
#[tokio::test]
async fn i5_what_the_kubelet_replaces_in_a_volume_is_seen() {
    in_namespace("replaced", async |ns| {
        let config = |content: &str| json!({"metadata": {"name": "config"}, "data": {"one": format!("{content}\n")}});
        ns.create_json::<ConfigMap>(config("before")).await?;
        let mut template = shell_template();
        template["spec"]["volumes"] = json!([{"name": "all", "projected": {"sources": [
            {"configMap": {"name": "config"}}, {"serviceAccountToken": {"path": "token", "audience": "somebody"}},
        ]}}]);
        template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "all", "mountPath": "/etc/skel"}]);
        run(&ns, "kept", template).await?;
        let seen = ns.sh("kept", "main", "cat /etc/skel/one; cut -c1-9 /etc/skel/token").await?;
        ensure!(seen == "before\neyJhbGciO", "not what was projected: {seen}");
        ns.patch::<ConfigMap>("config", json!({"data": {"one": "after\n"}})).await?;
        // A change of the pod makes the kubelet update its volumes immediately.
        ns.patch::<Pod>("kept", json!({"metadata": {"annotations": {"example.org/look": "now"}}})).await?;
        let watch = "timeout 150 sh -c 'until grep -q after /etc/skel/one; do sleep 0.1; done'; cat /etc/skel/one";
        let seen = ns.sh("kept", "main", watch).await?;
        ensure!(seen == "after", "the container does not see what the kubelet replaced: {seen}");
        Ok(())
    })
    .await;
}

/// A claim in block mode: the container reads and writes it as a device, also after a stop, and its
/// content is not copied.
#[tokio::test]
async fn i5_a_claim_that_is_a_block_device() {
    in_namespace("device", async |ns| {
        let plain = ns
            .create_json::<Pod>(with_name(shell_template(), "where"))
            .await?;
        let plain = ns
            .pod_ready(plain.metadata.name.as_deref().unwrap_or_default())
            .await?;
        let node = NodeShell::on(&ns, &node_of(&plain)?).await?;
        let image = format!("/var/lib/{}.image", ns.name);
        let device = node
            .sh(&format!(
                "truncate -s 16M {image} && losetup --find --show {image}"
            ))
            .await?;
        let tested = on_the_device(&ns, &node_of(&plain)?, &device).await;
        let used = forget(&ns, "kept").await;
        let volumes: Api<PersistentVolume> = ns.cluster_api();
        let volume = volumes.delete(&ns.name, &DeleteParams::default()).await;
        let detached = node.sh(&format!("losetup --detach {device}; rm {image}")).await;
        let tested = cleaned_up(cleaned_up(tested, used), volume.map(drop).map_err(Into::into));
        cleaned_up(tested, detached.map(drop))?;
        node.close().await
    })
    .await;
}

async fn on_the_device(ns: &Namespace, node: &str, device: &str) -> Result<()> {
    let only = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": "Block",
        "capacity": {"storage": "16Mi"}, "persistentVolumeReclaimPolicy": "Retain", "local": {"path": device},
        "claimRef": {"namespace": ns.name, "name": "device"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [only]}]}},
    });
    let volume: PersistentVolume =
        serde_json::from_value(json!({"metadata": {"name": ns.name}, "spec": spec}))?;
    ns.cluster_api()
        .create(&PostParams::default(), &volume)
        .await
        .context("a volume")?;
    ns.create_json::<PersistentVolumeClaim>(json!({"metadata": {"name": "device"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": "Block", "volumeName": ns.name,
        "resources": {"requests": {"storage": "16Mi"}},
    }}))
    .await?;
    // The scheduler's back-off for pods with unbound claims is not what is tested.
    let is_bound = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref();
        status.and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    ns.wait("device", "the claim is bound", is_bound).await?;
    let mut template = shell_template();
    template["spec"]["volumes"] =
        json!([{"name": "device", "persistentVolumeClaim": {"claimName": "device"}}]);
    template["spec"]["containers"][0]["volumeDevices"] =
        json!([{"name": "device", "devicePath": "/dev/data"}]);
    run(ns, "kept", template).await?;
    ns.sh(
        "kept",
        "main",
        "test -b /dev/data; echo written to the device | dd of=/dev/data conv=fsync 2>/dev/null",
    )
    .await?;
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    let read = ns
        .sh(
            "kept",
            "main",
            "test -b /dev/data; dd if=/dev/data bs=21 count=1 2>/dev/null",
        )
        .await?;
    ensure!(read == "written to the device", "the device has {read:?}");
    running(ns, "kept").await.map(drop)
}

fn with_name(mut pod: Value, name: &str) -> Value {
    pod["metadata"] = json!({"name": name});
    pod
}
