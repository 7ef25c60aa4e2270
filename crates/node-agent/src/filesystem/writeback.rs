/*!
Makes the data of a consumer durable when the consumer ends, and reports if the disk did not take
all of it.

The kernel reports a write error once to each file that was open when the error happened (syncfs(2),
since Linux 5.8), and an unreported one to the next file that is opened. So the agent holds a
descriptor from the consumer's start on: the error may already be reported to another container that
ended on the same disk.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use kube::Client;
use rootfs::Kept;
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use stoppablecontainer_api::{ConsumerReport, FilesystemStatus};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::{Filesystems, data};
use crate::instance::{Instance, State, WritebackOutcome, status};
use crate::node::Host;
use crate::volumes::{Role, Volume, VolumeRecord};

/// How long an unpublish waits for the disk. The kubelet asks again, and gives up a call after two
/// minutes.
const TIME_BUDGET: Duration = Duration::from_mins(1);

/// Begins to listen for errors of the disk, for a consumer that was started by an earlier agent. A
/// disk that does not answer delays no other task.
pub(crate) fn listen_for_errors(host: &Arc<Host>, volume: &Arc<Volume>) {
    if volume.record.role != Role::Consumer {
        return;
    }
    let (host, volume) = (Arc::clone(host), Arc::clone(volume));
    tokio::task::spawn_blocking(move || match kept(&host, &volume.record) {
        Ok(Some(kept)) => volume.listen_for_errors(kept),
        Ok(None) => {}
        Err(error) => tracing::warn!(pod = %volume.record.pod, "cannot open the kept filesystem: {error:#}"),
    });
}

/// Makes the data of a consumer durable. A failure is reported when this returns.
///
/// The work is done once per volume, however often this is called and whether or not a caller waits
/// for its end: the kernel reports the outcome once.
///
/// # Errors
/// When the sync is not finished yet, or a failure cannot be reported yet. The caller repeats the
/// call.
pub(crate) async fn sync_and_report(filesystems: &Arc<Filesystems>, volume: &Arc<Volume>) -> Result<()> {
    let synced = volume.writeback(|| {
        let (pod, instance) = (&volume.record.pod, &volume.record.instance);
        let span = tracing::info_span!(
            target: telemetry::SPANS, "sync", otel.status_code = Empty,
            namespace = pod.namespace, pod = pod.name, instance = instance.name,
        );
        let sync = sync_volume(Arc::clone(filesystems), Arc::clone(volume), span.clone());
        tokio::spawn(sync.instrument(span))
            .map(Result::ok)
            .map(Option::flatten)
            .boxed()
            .shared()
    });
    let pod = &volume.record.pod;
    let outcome = tokio::time::timeout(TIME_BUDGET, synced)
        .await
        .with_context(|| format!("data of pod {pod} is still being written to the disk"))?;
    let Some(instance) = filesystems.instances.find(&volume.record.instance.uid) else {
        return forget(outcome, filesystems.instances.are_synced()).with_context(|| {
            format!("not all data of pod {pod} is durable, and the status does not show it yet")
        });
    };
    if let Some(outcome) = outcome {
        instance.change(|state| state.record_outcome(outcome));
    }
    report(&filesystems.client, &instance).await.or_else(|error| {
        let state = instance.state();
        if state.outcome.is_some_and(|outcome| outcome.failure.is_some()) {
            return Err(error.context(format!(
                "not all data of pod {pod} is durable, and the status does not show it yet"
            )));
        }
        tracing::warn!(instance = %instance.id, "cannot clear an earlier failure in the status yet: {error:#}");
        Ok(())
    })
}

/// Forgets an outcome whose instance is unknown.
///
/// # Errors
/// For a failure, while the agent has not listed its instances: the instance may exist.
fn forget(outcome: Option<WritebackOutcome>, is_synced: bool) -> Result<()> {
    let failed = outcome.is_some_and(|outcome| outcome.failure.is_some());
    ensure!(
        is_synced || !failed,
        "the node agent does not know its instances yet"
    );
    Ok(())
}

async fn sync_volume(
    filesystems: Arc<Filesystems>,
    volume: Arc<Volume>,
    span: Span,
) -> Option<WritebackOutcome> {
    let listening = volume.kept();
    // Without a moved container a successful sync is not a clean stop.
    let wrote = listening.is_some();
    let (host, record) = (Arc::clone(&filesystems.node.host), volume.record.clone());
    let sync = move || match listening {
        Some(kept) => sync(&kept),
        None => kept(&host, &record)?.map_or(Ok(()), |kept| sync(&kept)),
    };
    let begin = Instant::now();
    let synced = tokio::task::spawn_blocking(sync).await.context("sync").flatten();
    filesystems.counters.synced(synced.is_ok(), begin.elapsed());
    let VolumeRecord {
        pod,
        instance,
        prefix,
        ..
    } = &volume.record;
    if synced.is_ok() && !wrote {
        return None;
    }
    let failure = synced.err().map(|error| {
        telemetry::failed(&span);
        tracing::error!(%pod, %instance, "not all data is durable: {error:#}");
        format!(
            "the disk of {} on node {} failed to write something while pod {} ran ({error:#}): what the pod wrote \
             last may be lost. Check the disk and the files; this clears at the next clean stop",
            prefix.display(),
            filesystems.node.name,
            pod.name,
        )
    });
    Some(WritebackOutcome {
        pod_uid: pod.uid.clone(),
        failure,
    })
}

/// Writes everything to the disk. Some file systems that ended all writing after an error have
/// nothing more to sync.
fn sync(kept: &Kept) -> Result<()> {
    kept.sync()?;
    let flags = fstatvfs(kept).context("examine the file system")?.f_flag;
    ensure!(
        !flags.contains(StatVfsMountFlags::RDONLY),
        "its file system is read-only now"
    );
    Ok(())
}

/// Reports a new outcome of the last consumer that ended.
pub(crate) async fn report(client: &Client, instance: &Instance) -> Result<()> {
    status::update(client, instance, news).await
}

/// The status with the outcome, unless it is there already.
fn news(state: &State) -> Option<FilesystemStatus> {
    let (object, before) = (state.object.as_ref()?, state.filesystem()?);
    let outcome = state.outcome.as_ref()?;
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let write_failed = outcome.failure.as_ref().map(|message| ConsumerReport {
        pod_uid: outcome.pod_uid.clone(),
        message: message.clone(),
    });
    (write_failed != before.write_failed).then(|| FilesystemStatus {
        write_failed,
        ..before.clone()
    })
}

fn kept(host: &Host, record: &VolumeRecord) -> Result<Option<Kept>> {
    data::open(&host.root, &record.prefix, &record.instance.uid)
}

// === impl State ===

impl State {
    /// Takes an outcome. That the disk took what was left of a pod at a second try says nothing of
    /// what it did not take at the first.
    fn record_outcome(&mut self, outcome: WritebackOutcome) {
        let told = self
            .filesystem()
            .and_then(|filesystem| filesystem.write_failed.as_ref());
        let failed_before = told.is_some_and(|told| told.pod_uid == outcome.pod_uid)
            || self
                .outcome
                .as_ref()
                .is_some_and(|before| before.pod_uid == outcome.pod_uid && before.failure.is_some());
        if outcome.failure.is_some() || !failed_before {
            self.outcome = Some(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(told: Option<&str>) -> State {
        let told = told.map(|pod| json!({ "podUid": pod, "message": "it failed" }));
        let object = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
            "status": { "filesystem": { "state": "Ready", "nodeName": "n1", "writeFailed": told } },
        });
        State {
            object: Some(Arc::new(serde_json::from_value(object).unwrap())),
            ..State::default()
        }
    }

    fn outcome(pod: &str, failure: Option<&str>) -> WritebackOutcome {
        WritebackOutcome {
            pod_uid: pod.to_owned(),
            failure: failure.map(str::to_owned),
        }
    }

    fn told(state: &State) -> Vec<Option<String>> {
        let told = news(state).map(|status| status.write_failed.map(|report| report.message));
        told.into_iter().collect()
    }

    #[test]
    fn i7_a_failed_write_is_reported_once_and_taken_back_by_a_later_stop_that_succeeds() {
        let mut fresh = state(None);
        assert_eq!(told(&fresh), []);
        fresh.record_outcome(outcome("p1", None));
        assert_eq!(told(&fresh), [], "nothing to say");
        fresh.record_outcome(outcome("p2", Some("it failed")));
        assert_eq!(told(&fresh), [Some("it failed".to_owned())]);

        let mut later = state(Some("p2"));
        later.record_outcome(outcome("p3", None));
        assert_eq!(told(&later), [None]);
    }

    /// The agent was just started: it learns of its instances later than of the write that failed.
    #[test]
    fn i7_i9_a_failure_known_before_the_instances_are_is_not_forgotten() {
        let failed = Some(outcome("p1", Some("it failed")));
        assert!(forget(failed.clone(), false).is_err(), "the kubelet asks again");
        forget(failed, true).unwrap();
        for nothing in [None, Some(outcome("p1", None))] {
            forget(nothing, false).unwrap();
        }
    }

    /// The kubelet repeats an unpublish that failed at a later step, and a restarted agent may be
    /// asked again; the kernel tells an error once.
    #[test]
    fn i7_i9_a_repeated_unpublish_takes_nothing_back() {
        let mut same_agent = state(None);
        same_agent.record_outcome(outcome("p1", Some("it failed")));
        same_agent.record_outcome(outcome("p1", None));
        assert_eq!(told(&same_agent), [Some("it failed".to_owned())]);

        let mut next_agent = state(Some("p1"));
        next_agent.record_outcome(outcome("p1", None));
        assert_eq!(told(&next_agent), []);
    }
}
