/*!
What an earlier agent published on this node: its volumes are served again, and
those of pods that ended meanwhile, which no kubelet takes back any more (after a
reboot, say), are removed.

What does not succeed is tried again until it does, and then nothing is done any more.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::agent::Agent;
use crate::filesystem::writeback;
use crate::instance::pod;
use crate::node::host::Target;
use crate::volumes::Volume;
use crate::volumes::record::Record;
use crate::wrapper::socket;

/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves what an earlier agent published, and goes on with what is left of that by itself.
pub(crate) fn restore(agent: &Arc<Agent>) -> Result<()> {
    let served = serve_again(agent)?;
    tokio::spawn(finish(Arc::clone(agent), served));
    Ok(())
}

async fn finish(agent: Arc<Agent>, mut served: bool) {
    let mut pause = PAUSES.0;
    loop {
        let collected = collect(&agent).await;
        if served && collected {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        served = served
            || serve_again(&agent).unwrap_or_else(|error| {
                tracing::warn!("cannot serve what was published before: {error:#}");
                false
            });
    }
}

/// Whether all that was published before is served. The others must not suffer from one that is not.
fn serve_again(agent: &Arc<Agent>) -> Result<bool> {
    let mut all = true;
    for (id, record) in agent.volumes.recorded()? {
        if agent.volumes.get(&id).is_some_and(|volume| volume.is_served()) {
            continue;
        }
        if let Err(error) = record.and_then(|record| serve_one(agent, &id, record)) {
            tracing::error!(
                volume = id,
                "cannot serve a volume that was published before: {error:#}"
            );
            all = false;
        }
    }
    Ok(all)
}

fn serve_one(agent: &Arc<Agent>, id: &str, record: Option<Record>) -> Result<()> {
    let Some(claim) = agent.volumes.claim(id) else {
        bail!("it is being changed");
    };
    let Some(record) = record else {
        return claim.remove().context("remove the rest of a volume");
    };
    tracing::info!(pod = %record.pod, role = ?record.role, "serving a volume that was published before");
    // Known even if it cannot be served yet: its consumer has its filesystem and is to be measured and synced.
    let volume = agent.volumes.get(id).unwrap_or_else(|| {
        let volume = claim.publish(record.clone());
        writeback::watch(&agent.host, &volume);
        volume
    });
    let (_, listener) = claim.create(&record)?;
    socket::spawn(Arc::clone(agent), volume, listener)
}

/// Removes volumes of pods that are gone. Whether all were looked at.
async fn collect(agent: &Agent) -> bool {
    let mut all = true;
    for volume in agent.volumes.all() {
        let collected = async {
            if is_stale(agent, &volume).await? {
                drop_volume(agent, &volume)?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = collected.await {
            tracing::warn!(pod = %volume.record.pod, "cannot find out whether a volume is left over: {error:#}");
            all = false;
        }
    }
    all
}

/// Whether a volume is left over from a pod that ended without an unpublish: nothing is mounted at its target and
/// the pod is gone. (A kubelet forgets volumes of pods that were deleted while the node was down: kubernetes#127229.)
pub(crate) async fn is_stale(agent: &Agent, volume: &Volume) -> Result<bool> {
    let record = &volume.record;
    let target = tokio::task::block_in_place(|| agent.host.target(&record.target))?;
    if target == Target::Mounted {
        return Ok(false);
    }
    let asked = pod::get(&agent.client, &record.pod.namespace, &record.pod.name);
    let pod = tokio::time::timeout(TIMEOUT, asked)
        .await
        .context("the API server does not answer")?
        .with_context(|| format!("ask for pod {}", record.pod))?;
    Ok(pod.and_then(|pod| pod.metadata.uid).as_deref() != Some(record.pod.uid.as_str()))
}

/// Removes a volume that is left over, with the directory at its target.
pub(crate) fn drop_volume(agent: &Agent, volume: &Volume) -> Result<()> {
    let Some(claim) = agent.volumes.claim(&volume.id) else {
        bail!("volume {} is being changed", volume.id)
    };
    tracing::info!(pod = %volume.record.pod, "volume of a pod that is gone");
    tokio::task::block_in_place(|| {
        agent.host.unmount_volume(&volume.record.target)?;
        claim.remove()
    })
}
