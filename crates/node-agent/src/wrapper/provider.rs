/*!
`hold` of a provider: prepares its filesystem, and keeps its process known, whose root is the image,
as long as the connection lasts.
*/

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use exec_wrapper::protocol::Answer;
use rootfs::Process;
use stoppablecontainer_api::{RecoveryAnswer, StoppableContainerInstance};
use tracing::Instrument;

use super::peer::{ContainerError, Peer};
use super::process_end;
use crate::backoff::Backoff;
use crate::filesystem::prepare::{self, PrepareError};
use crate::filesystem::{Filesystems, Reporter, recovery};
use crate::instance::{Instance, Provider, State};

/// First and longest pause before preparing is tried again after an error that may pass.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Results of a preparation in the metrics, besides the reasons of failures.
const READY: &str = "Ready";
const RETRY: &str = "Retry";

/// Whether a conversation goes on after a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Enough,
    PeerGone,
}

/// Serves a provider until it ends.
pub(super) async fn hold(filesystems: &Filesystems, peer: &mut Peer) -> Result<()> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let container = loop {
        match peer.main_container(filesystems).await {
            Ok(container) => break container,
            Err(error @ (ContainerError::OtherContainer { .. } | ContainerError::UnseenHooks { .. })) => {
                return peer.send(&Answer::Error(error.to_string())).await;
            }
            Err(ContainerError::Unknown(error)) => {
                if wait(filesystems, peer, &error, &mut backoff).await? == Waited::PeerGone {
                    return Ok(());
                }
            }
        }
    };
    let mut changes = peer.instance.subscribe();
    loop {
        let Some(object) = changes.borrow_and_update().object.clone() else {
            peer.explain("the node agent does not know the instance yet")
                .await?;
            tokio::select! {
                _ = changes.changed() => continue,
                () = peer.closed() => return Ok(()),
            }
        };
        if object.metadata.deletion_timestamp.is_some() {
            peer.explain("it is being deleted").await?;
            peer.closed().await;
            return Ok(());
        }
        let request = prepare::Request {
            instance: &peer.instance,
            object: &object,
            pod_uid: &peer.volume.record.pod.uid,
            container_id: &peer.container_id,
            container: &container,
            process: &peer.process,
        };
        let span = peer.step_span("prepare");
        let prepared = prepare::prepare(filesystems, &request)
            .instrument(span.clone())
            .await;
        let result = match &prepared {
            Ok(()) => READY,
            Err(PrepareError::Final(failure)) => failure.reason,
            Err(PrepareError::Retry(_)) => RETRY,
        };
        span.record("result", result);
        if matches!(prepared, Err(PrepareError::Final(_))) {
            telemetry::failed(&span);
        }
        filesystems.counters.prepared(result);
        match prepared {
            Ok(()) => break,
            Err(PrepareError::Final(failure)) => {
                // The object has to change or, which nothing announces, the node: the data is
                // restored, say.
                peer.explain(&failure.message).await?;
                let answer = |object: &StoppableContainerInstance| {
                    (object.metadata.generation, RecoveryAnswer::of(object))
                };
                let before = answer(&object);
                let changed = changes.wait_for(|state| {
                    state
                        .object
                        .as_ref()
                        .is_none_or(|object| answer(object) != before)
                });
                tokio::select! {
                    _ = changed => {}
                    () = tokio::time::sleep(PAUSES.1) => {}
                    () = peer.closed() => return Ok(()),
                }
            }
            Err(PrepareError::Retry(error)) => {
                if wait(filesystems, peer, &error, &mut backoff).await? == Waited::PeerGone {
                    return Ok(());
                }
            }
        }
    }
    let process = Arc::clone(&peer.process);
    let provider = Provider {
        process: Arc::clone(&process),
        pod_uid: peer.volume.record.pod.uid.clone(),
    };
    let instance = Arc::clone(&peer.instance);
    instance.change(|state| state.holding.push(provider));
    // When this function returns, the process is not available to others any more.
    let _holding = Holding {
        instance: &instance,
        process: &process,
    };
    peer.send(&Answer::Done).await?;
    // The wrapper asks again when the conversation ends, and then the filesystem is prepared again.
    let pidfd = process.as_fd().try_clone_to_owned()?;
    tokio::select! {
        _ = changes.wait_for(wants_preparing) => {}
        ended = process_end::wait(pidfd) => ended?,
        () = peer.closed() => {}
    }
    Ok(())
}

/// Reports an error that may pass, and waits longer every time.
async fn wait(
    filesystems: &Filesystems,
    peer: &mut Peer,
    error: &anyhow::Error,
    backoff: &mut Backoff,
) -> Result<Waited> {
    let message = format!("{error:#}");
    let (instance, pod) = (&peer.instance, &peer.volume.record.pod);
    if let Some(left_out) = peer.volume.limits.log_lines.next() {
        tracing::warn!(instance = %instance.id, %pod, left_out, "cannot prepare: {message}");
    }
    peer.explain(&message).await?;
    let (instance, pod) = (&peer.instance, &peer.volume.record.pod);
    if let Err(error) = Reporter::new(filesystems, instance, &pod.uid)
        .obstacle(&message)
        .await
    {
        tracing::debug!(instance = %instance.id, "cannot report it: {error:#}");
    }
    tokio::select! {
        () = tokio::time::sleep(backoff.next()) => Ok(Waited::Enough),
        () = peer.closed() => Ok(Waited::PeerGone),
    }
}

/// Whether a filesystem that was prepared has to be prepared again.
fn wants_preparing(state: &State) -> bool {
    let emptied = || {
        let (object, filesystem) = (state.object.as_ref()?, state.filesystem()?);
        Some(recovery::reset_wanted(object, filesystem))
    };
    state.recheck_data || emptied().unwrap_or(false)
}

/// Removes the process of a conversation from those that hold when the conversation ends. Others
/// stay.
struct Holding<'a> {
    instance: &'a Instance,
    process: &'a Arc<Process>,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.instance.change(|state| {
            state
                .holding
                .retain(|provider| !Arc::ptr_eq(&provider.process, self.process));
        });
    }
}

#[cfg(test)]
mod tests {
    use exec_wrapper::protocol;
    use stoppablecontainer_api::names;

    /// The wrapper does not link the API crate; the programs that write for it and read from it do.
    #[test]
    fn wrapper_and_api_spell_alike() {
        assert_eq!(protocol::LINE_PREFIX, names::WRAPPER_LINE_PREFIX);
        assert_eq!(protocol::VOLUME_MOUNT_PATH, names::VOLUME_MOUNT_PATH);
    }
}
