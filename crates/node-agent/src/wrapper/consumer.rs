/*!
`run` and `hook` of a consumer: `run` moves the container onto its kept filesystem, `hook` waits
until that is done.
*/

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use exec_wrapper::protocol::Answer;
use rootfs::store::StoreError;
use rootfs::{AttachError, Attached, Kept, Repeat, Request, attach, holders::Holder};
use stoppablecontainer_api::StoppableContainerInstance;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::Instrument;

use super::peer::{ContainerError, Peer};
use super::{process_end, unseen_hooks};
use crate::backoff::Backoff;
use crate::filesystem::data::{self, Data};
use crate::filesystem::{Filesystems, blocked};
use crate::instance::{DataGuard, Provider};

/// First and longest pause while the kernel removes an old overlay. The kernel does not announce
/// the end of that.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How often the kernel is asked again while processes name the filesystem, if none of them ends:
/// they may only name it.
const RECHECK: Duration = Duration::from_secs(5);
/// The pause after an examination of a process is this many times as long as the examination, which
/// limits the share of one processor that examinations take.
const REST: u32 = 4;
/// What a pod waits for whose environment and command come from another image.
const OTHER_IMAGE: &str = "the image of the filesystem changed on the node while this pod was created; the controller \
    creates another pod";
/// How long a provider's start and earlier work on the data usually take at most.
const USUAL_TIME: Duration = Duration::from_secs(2);

/// Why a container is not moved, or not yet.
enum MoveError {
    /// Processes of an earlier start may still use the filesystem.
    Held(Vec<Holder>),
    /// The kernel still has an overlay of an earlier start.
    Busy,
    /// The data is not there.
    Lost,
    Failed(anyhow::Error),
}

/// Serves the main container of a consumer: moves it as soon as that is possible.
pub(super) async fn run(filesystems: &Filesystems, peer: &mut Peer) -> Result<()> {
    let begin = Instant::now();
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut checked = false;
    loop {
        let Some((object, provider)) = ready_provider(peer).await? else {
            return Ok(());
        };
        if object.metadata.deletion_timestamp.is_some() {
            return refuse(peer, "it is being deleted").await;
        }
        if !checked {
            let identified = match peer.main_container(filesystems).await {
                Ok(container) => {
                    let pod = &peer.volume.record.pod;
                    unseen_hooks::require(&filesystems.client, pod, &container).await
                }
                Err(error) => Err(error),
            };
            match identified {
                Ok(()) => checked = true,
                Err(error @ (ContainerError::OtherContainer { .. } | ContainerError::UnseenHooks { .. })) => {
                    return refuse(peer, &error.to_string()).await;
                }
                Err(ContainerError::Unknown(error)) => {
                    let what = format!("cannot identify the container: {error:#}");
                    wait(peer, &what).await?;
                    tokio::select! {
                        () = tokio::time::sleep(PAUSES.1) => continue,
                        () = peer.closed() => return Ok(()),
                    }
                }
            }
        }
        if is_for_other_image(peer) {
            // The controller replaces the pod when it sees that the pod waits.
            wait(peer, OTHER_IMAGE).await?;
            peer.closed().await;
            return Ok(());
        }
        let Some(guard) = lock_data(peer).await? else {
            return Ok(());
        };
        let span = peer.step_span("move");
        let moved = move_container(filesystems, peer, &object, &provider, guard)
            .instrument(span.clone())
            .await;
        span.record("result", result_of(&moved));
        if matches!(moved, Err(MoveError::Lost | MoveError::Failed(_))) {
            telemetry::failed(&span);
        }
        match moved {
            Ok(moved) => {
                filesystems.counters.moved(begin.elapsed());
                return started(filesystems, peer, moved).await;
            }
            Err(MoveError::Held(holders)) => {
                wait(peer, &held_by(&holders)).await?;
                tokio::select! {
                    ended = any_ends(holders) => ended?,
                    () = peer.closed() => return Ok(()),
                }
            }
            Err(MoveError::Busy) => {
                if backoff.is_longest() {
                    wait(peer, "the kernel still has it mounted for an earlier start").await?;
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = peer.closed() => return Ok(()),
                }
            }
            Err(MoveError::Lost) => {
                // The code that prepares reports it in the status, with the ways out.
                filesystems.counters.not_moved();
                peer.instance.change(|state| state.recheck_data = true);
                return refuse(peer, "the data is gone").await;
            }
            Err(MoveError::Failed(error)) => {
                filesystems.counters.not_moved();
                let volume = &peer.volume.record;
                if let Some(left_out) = peer.volume.limits.log_lines.next() {
                    let (pod, instance) = (&volume.pod, &volume.instance);
                    tracing::warn!(%pod, %instance, left_out, "cannot start: {error:#}");
                }
                return refuse(peer, &format!("{error:#}")).await;
            }
        }
    }
}

