/*!
The disk usage of kept filesystems, in the status of their instances.

Those that run are measured every now and then (see `sync::measure`), a stopped one once, when it
was stopped.
*/

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use rootfs::usage::{Usage, measure_kept};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, FilesystemUsage, RecoveryVerb, StoppableContainerInstance,
};

use super::{Filesystems, data, recovery};
use crate::instance::{Instance, status};
use crate::node::Host;
use crate::volumes::{Role, VolumeRecord, Volumes};

/// How long one filesystem may take. What was not reached by then is missing in the numbers.
const TIME: Duration = Duration::from_secs(30);
/// How much longer it may take, as the time is looked at between two entries.
const SLACK: Duration = Duration::from_secs(10);
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

/// The volumes of consumers, by the UIDs of their instances.
pub(crate) fn running(volumes: &Volumes) -> HashMap<String, VolumeRecord> {
    let volumes = volumes.all().into_iter();
    volumes
        .filter(|volume| volume.record.role == Role::Consumer)
        .map(|volume| (volume.record.instance.uid.clone(), volume.record.clone()))
        .collect()
}

/// Measures a filesystem and reports it if that is news.
pub(crate) async fn measure_and_report(filesystems: &Filesystems, volume: &VolumeRecord, moment: Moment) {
    let Some(instance) = filesystems.instances.find(&volume.instance.uid) else {
        return;
    };
    if let Err(error) = try_measure_and_report(filesystems, &instance, volume, moment).await {
        tracing::warn!(instance = %instance.id, "cannot measure the kept filesystem: {error:#}");
    }
}

/// Offers to empty a filesystem that is too large, and takes the offer back when it is not any
/// more.
pub(crate) async fn offer_reset(client: &Client, instance: &Instance) -> Result<()> {
    status::update(client, instance, |state| {
        let (object, before) = (state.object.as_ref()?, state.filesystem()?);
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(with_reset_offer(object, before.clone())).filter(|status| status != before)
    })
    .await
}

async fn try_measure_and_report(
    filesystems: &Filesystems,
    instance: &Instance,
    volume: &VolumeRecord,
    moment: Moment,
) -> Result<()> {
    let resets = instance.state().resets;
    let measured = {
        let _turn = filesystems.measuring.lock().await;
        on_a_thread(&filesystems.node.host, instance, volume).await?
    };
    let Some(measured) = measured else { return Ok(()) };
    status::update(&filesystems.client, instance, |state| {
        let (object, before) = (state.object.as_ref()?, state.filesystem()?);
        let usable = matches!(before.state, FilesystemState::Ready | FilesystemState::Failed);
        if !usable || object.metadata.deletion_timestamp.is_some() || state.resets != resets {
            return None;
        }
        let usage = usage_of(measured, before.usage);
        let status = FilesystemStatus {
            usage: Some(usage),
            ..before.clone()
        };
        let crossed =
            object.storage_excess(Some(before)).is_some() != object.storage_excess(Some(&status)).is_some();
        (crossed || is_news(before.usage, usage, moment)).then(|| with_reset_offer(object, status))
    })
    .await
}

/// Measures on a thread of its own, whose low priority ends with it. `None` if nothing is there. A
/// disk that does not answer has one such thread for each filesystem, and no task waits long for
/// it.
async fn on_a_thread(host: &Arc<Host>, instance: &Instance, volume: &VolumeRecord) -> Result<Option<Usage>> {
    let measuring = Arc::clone(&instance.measuring)
        .try_lock_owned()
        .context("the disk has not answered an earlier request")?;
    let (host, prefix, key) = (
        Arc::clone(host),
        volume.prefix.clone(),
        volume.instance.uid.clone(),
    );
    let (send, receive) = tokio::sync::oneshot::channel();
    let work = move || -> Result<Option<Usage>> {
        // Of this thread alone, and of its input and output too, which follow it.
        rustix::process::setpriority_process(None, 19).context("lower the priority")?;
        let Some(kept) = data::open(&host.root, &prefix, &key)? else {
            return Ok(None);
        };
        if !kept.has_upper()? {
            return Ok(None);
        }
        let until = std::time::Instant::now() + TIME;
        measure_kept(&kept, until).context("measure").map(Some)
    };
    std::thread::Builder::new()
        .name("measure".to_owned())
        .spawn(move || {
            let _measuring = measuring;
            // The receiver is gone if it took too long, or if the agent is shutting down.
            drop(send.send(work()));
        })
        .context("start a thread")?;
    tokio::time::timeout(TIME + SLACK, receive)
        .await
        .context("the disk does not answer")?
        .context("the thread ended")?
}

/// The usage to report. An incomplete measurement never reports less than before.
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
fn with_reset_offer(object: &StoppableContainerInstance, status: FilesystemStatus) -> FilesystemStatus {
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
        let offered = with_reset_offer(&object("1k"), ready.clone());
        let offer = offered.recovery.clone().unwrap();
        assert_eq!(offer.verbs, [RecoveryVerb::Reset]);
        assert_eq!(
            with_reset_offer(&object("1k"), offered.clone()),
            offered,
            "the same offer as long as it stands"
        );
        let raised = with_reset_offer(&object("2k"), offered);
        assert_eq!(raised, ready, "it is taken back");
        assert_ne!(with_reset_offer(&object("1k"), raised).recovery, Some(offer));
    }
}
