/*!
`run` and `hook`: a consumer is moved onto its filesystem, and who runs in it
waits for that.
*/

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use exec_wrapper::protocol::Answer;
use rootfs::store::StoreError;
use rootfs::{AttachError, Attached, Kept, Request, Store, attach, holders::Holder};
use stoppablecontainer_api::StoppableContainerInstance;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::agent::Agent;
use crate::blocked;
use crate::data::{self, Data};
use crate::instances::Provider;
use crate::serve::Peer;

/// First and longest pause while the kernel takes an old overlay apart. Nothing announces its end.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What stands in the way for now.
enum Obstacle {
    Held(Vec<Holder>),
    Busy,
    Lost,
}

/// Serves the main container of a consumer: moves it as soon as that is possible.
pub(crate) async fn run(agent: &Agent, peer: &mut Peer) -> Result<()> {
    let mut pause = PAUSES.0;
    let mut checked = false;
    loop {
        let Some((object, provider)) = ready(peer).await? else {
            return Ok(());
        };
        if object.metadata.deletion_timestamp.is_some() {
            return refuse(peer, "it is being deleted").await;
        }
        if !checked {
            match check_container(agent, peer, &object).await {
                Ok(None) => checked = true,
                Ok(Some(problem)) => return refuse(peer, &problem).await,
                Err(error) => {
                    wait(
                        peer,
                        &format!("the container runtime says nothing of it: {error:#}"),
                    )
                    .await?;
                    tokio::select! {
                        () = tokio::time::sleep(PAUSES.1) => continue,
                        () = peer.gone() => return Ok(()),
                    }
                }
            }
        }
        match move_container(agent, peer, &object, &provider).await {
            Ok(Ok((attached, kept))) => {
                peer.volume.listen_for_errors(kept);
                let volume = &peer.volume.record;
                tracing::info!(pod = %volume.pod, instance = %volume.instance, ?attached, "filesystem in place");
                peer.instance.change(|state| state.attached += 1);
                blocked::forget(&peer.instance, &volume.pod.uid);
                // Before the answer: should the agent end here, the wrapper asks the next one, which gets here again.
                if let Err(error) = blocked::report(agent, &peer.instance).await {
                    tracing::warn!(pod = %volume.pod, "cannot say that it waits no more: {error:#}");
                }
                return peer.answer(&Answer::Done).await;
            }
            Ok(Err(Obstacle::Held(holders))) => {
                let pids: Vec<_> = holders
                    .iter()
                    .map(|holder| holder.process.id().to_string())
                    .collect();
                wait(
                    peer,
                    &format!(
                        "processes of an earlier start still use it (on the node: {})",
                        pids.join(", ")
                    ),
                )
                .await?;
                tokio::select! {
                    ended = any_ends(holders) => ended?,
                    () = peer.gone() => return Ok(()),
                }
            }
            Ok(Err(Obstacle::Busy)) => {
                if pause == PAUSES.1 {
                    wait(peer, "the kernel still has it mounted for an earlier start").await?;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                    () = peer.gone() => return Ok(()),
                }
            }
            Ok(Err(Obstacle::Lost)) => {
                // Whoever prepares says so in the status, with the ways out.
                peer.instance.change(|state| state.suspect = true);
                return refuse(peer, "the data is gone").await;
            }
            Err(error) => {
                let volume = &peer.volume.record;
                tracing::warn!(pod = %volume.pod, instance = %volume.instance, "cannot start: {error:#}");
                return refuse(peer, &format!("{error:#}")).await;
            }
        }
    }
}

/// Serves an exec hook or probe: waits until its container was moved.
pub(crate) async fn hook(agent: &Agent, peer: &mut Peer) -> Result<()> {
    let mut changes = peer.instance.subscribe();
    loop {
        changes.borrow_and_update();
        let (proc, process, key) = (
            agent.host.proc.clone(),
            Arc::clone(&peer.process),
            peer.instance.id.uid.clone(),
        );
        let looking = Arc::clone(&peer.volume.looking).lock_owned().await;
        let look = move || {
            let _looking = looking;
            let there = attach::is_attached(&proc, &process, &key)?;
            anyhow::Ok((there, attach::is_left_behind(&proc, &process, &key)?))
        };
        match tokio::task::spawn_blocking(look).await?? {
            (true, _) => return peer.answer(&Answer::Done).await,
            (false, true) => {
                let problem =
                    "this process came into the container while that was moved; try again".to_owned();
                return peer.answer(&Answer::Error(problem)).await;
            }
            (false, false) => {}
        }
        peer.explain("the container is not on it yet").await?;
        tokio::select! {
            changed = changes.changed() => changed?,
            () = peer.gone() => return Ok(()),
        }
    }
}

