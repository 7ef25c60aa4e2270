/*!
What kept filesystems take on the disk, in the status of their instances.

Those that run are measured in turn, one at a time and at the lowest priority,
with pauses that grow with the work: measuring never takes more than a small share
of one processor. A stopped one is measured once, when it was stopped.
*/

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rootfs::Store;
use rootfs::usage::{Usage, measure};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, FilesystemUsage, RecoveryVerb, StoppableContainerInstance,
};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::host::Host;
use crate::instances::Instance;
use crate::journal::{Record, Role};
use crate::{recovery, space, status};

/// Pause between two rounds; the kubelet looks at the limits of other containers as often.
const PAUSE: Duration = Duration::from_secs(10);
/// A pause is at least so many times as long as the round before it, up to [`LONGEST`].
const SHARE: u32 = 20;
/// Longest pause between two rounds.
const LONGEST: Duration = Duration::from_mins(10);
/// How long one filesystem may take. What was not reached by then is missing in the numbers.
const TIME: Duration = Duration::from_secs(30);
/// Changes of fewer bytes are not written while it runs.
const BYTES: i64 = 1 << 20;
/// Changes of fewer inodes are not written while it runs.
const INODES: i64 = 200;

/// When something is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Running,
    Stopped,
}

/// Measures what runs, for ever.
pub(crate) async fn follow(agent: Arc<Agent>) {
    loop {
        let began = Instant::now();
        for record in running(&agent).into_values() {
            observe(&agent, &record, Moment::Running).await;
        }
        space::warn(&agent).await;
        tokio::time::sleep((began.elapsed() * SHARE).clamp(PAUSE, LONGEST)).await;
    }
}

/// The volumes of consumers, by the UIDs of their instances.
pub(crate) fn running(agent: &Agent) -> HashMap<String, Record> {
    let volumes = agent.volumes.all().into_iter();
    volumes
        .filter(|volume| volume.record.role == Role::Consumer)
        .map(|volume| (volume.record.instance.uid.clone(), volume.record.clone()))
        .collect()
}

/// Measures a filesystem and reports it if that is news.
pub(crate) async fn observe(agent: &Agent, volume: &Record, moment: Moment) {
    let instance = agent.instances.get(&volume.instance);
    if let Err(error) = try_observe(agent, &instance, volume, moment).await {
        tracing::warn!(instance = %instance.id, "cannot measure the kept filesystem: {error:#}");
    }
}

/// Offers to empty a filesystem that is too large, and takes the offer back when it is not any more.
pub(crate) async fn judge(agent: &Agent, instance: &Instance) -> Result<()> {
    let news = || {
        let state = instance.state();
        let (object, before) = (state.object.as_ref()?, state.filesystem()?);
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(judged(object, before.clone())).filter(|status| status != before)
    };
    if news().is_none() {
        return Ok(());
    }
    let _working = instance.work.lock().await;
    match news() {
        Some(status) => status::apply(&agent.client, instance, status).await,
        None => Ok(()),
    }
}

async fn try_observe(agent: &Agent, instance: &Instance, volume: &Record, moment: Moment) -> Result<()> {
    let resets = instance.state().resets;
    let measured = {
        let _turn = agent.measuring.lock().await;
        on_a_thread(&agent.host, volume).await?
    };
    let Some(measured) = measured else { return Ok(()) };
    let _working = instance.work.lock().await;
    let state = instance.state();
    let (Some(object), Some(before)) = (&state.object, state.filesystem()) else {
        return Ok(());
    };
    let usable = matches!(before.state, FilesystemState::Ready | FilesystemState::Failed);
    if !usable || object.metadata.deletion_timestamp.is_some() || state.resets != resets {
        return Ok(());
    }
    let usage = usage_of(measured, before.usage);
    let status = FilesystemStatus {
        usage: Some(usage),
        ..before.clone()
    };
    let crossed =
        object.storage_excess(Some(before)).is_some() != object.storage_excess(Some(&status)).is_some();
    if crossed || is_news(before.usage, usage, moment) {
        status::apply(&agent.client, instance, judged(object, status)).await?;
    }
    Ok(())
}