/// Whether the pod was completed with the config of another image than the filesystem's. That was
/// announced, and the name meant another image a moment later.
fn is_for_other_image(peer: &Peer) -> bool {
    let made_for = peer.volume.record.image_id.as_ref();
    let filesystem = peer.instance.filesystem();
    let image = filesystem
        .as_ref()
        .and_then(|filesystem| filesystem.image.as_ref());
    image
        .zip(made_for)
        .is_some_and(|(image, made_for)| image.id != *made_for)
}

/// The word for the end of an attempt, in spans.
fn result_of(moved: &Result<Moved, MoveError>) -> &'static str {
    match moved {
        Ok(_) => "done",
        Err(MoveError::Held(_)) => "held",
        Err(MoveError::Busy) => "busy",
        Err(MoveError::Lost) => "lost",
        Err(MoveError::Failed(_)) => "failed",
    }
}

/// Lets the command of a container that was moved begin.
async fn started(filesystems: &Filesystems, peer: &mut Peer, moved: Moved) -> Result<()> {
    let Moved { attached, kept } = moved;
    peer.volume.listen_for_errors(kept);
    let volume = &peer.volume.record;
    if let Some(left_out) = peer.volume.limits.log_lines.next() {
        let (pod, instance) = (&volume.pod, &volume.instance);
        tracing::info!(%pod, %instance, ?attached, left_out, "filesystem in place");
    }
    peer.instance.change(|state| state.attached += 1);
    blocked::forget(&peer.instance, &volume.pod.uid);
    // Before the answer: should the agent end here, the wrapper asks the next one, which gets here
    // again.
    if let Err(error) = blocked::report(&filesystems.client, &peer.instance).await
        && let Some(left_out) = peer.volume.limits.log_lines.next()
    {
        tracing::warn!(pod = %volume.pod, left_out, "cannot clear the blocked state in the status: {error:#}");
    }
    peer.send(&Answer::Done).await
}

/// Serves an exec hook or probe: waits until its container was moved.
pub(super) async fn hook(filesystems: &Filesystems, peer: &mut Peer) -> Result<()> {
    let mut changes = peer.instance.subscribe();
    loop {
        changes.borrow_and_update();
        let (proc, process, key) = (
            filesystems.node.host.proc.clone(),
            Arc::clone(&peer.process),
            peer.instance.id.uid.clone(),
        );
        let users = peer.users.clone();
        let examining = Arc::clone(&peer.volume.examining).lock_owned().await;
        let look = move || {
            let begun = std::time::Instant::now();
            let look = || {
                let users = users.namespace();
                let there = attach::is_attached(&proc, &process, users, &key)?;
                anyhow::Ok((there, attach::is_left_behind(&proc, &process, users, &key)?))
            };
            let seen = look();
            rest(examining, begun.elapsed() * REST);
            seen
        };
        match tokio::task::spawn_blocking(look).await?? {
            (true, _) => return peer.send(&Answer::Done).await,
            (false, true) => {
                let problem =
                    "this process entered the container while the container was moved; try again".to_owned();
                return peer.send(&Answer::Error(problem)).await;
            }
            (false, false) => {}
        }
        peer.explain("the container is waiting for its filesystem")
            .await?;
        tokio::select! {
            changed = changes.changed() => changed?,
            () = peer.closed() => return Ok(()),
        }
    }
}

/// Delays the next look at a process of the volume if the last look was long: then the processes
/// made their mount table very long.
fn rest(examining: OwnedMutexGuard<()>, time: Duration) {
    if time < PAUSES.0 {
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        drop(examining);
    });
}