/// Waits for the provider. `None` if the peer has gone.
async fn ready(peer: &mut Peer) -> Result<Option<(Arc<StoppableContainerInstance>, Provider)>> {
    let mut changes = peer.instance.subscribe();
    loop {
        let state = changes.borrow_and_update().clone();
        let waiting = match (state.object, state.provider.filter(|provider| provider.ready)) {
            (Some(object), Some(provider)) if provider.is_of(&object) => return Ok(Some((object, provider))),
            (Some(_), _) => "provider not ready",
            (None, _) => "the node agent does not know the instance yet",
        };
        wait(peer, waiting).await?;
        tokio::select! {
            changed = changes.changed() => changed?,
            () = peer.gone() => return Ok(None),
        }
    }
}

/// Only the main container is moved: another one of the pod that mounted the volume has no business here.
async fn check_container(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
) -> Result<Option<String>> {
    let container = peer.container(agent).await?;
    let main = object.spec.main_container();
    Ok((main != container.name).then(|| {
        format!(
            "container {} is not the main container, {}",
            container.name,
            if main.is_empty() { "none" } else { main }
        )
    }))
}

async fn move_container(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    provider: &Provider,
) -> Result<Result<(Attached, Kept), Obstacle>> {
    let prefix = PathBuf::from(&object.spec.host_path_prefix);
    let disk = agent
        .disks
        .get(&prefix)
        .context("spec.hostPathPrefix is not among those that the node allows")?;
    let working = peer.instance.work().await;
    let _slot = disk.starts.acquire().await.context("the agent ends")?;
    let host = Arc::clone(&agent.host);
    let (image, container) = (Arc::clone(&provider.process), Arc::clone(&peer.process));
    let key = peer.instance.id.uid.clone();
    let work = move || {
        if !matches!(data::look(&host.root, &prefix, &key, None)?, Data::Recorded(record) if !record.resetting)
        {
            return Ok(Err(Obstacle::Lost));
        }
        let store = Store::open(&host.root, &prefix)?.context("the data is gone")?;
        let kept = store.get(&key)?.context("the data is gone")?;
        let request = Request {
            proc: &host.proc,
            node: &host.namespace,
            image: &image,
            container: &container,
            kept: &kept,
            observer: None,
        };
        match attach(request) {
            Ok(attached) => Ok(Ok((attached, kept))),
            Err(AttachError::Held(holders)) => Ok(Err(Obstacle::Held(holders))),
            Err(AttachError::Busy | AttachError::Store(StoreError::Locked)) => Ok(Err(Obstacle::Busy)),
            Err(error) => Err(error.into()),
        }
    };
    let (_working, moved) = working.on_disk(work).await.context("move the container")?;
    moved
}

/// Waits until one of the processes has ended.
async fn any_ends(holders: Vec<Holder>) -> Result<()> {
    let pidfds = holders
        .iter()
        .map(|holder| holder.process.as_fd().try_clone_to_owned());
    let waits = pidfds.map(|pidfd| Box::pin(async move { ends(pidfd?).await }));
    let waits: Vec<_> = waits.collect();
    futures::future::select_all(waits)
        .await
        .0
        .context("wait for a process")
}

// The safe constructors are deprecated because a type may hand out another descriptor later; an `OwnedFd` does not.
#[allow(deprecated)]
async fn ends(pidfd: OwnedFd) -> std::io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    let _ended = pidfd.readable().await?;
    Ok(())
}

/// Tells the container's log and, if it lasts, the instance's status what is being waited for.
async fn wait(peer: &mut Peer, what: &str) -> Result<()> {
    if peer.explain(what).await? {
        blocked::set(peer, what);
    }
    Ok(())
}

/// The container ends, and the kubelet starts it again.
async fn refuse(peer: &mut Peer, problem: &str) -> Result<()> {
    blocked::set(peer, problem);
    let id = peer.instance.id.clone();
    peer.answer(&Answer::Error(format!(
        "the filesystem of {id} cannot be used: {problem}"
    )))
    .await
}
