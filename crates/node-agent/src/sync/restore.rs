/*!
Volumes that an earlier agent published on this node. The agent serves them again. It removes those
of pods that ended meanwhile, which the kubelet does not unpublish any more (for example after a
reboot).

The agent retries until everything succeeded once.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::backoff::Backoff;
use crate::filesystem::{Filesystems, writeback};
use crate::volumes::{VolumeRecord, left_over};
use crate::wrapper;

/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Serves what an earlier agent published, and begins a task for what is left.
pub(crate) fn restore(filesystems: &Arc<Filesystems>) -> Result<()> {
    let served = serve_again(filesystems)?;
    tokio::spawn(finish(Arc::clone(filesystems), served));
    Ok(())
}

async fn finish(filesystems: Arc<Filesystems>, mut served: bool) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let collected = remove_left_over(&filesystems).await;
        if served && collected {
            return;
        }
        tokio::time::sleep(backoff.next()).await;
        served = served
            || serve_again(&filesystems).unwrap_or_else(|error| {
                tracing::warn!("cannot serve what was published before: {error:#}");
                false
            });
    }
}

/// Whether all that was published before is served. The others must not suffer from one that is
/// not.
fn serve_again(filesystems: &Arc<Filesystems>) -> Result<bool> {
    let mut all = true;
    for (id, record) in filesystems.volumes.recorded()? {
        if filesystems
            .volumes
            .get(&id)
            .is_some_and(|volume| volume.is_served())
        {
            continue;
        }
        if let Err(error) = record.and_then(|record| serve_one(filesystems, &id, record)) {
            tracing::error!(
                volume = id,
                "cannot serve a volume that was published before: {error:#}"
            );
            all = false;
        }
    }
    Ok(all)
}

fn serve_one(filesystems: &Arc<Filesystems>, id: &str, record: Option<VolumeRecord>) -> Result<()> {
    let Some(guard) = filesystems.volumes.try_lock(id) else {
        bail!("it is being changed");
    };
    let Some(record) = record else {
        return guard.remove().context("remove an incomplete volume");
    };
    tracing::info!(pod = %record.pod, role = ?record.role, "serving a volume that was published before");
    // Known even if it cannot be served yet: its consumer has its filesystem and is to be measured
    // and synced.
    let volume = filesystems.volumes.get(id).unwrap_or_else(|| {
        let volume = guard.publish(record.clone());
        writeback::listen_for_errors(&filesystems.node.host, &volume);
        volume
    });
    let (_, listener) = guard.create(&record)?;
    wrapper::serve(Arc::clone(filesystems), volume, listener)
}

/// Removes volumes of pods that are gone. Whether all were looked at.
async fn remove_left_over(filesystems: &Filesystems) -> bool {
    let mut all = true;
    let (host, client) = (&filesystems.node.host, &filesystems.client);
    for volume in filesystems.volumes.all() {
        let collected = async {
            if left_over::is_left_over(host, client, &volume).await? {
                left_over::remove(host, &filesystems.volumes, &volume)?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = collected.await {
            tracing::warn!(pod = %volume.record.pod, "cannot check whether a volume is left over: {error:#}");
            all = false;
        }
    }
    all
}