/// Waits for a provider that holds. `None` if the peer hung up.
///
/// At the first start of an announced filesystem the consumer and the provider start at the same
/// time. The container's log is the user's, so the agent writes a line only if the wait is longer
/// than usual.
async fn ready_provider(peer: &mut Peer) -> Result<Option<(Arc<StoppableContainerInstance>, Provider)>> {
    let mut changes = peer.instance.subscribe();
    let mut usual = std::pin::pin!(tokio::time::sleep(USUAL_TIME));
    loop {
        let state = changes.borrow_and_update().clone();
        let provider = state.provider().cloned();
        let waiting = match (state.object, provider) {
            (Some(object), Some(provider)) => return Ok(Some((object, provider))),
            (Some(_), _) => "the provider is not ready",
            (None, _) => "the node agent does not know the instance yet",
        };
        if usual.is_elapsed() {
            wait(peer, waiting).await?;
        }
        tokio::select! {
            changed = changes.changed() => changed?,
            () = &mut usual, if !usual.is_elapsed() => {}
            () = peer.closed() => return Ok(None),
        }
    }
}

/// Waits until other work on the data has ended. `None` if the peer hung up.
async fn lock_data(peer: &mut Peer) -> Result<Option<DataGuard>> {
    let instance = Arc::clone(&peer.instance);
    let mut guard = std::pin::pin!(instance.lock_data());
    if let Ok(guard) = tokio::time::timeout(USUAL_TIME, &mut guard).await {
        return Ok(Some(guard));
    }
    let what = "earlier work on it has not finished; its disk, or a file system that a container has mounted, may \
    not answer";
    wait(peer, what).await?;
    tokio::select! {
        guard = guard => Ok(Some(guard)),
        () = peer.closed() => Ok(None),
    }
}

/// A container that is on its filesystem.
struct Moved {
    attached: Attached,
    kept: Kept,
}

async fn move_container(
    filesystems: &Filesystems,
    peer: &Peer,
    object: &StoppableContainerInstance,
    provider: &Provider,
    mut guard: DataGuard,
) -> Result<Moved, MoveError> {
    let (node, prefix) = (&filesystems.node, PathBuf::from(&object.spec.host_path_prefix));
    let disk = node
        .disks
        .get(&prefix)
        .context("spec.hostPathPrefix is not among those that the node allows")?;
    let host = Arc::clone(&node.host);
    let (image, container) = (Arc::clone(&provider.process), Arc::clone(&peer.process));
    let (key, users) = (peer.instance.id.uid.clone(), peer.users.clone());
    let hooks = peer.hooks.clone();
    let work = move || {
        let data = data::look(&host.root, &prefix, &key, None)?;
        if !matches!(data, Data::Recorded(record) if !record.resetting) {
            return Err(MoveError::Lost);
        }
        let kept = data::open(&host.root, &prefix, &key)?.context("the data is gone")?;
        let request = Request {
            proc: &host.proc,
            node: &host.namespace,
            image: &image,
            container: &container,
            users: users.namespace(),
            kept: &kept,
            repeat: Repeat {
                cuda_driver: hooks.cuda_driver,
                modes: &hooks.modes,
            },
        };
        let attached = attach(request)?;
        Ok(Moved { attached, kept })
    };
    let moved = disk.start(guard.on_disk(work)).await?;
    moved.context("move the container")?
}

// === impl MoveError ===

impl From<anyhow::Error> for MoveError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AttachError> for MoveError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Held(holders) => Self::Held(holders),
            AttachError::Busy | AttachError::Store(StoreError::Locked) => Self::Busy,
            error => Self::Failed(error.into()),
        }
    }
}

/// The message about processes that may use the filesystem.
fn held_by(holders: &[Holder]) -> String {
    let ids = |in_host_userns: bool| {
        let these = holders
            .iter()
            .filter(|holder| holder.in_host_userns == in_host_userns);
        let ids: Vec<_> = these.map(|holder| holder.process.id().to_string()).collect();
        ids.join(", ")
    };
    match ids(true).as_str() {
        "" => format!(
            "the kernel still has it mounted for an earlier start, maybe in a user namespace (on the node, by the \
             names of their mounts: {})",
            ids(false)
        ),
        ids => format!("processes of an earlier start still use it (on the node: {ids})"),
    }
}

