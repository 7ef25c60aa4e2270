/*!
`hold`: a provider reports, its filesystem is prepared, and as long as it stays
its image's layers can be used.
*/

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use exec_wrapper::protocol::Answer;
use stoppablecontainer_api::{RecoveryAnswer, StoppableContainerInstance};

use crate::agent::Agent;
use crate::filesystem::prepare;
use crate::filesystem::recovery;
use crate::instance::state::{Provider, State};
use crate::wrapper::consumer;
use crate::wrapper::socket::Peer;

/// First and longest pause before preparing is tried again after an error that may pass.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Serves a provider until it ends.
pub(crate) async fn hold(agent: &Agent, peer: &mut Peer) -> Result<()> {
    let mut pause = PAUSES.0;
    let container = loop {
        match peer.main_container(agent).await {
            Ok(Ok(container)) => break container,
            // Others in the pod, such as a debug container, have another root to show for the image's.
            Ok(Err(problem)) => return peer.answer(&Answer::Error(problem)).await,
            Err(error) if wait(agent, peer, &error, &mut pause).await? => return Ok(()),
            Err(_) => {}
        }
    };
    let mut changes = peer.instance.subscribe();
    loop {
        let Some(object) = changes.borrow_and_update().object.clone() else {
            peer.explain("the node agent does not know the instance yet")
                .await?;
            tokio::select! {
                _ = changes.changed() => continue,
                () = peer.gone() => return Ok(()),
            }
        };
        if object.metadata.deletion_timestamp.is_some() {
            peer.explain("it is being deleted").await?;
            peer.gone().await;
            return Ok(());
        }
        match prepare::prepare(agent, peer, &container, &object).await {
            Ok(Ok(())) => break,
            Ok(Err(failure)) => {
                // Somebody has to change the object or, which nothing announces, the node: restore the data, say.
                peer.explain(&failure.message).await?;
                let asked = |object: &StoppableContainerInstance| {
                    (object.metadata.generation, RecoveryAnswer::of(object))
                };
                let before = asked(&object);
                let changed = changes
                    .wait_for(|state| state.object.as_ref().is_none_or(|object| asked(object) != before));
                tokio::select! {
                    _ = changed => {}
                    () = tokio::time::sleep(PAUSES.1) => {}
                    () = peer.gone() => return Ok(()),
                }
            }
            Err(error) if wait(agent, peer, &error, &mut pause).await? => return Ok(()),
            Err(_) => {}
        }
    }
    let process = Arc::clone(&peer.process);
    let provider = Provider {
        process: Arc::clone(&process),
        pod_uid: peer.volume.record.pod.uid.clone(),
    };
    let instance = Arc::clone(&peer.instance);
    instance.change(|state| state.holding.push(provider));
    // From here on the process is not available to others any more, however this ends.
    let _leaving = Leaving {
        instance: &instance,
        process: &process,
    };
    peer.answer(&Answer::Done).await?;
    // The wrapper asks again when the conversation ends, and then the filesystem is prepared again.
    let ended = process.as_fd().try_clone_to_owned()?;
    tokio::select! {
        _ = changes.wait_for(wants_preparing) => {}
        ended = consumer::ends(ended) => ended?,
        () = peer.gone() => {}
    }
    Ok(())
}

/// Says what may pass, and waits longer every time. Whether the peer has gone meanwhile.
async fn wait(agent: &Agent, peer: &mut Peer, error: &anyhow::Error, pause: &mut Duration) -> Result<bool> {
    let message = format!("{error:#}");
    if let Some(left_out) = peer.volume.paces.lines.next() {
        let (instance, pod) = (&peer.instance.id, &peer.volume.record.pod);
        tracing::warn!(%instance, %pod, left_out, "cannot prepare: {message}");
    }
    peer.explain(&message).await?;
    if let Err(error) = prepare::report_obstacle(agent, peer, &message).await {
        tracing::debug!(instance = %peer.instance.id, "cannot report it: {error:#}");
    }
    tokio::select! {
        () = tokio::time::sleep(*pause) => {}
        () = peer.gone() => return Ok(true),
    }
    *pause = (*pause * 2).min(PAUSES.1);
    Ok(false)
}

/// Whether a filesystem that was prepared has to be prepared again.
fn wants_preparing(state: &State) -> bool {
    let emptied = || {
        let (object, filesystem) = (state.object.as_ref()?, state.filesystem()?);
        Some(recovery::reset_wanted(object, filesystem))
    };
    state.suspect || emptied().unwrap_or(false)
}

/// Takes the process of a conversation back when that ends. Others that hold stay.
struct Leaving<'a> {
    instance: &'a crate::instance::state::Instance,
    process: &'a Arc<rootfs::Process>,
}

impl Drop for Leaving<'_> {
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
