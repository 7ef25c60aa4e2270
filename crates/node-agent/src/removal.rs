/*!
Deletes the data of an instance that is being deleted, once nobody uses it.
*/

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rootfs::Store;
use stoppablecontainer_api::{FilesystemState, FilesystemStatus};

use crate::agent::Agent;
use crate::host::{Host, Target};
use crate::instances::Instance;
use crate::volumes::Volume;
use crate::{data, status};

/// Deletes the data if the instance is being deleted and no volume of it is published any more, and reports it.
/// An error is worth another try.
pub(crate) async fn remove(agent: &Agent, instance: &Instance) -> Result<()> {
    let Some(object) = instance.state().object else {
        return Ok(());
    };
    if object.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let node = object
        .status
        .as_ref()
        .and_then(|status| status.node_name.as_deref());
    if node != Some(agent.node_name.as_str()) {
        return Ok(());
    }
    for volume in agent.volumes.of_instance(&instance.id.uid) {
        if !is_stale(agent, &volume).await? {
            // Its unpublishing will lead here again.
            return Ok(());
        }
        tracing::info!(pod = %volume.record.pod, "volume of a pod that is gone");
        drop_volume(agent, &volume)?;
    }
    let _working = instance.work.lock().await;
    let prefix = PathBuf::from(&object.spec.host_path_prefix);
    if agent.allows(&prefix) {
        let (host, key) = (Arc::clone(&agent.host), instance.id.uid.clone());
        tokio::task::spawn_blocking(move || delete(&host, &prefix, &key))
            .await
            .context("delete the data")??;
    } else {
        tracing::warn!(instance = %instance.id, prefix = %prefix.display(), "nothing is deleted below a prefix that is not allowed");
    }
    let removed = FilesystemStatus {
        state: FilesystemState::Removed,
        node_name: agent.node_name.clone(),
        provider_pod_uid: None,
        reason: None,
        message: None,
        image: None,
        identity: None,
        usage: None,
        recovery: None,
        disk_low: None,
        blocked: None,
        write_failed: None,
    };
    status::apply(&agent.client, instance, removed).await
}

/// Drops the volumes that are left over from pods that ended while no agent or kubelet ran.
pub(crate) async fn collect_volumes(agent: Arc<Agent>) {
    for volume in agent.volumes.all() {
        let collected = async {
            if is_stale(&agent, &volume).await? {
                tracing::info!(pod = %volume.record.pod, "volume of a pod that is gone");
                drop_volume(&agent, &volume)?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = collected.await {
            tracing::warn!(pod = %volume.record.pod, "cannot find out whether a volume is left over: {error:#}");
        }
    }
}

/// Whether a volume is left over from a pod that ended without an unpublish: nothing is mounted at its target and
/// the pod is gone. (A kubelet forgets volumes of pods that were deleted while the node was down.)
async fn is_stale(agent: &Agent, volume: &Volume) -> Result<bool> {
    let record = &volume.record;
    let target = tokio::task::block_in_place(|| agent.host.target(&record.target))?;
    if target == Target::Mounted {
        return Ok(false);
    }
    let api: Api<Pod> = Api::namespaced(agent.client.clone(), &record.pod.namespace);
    let pod = api
        .get_opt(&record.pod.name)
        .await
        .with_context(|| format!("ask for pod {}", record.pod))?;
    Ok(pod.and_then(|pod| pod.metadata.uid).as_deref() != Some(record.pod.uid.as_str()))
}

fn drop_volume(agent: &Agent, volume: &Volume) -> Result<()> {
    let Some(claim) = agent.volumes.claim(&volume.id) else {
        bail!("volume {} is being changed", volume.id)
    };
    tokio::task::block_in_place(|| claim.remove())
}

fn delete(host: &Host, prefix: &std::path::Path, key: &str) -> Result<()> {
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(());
    };
    let Some(kept) = store.get(key)? else {
        return Ok(());
    };
    let _locked = data::lock_unused(host, &kept)?;
    Ok(store.remove(key)?)
}
