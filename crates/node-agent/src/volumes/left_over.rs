/*!
Volumes of pods that are gone without an unpublish. A kubelet forgets volumes of pods that were
deleted while the node was down (kubernetes#127229).
*/

use anyhow::{Result, bail};
use kube::Client;

use super::{Volume, Volumes};
use crate::instance::pod;
use crate::node::{Host, Target};

/// Whether a volume is left over: nothing is mounted at its target, and its pod is gone.
pub(crate) async fn is_left_over(host: &Host, client: &Client, volume: &Volume) -> Result<bool> {
    let record = &volume.record;
    let target = tokio::task::block_in_place(|| host.target(&record.target))?;
    if target == Target::Mounted {
        return Ok(false);
    }
    let pod = pod::get(client, &record.pod).await?;
    Ok(pod.and_then(|pod| pod.metadata.uid).as_deref() != Some(record.pod.uid.as_str()))
}

/// Removes a volume that is left over, with the directory at its target.
pub(crate) fn remove(host: &Host, volumes: &Volumes, volume: &Volume) -> Result<()> {
    let Some(guard) = volumes.try_lock(&volume.id) else {
        bail!("volume {} is being changed", volume.id)
    };
    tracing::info!(pod = %volume.record.pod, "removing the volume of a pod that is gone");
    tokio::task::block_in_place(|| {
        host.unmount_volume(&volume.record.target)?;
        guard.remove()
    })
}