/// Waits until one of the processes has ended, or it is time to ask the kernel again: a process may
/// have nothing but a mount with the right name, and never end.
async fn any_ends(holders: Vec<Holder>) -> Result<()> {
    tokio::time::timeout(RECHECK, one_ends(holders))
        .await
        .unwrap_or(Ok(()))
}

async fn one_ends(holders: Vec<Holder>) -> Result<()> {
    let pidfds = holders
        .iter()
        .map(|holder| holder.process.as_fd().try_clone_to_owned());
    let waits = pidfds.map(|pidfd| Box::pin(async move { process_end::wait(pidfd?).await }));
    let waits: Vec<_> = waits.collect();
    futures::future::select_all(waits)
        .await
        .0
        .context("wait for a process")
}

/// Tells the container's log and, if it lasts, the instance's status what is being waited for.
async fn wait(peer: &mut Peer, what: &str) -> Result<()> {
    if peer.explain(what).await? {
        blocked::set(&peer.instance, &peer.volume.record.pod.uid, what);
    }
    Ok(())
}

/// The container ends, and the kubelet starts it again.
async fn refuse(peer: &mut Peer, problem: &str) -> Result<()> {
    blocked::set(&peer.instance, &peer.volume.record.pod.uid, problem);
    let id = peer.instance.id.clone();
    peer.send(&Answer::Error(format!(
        "the filesystem of {id} cannot be used: {problem}"
    )))
    .await
}

#[cfg(test)]
mod tests {
    use rootfs::Process;
    use rustix::process::Pid;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::UnixStream;

    use super::*;
    use crate::instance::{Instances, ObjectRef};
    use crate::volumes::{Role, VolumeRecord, Volumes};

    /// The consumer of an announced filesystem starts beside its provider. Every first log began
    /// with "waiting for the filesystem", and programs that read logs found a line too many.
    #[tokio::test(start_paused = true)]
    async fn i5_the_log_has_no_line_about_a_wait_of_usual_length() {
        let object = serde_json::json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
        });
        let instance = Instances::default()
            .apply(serde_json::from_value(object).unwrap())
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(std::fs::File::open(directory.path()).unwrap().into()).unwrap();
        let pod = |name: &str| ObjectRef {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        };
        let volume = volumes.try_lock("volume").unwrap().publish(VolumeRecord {
            target: "/target".into(),
            pod: pod("web"),
            instance: instance.id.clone(),
            role: Role::Consumer,
            prefix: "/data".into(),
            container: None,
            image_id: None,
        });
        let (here, wrapper) = UnixStream::pair().unwrap();
        let mut peer = Peer::of_test(here, volume, instance);
        let begun = Instant::now();
        let mut line = String::new();
        let mut wrapper = BufReader::new(wrapper);
        tokio::select! {
            _ = ready_provider(&mut peer) => panic!("a provider is ready"),
            read = wrapper.read_line(&mut line) => read.unwrap(),
        };
        assert_eq!(
            line,
            "wait waiting for the filesystem of ns/web: the provider is not ready\n"
        );
        assert!(begun.elapsed() >= USUAL_TIME, "after {:?}", begun.elapsed());
    }

    /// A process that only has a mount of the right name does not hold the filesystem; the kernel
    /// is asked again.
    #[tokio::test(start_paused = true)]
    async fn i2_h12_a_process_that_only_names_the_filesystem_is_not_waited_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("infinity")
            .spawn()
            .unwrap();
        let holders = |in_host_userns| {
            let process = Process::open(Pid::from_child(&child)).unwrap();
            vec![Holder {
                process,
                in_host_userns,
            }]
        };
        assert!(held_by(&holders(true)).starts_with("processes of an earlier start still use it"));
        assert!(held_by(&holders(false)).starts_with("the kernel still has it mounted"));
        let begun = tokio::time::Instant::now();
        any_ends(holders(false)).await.unwrap();
        assert_eq!(begun.elapsed(), RECHECK);
        let holders = holders(true);
        child.kill().unwrap();
        child.wait().unwrap();
        tokio::time::resume();
        one_ends(holders).await.unwrap();
    }
}