/// Measures on a thread of its own, whose low priority ends with it. `None` if nothing is there.
async fn on_a_thread(host: &Arc<Host>, volume: &Record) -> Result<Option<Usage>> {
    let (host, prefix, key) = (
        Arc::clone(host),
        volume.prefix.clone(),
        volume.instance.uid.clone(),
    );
    let (send, receive) = tokio::sync::oneshot::channel();
    let work = move || -> Result<Option<Usage>> {
        // Of this thread alone, and of its input and output too, which follow it.
        rustix::process::setpriority_process(None, 19).context("lower the priority")?;
        let Some(store) = Store::open(&host.root, &prefix)? else {
            return Ok(None);
        };
        let Some(kept) = store.get(&key)? else {
            return Ok(None);
        };
        if !kept.has_upper()? {
            return Ok(None);
        }
        let until = std::time::Instant::now() + TIME;
        measure(kept.upper()?, until).context("measure").map(Some)
    };
    std::thread::Builder::new()
        .name("measure".to_owned())
        // Nobody listens any more only if the agent ends.
        .spawn(move || drop(send.send(work())))
        .context("start a thread")?;
    receive.await.context("the thread ended")?
}

/// What is reported. What was not measured to its end is no less than before.
fn usage_of(measured: Usage, before: Option<FilesystemUsage>) -> FilesystemUsage {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let usage = FilesystemUsage {
        bytes: number(measured.bytes),
        inodes: number(measured.inodes),
    };
    match before {
        Some(before) if !measured.complete => FilesystemUsage {
            bytes: usage.bytes.max(before.bytes),
            inodes: usage.inodes.max(before.inodes),
        },
        _ => usage,
    }
}

fn is_news(before: Option<FilesystemUsage>, now: FilesystemUsage, moment: Moment) -> bool {
    let Some(before) = before else { return true };
    let large =
        |before: i64, now: i64, least: i64| before.abs_diff(now) > least.max(before / 20).unsigned_abs();
    match moment {
        Moment::Stopped => before != now,
        Moment::Running => large(before.bytes, now.bytes, BYTES) || large(before.inodes, now.inodes, INODES),
    }
}

/// `status` with the offer that its usage deserves.
fn judged(object: &StoppableContainerInstance, status: FilesystemStatus) -> FilesystemStatus {
    if status.state != FilesystemState::Ready {
        return status;
    }
    let recovery = object.storage_excess(Some(&status)).map(|_| {
        let offer = status.recovery.clone();
        offer.unwrap_or_else(|| recovery::new_offer(vec![RecoveryVerb::Reset]))
    });
    FilesystemStatus { recovery, ..status }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(bytes: i64, inodes: i64) -> FilesystemUsage {
        FilesystemUsage { bytes, inodes }
    }

    #[test]
    fn small_changes_are_written_when_it_stops() {
        let news = |now, moment| is_news(Some(usage(100 << 20, 1000)), now, moment);
        let little = usage((102 << 20) + 1, 1100);
        assert!(!news(little, Moment::Running));
        assert!(news(little, Moment::Stopped));
        assert!(!news(usage(100 << 20, 1000), Moment::Stopped));
        assert!(news(usage(106 << 20, 1000), Moment::Running));
        assert!(news(usage(100 << 20, 1300), Moment::Running));
        assert!(is_news(None, usage(0, 1), Moment::Running));
    }

    #[test]
    fn what_was_not_reached_does_not_make_it_smaller() {
        let measured = |complete| Usage {
            bytes: 10,
            inodes: 2000,
            complete,
        };
        assert_eq!(usage_of(measured(false), Some(usage(20, 1000))), usage(20, 2000));
        assert_eq!(usage_of(measured(true), Some(usage(20, 1000))), usage(10, 2000));
    }

    #[test]
    fn i1_a_reset_is_offered_only_while_it_is_too_large() {
        let object = |limit: &str| -> StoppableContainerInstance {
            serde_json::from_value(json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "metadata": { "name": "web" },
                "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [
                    { "name": "main", "resources": { "limits": { "ephemeral-storage": limit } } },
                ]}}},
            }))
            .unwrap()
        };
        let ready: FilesystemStatus = serde_json::from_value(json!({
            "state": "Ready", "nodeName": "n1", "usage": { "bytes": 2000, "inodes": 1 },
        }))
        .unwrap();
        let offered = judged(&object("1k"), ready.clone());
        let offer = offered.recovery.clone().unwrap();
        assert_eq!(offer.verbs, [RecoveryVerb::Reset]);
        assert_eq!(
            judged(&object("1k"), offered.clone()),
            offered,
            "the same offer as long as it stands"
        );
        let raised = judged(&object("2k"), offered);
        assert_eq!(raised, ready, "it is taken back");
        assert_ne!(judged(&object("1k"), raised).recovery, Some(offer));
    }
}
