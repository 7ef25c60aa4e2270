/*!
The kept filesystem of an instance: its data, and what is reported of it.

Preparing is where invariant I1 is held: data that was there once must be there
again, and only the image that it was made with may lie under it (see `data`),
unless the user decides otherwise (see `recovery`).
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rootfs::process::ProcessError;
use rootfs::{AttachError, Kept, Process, Root, Store, attach, holders};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, Identity, ImageFacts, RecoveryVerb, StoppableContainerInstance,
};

use crate::agent::Agent;
use crate::filesystem::data::{self, Data, Failure, Record};
use crate::filesystem::recovery::{self, Decision};
use crate::filesystem::users;
use crate::instance::state::{Instance, Working};
use crate::instance::status;
use crate::node::cri::{Container, CriError};
use crate::node::disks::Disk;
use crate::node::host::Host;
use crate::node::image_lease;
use crate::node::space;
use crate::volumes::record::Role;
use crate::wrapper::socket::Peer;

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const MAX_USER_FILE: u64 = 16 << 20;

/// Prepares the filesystem for the provider that asks, and reports it. The error says what the status says.
pub(crate) async fn prepare(
    agent: &Agent,
    peer: &Peer,
    container: &Container,
    object: &StoppableContainerInstance,
) -> Result<Result<(), Failure>> {
    let instance = &peer.instance;
    let prefix = Path::new(&object.spec.host_path_prefix);
    let Some(disk) = agent.disks.get(prefix) else {
        return fail(agent, peer, refused(agent, prefix)).await;
    };
    let working = instance.work().await;
    let slot = disk.preparations.acquire().await.context("the agent ends")?;
    instance.change(|state| state.suspect = false);
    let before = instance.filesystem();
    let (working, examined) = examine(agent, disk, peer, container, before.as_ref(), working).await?;
    let (image, data, compared) = match examined {
        Ok(examined) => examined,
        Err(failure) => return fail(agent, peer, failure).await,
    };
    let decided = recovery::decision(object, before.as_ref(), compared.as_ref().copied(), &data);
    if let (Err(failure), None) = (compared, &decided) {
        return fail(agent, peer, failure).await;
    }
    // Whoever deletes the instance from here on must wait for the agent.
    status::update(&agent.client, instance, |state| {
        let unknown = state.filesystem().is_none();
        unknown.then(|| reported(agent, peer, FilesystemState::Preparing, None))
    })
    .await?;
    let record = record(instance, &image, &data, decided.as_ref());
    let reset = record.resetting;
    // An agent that ended before it could say so has carried out what is still offered.
    let carried_out = decided.is_none() && recovery::is_carried_out(before.as_ref(), &data);
    let working = if reset {
        // As long as it takes: others on this disk go on.
        drop(slot);
        let working = recovery::clear(agent, object, record.clone(), working).await?;
        instance.change(|state| {
            state.resets += 1;
            state.outcome = None;
        });
        tracing::warn!(instance = %instance.id, recovery = record.recovered, "the data was deleted as its user decided");
        working
    } else {
        working
    };
    let made = make(agent, peer, object, &image, record, working).await?;
    pin_image(agent, peer).await;
    if let Some(Decision { verb, id }) = &decided {
        tracing::info!(instance = %instance.id, ?verb, id, "the user's decision is carried out");
        // Used up, whatever becomes of the status.
        instance.change_quietly(|state| {
            state.unsure = true;
            state.written = state.filesystem().cloned().map(|known| FilesystemStatus {
                recovery: None,
                usage: known.usage.filter(|_| !reset),
                ..known
            });
        });
    }
    let Made { identity, store } = match made {
        Ok(made) => made,
        Err(failure) => return fail(agent, peer, failure).await,
    };
    status::update(&agent.client, instance, |state| {
        let known = state.filesystem();
        let status = reported(agent, peer, FilesystemState::Ready, known);
        Some(FilesystemStatus {
            store_id: store.clone(),
            image: Some(image.clone()),
            identity: Some(identity.clone()),
            usage: status.usage.filter(|_| !reset && !carried_out),
            // Of a filesystem that is too large; it is another task's to make and take back.
            recovery: known
                .filter(|known| known.state == FilesystemState::Ready && decided.is_none() && !carried_out)
                .and_then(|known| known.recovery.clone()),
            write_failed: status.write_failed.clone().filter(|_| !reset),
            ..status
        })
    })
    .await?;
    Ok(Ok(()))
}

/// Keeps the image's layers on the node. Without that the provider alone keeps them, until the node's disk is full.
async fn pin_image(agent: &Agent, peer: &Peer) {
    let uid = &peer.instance.id.uid;
    let volumes = agent.volumes.of_instance(uid);
    let in_use = volumes.iter().any(|volume| volume.record.role == Role::Consumer);
    if let Err(error) = image_lease::pin(&agent.cri, uid, &peer.container_id, in_use).await {
        tracing::warn!(instance = %peer.instance.id, %error, "cannot keep the layers of the image on the node");
    }
}

/// Says in the status what keeps the filesystem from being prepared for the first time, and may pass.
pub(crate) async fn report_obstacle(agent: &Agent, peer: &Peer, obstacle: &str) -> Result<()> {
    status::update(&agent.client, &peer.instance, |state| {
        let known = state.filesystem();
        let first = known.is_none_or(|known| known.state == FilesystemState::Preparing);
        first.then(|| FilesystemStatus {
            message: Some(obstacle.to_owned()),
            ..reported(agent, peer, FilesystemState::Preparing, known)
        })
    })
    .await
}

/// Reports a failure.
async fn fail(agent: &Agent, peer: &Peer, failure: Failure) -> Result<Result<(), Failure>> {
    status::update(&agent.client, &peer.instance, |state| {
        let known = state.filesystem();
        Some(FilesystemStatus {
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            recovery: recovery::offer(known, &failure),
            ..reported(agent, peer, FilesystemState::Failed, known)
        })
    })
    .await?;
    Ok(Err(failure))
}

/// A status in this state, with what is known already. What the data was made with stays on record whatever happens.
fn reported(
    agent: &Agent,
    peer: &Peer,
    state: FilesystemState,
    known: Option<&FilesystemStatus>,
) -> FilesystemStatus {
    FilesystemStatus {
        state,
        node_name: agent.node_name.clone(),
        provider_pod_uid: Some(peer.volume.record.pod.uid.clone()),
        reason: None,
        message: None,
        store_id: known.and_then(|known| known.store_id.clone()),
        image: known.and_then(|known| known.image.clone()),
        identity: known.and_then(|known| known.identity.clone()),
        usage: known.and_then(|known| known.usage),
        recovery: None,
        disk_low: known.and_then(|known| known.disk_low.clone()),
        blocked: known.and_then(|known| known.blocked.clone()),
        write_failed: known.and_then(|known| known.write_failed.clone()),
    }
}

fn refused(agent: &Agent, prefix: &Path) -> Failure {
    Failure::new(
        reason::HOST_PATH_PREFIX_REFUSED,
        format!(
            "spec.hostPathPrefix {} is not among those that node {} allows: {}",
            prefix.display(),
            agent.node_name,
            agent.disks.names()
        ),
    )
}

/// The record to be, next to the data: the one that is there unless its user decided otherwise.
fn record(instance: &Instance, image: &ImageFacts, data: &Data, decided: Option<&Decision>) -> Record {
    let (recovered, resetting) = match (data, decided) {
        (_, Some(decided)) => (Some(decided.id.clone()), decided.verb == RecoveryVerb::Reset),
        (Data::Recorded(begun), None) if begun.resetting => (begun.recovered.clone(), true),
        (Data::Recorded(record), None) => return record.clone(),
        (Data::Absent | Data::OutOfReach | Data::Unproven | Data::Doubtful(_), None) => (None, false),
    };
    Record {
        format: data::FORMAT,
        features: Vec::new(),
        namespace: instance.id.namespace.clone(),
        name: instance.id.name.clone(),
        image_id: image.id.clone(),
        image: image.reference.clone(),
        repo_digest: image.repo_digest.clone(),
        recovered,
        resetting,
    }
}

/// Looks at image and data without changing anything; last comes whether they belong together. The outer error is
/// worth another try, the second one is nobody's to decide.
async fn examine(
    agent: &Agent,
    disk: &Disk,
    peer: &Peer,
    container: &Container,
    before: Option<&FilesystemStatus>,
    working: Working,
) -> Result<(Working, Result<(ImageFacts, Data, Result<(), Failure>), Failure>)> {
    let object = peer.instance.state().object;
    let named = object.as_ref().map_or("", |object| object.spec.main_image());
    let image = match agent.cri.facts(container, named).await {
        Ok(image) => image,
        Err(error @ CriError::Config(_)) => {
            let message = format!("image {}: {error}", container.image);
            return Ok((working, Err(Failure::new(reason::IMAGE_CONFIG_INVALID, message))));
        }
        Err(error) => return Err(error.into()),
    };
    let key = peer.instance.id.uid.clone();
    let directory = disk.path.join(&key);
    let (host, prefix) = (Arc::clone(&agent.host), disk.path.clone());
    let store = before.and_then(|before| before.store_id.clone());
    let look = move || {
        let data = data::look(&host.root, &prefix, &key, store.as_deref())?;
        anyhow::Ok((data, space::look(&host, &prefix)?))
    };
    let (working, looked) = working.on_disk(look).await.context("examine the data")?;
    let (data, space) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            return Ok((
                working,
                Err(Failure::new(reason::FILESYSTEM_UNUSABLE, format!("{error:#}"))),
            ));
        }
    };
    let known = before.and_then(|before| before.image.as_ref());
    let compared = data::compare(&directory, &agent.node_name, &image, known, &data);
    let is_new = data == Data::Absent && compared.is_ok();
    if let Some(shortage) = agent.minimum.shortage(space, false).filter(|_| is_new) {
        let message = format!(
            "{}; no new filesystem is made there. Free space on the node, or delete objects that are not needed; it \
             goes on by itself then",
            space::on(&agent.node_name, &disk.path, &shortage)
        );
        return Ok((working, Err(Failure::new(reason::INSUFFICIENT_DISK, message))));
    }
    Ok((working, Ok((image, data, compared))))
}

/// What a filesystem is when it is made.
struct Made {
    identity: Identity,
    /// See [`FilesystemStatus::store_id`].
    store: Option<String>,
}

/// Makes what is missing and resolves the user. The outer error is worth another try.
async fn make(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    image: &ImageFacts,
    record: Record,
    working: Working,
) -> Result<Result<Made, Failure>> {
    let host = Arc::clone(&agent.host);
    let (prefix, uid) = (
        PathBuf::from(&object.spec.host_path_prefix),
        peer.instance.id.uid.clone(),
    );
    let provider = Arc::clone(&peer.process);
    let record = Record {
        resetting: false,
        ..record
    };
    let user = object.spec.requested_user(image);
    let work = move || -> Result<Result<Made, users::UserError>> {
        let store = Store::create(&host.root, &prefix)?;
        // The merged root is as the upper directory is, so that is made as the image's root is.
        let root = provider
            .root(&host.proc)?
            .stat()
            .context("examine the image's root")?;
        let kept = store.create_key(&uid, &root)?;
        let record = serde_json::to_vec(&record).context("write the record")?;
        if kept.record()?.as_ref() != Some(&record) {
            kept.set_record(&record)?;
        }
        let store = store.identity()?;
        Ok(resolve(&host, &provider, &kept, &user)?.map(|identity| Made { identity, store }))
    };
    let (_working, made) = working.on_disk(work).await.context("make the filesystem")?;
    Ok(match made {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(Failure::new(reason::USER_UNKNOWN, error.to_string())),
        Err(error) => Err(Failure::new(reason::FILESYSTEM_UNUSABLE, format!("{error:#}"))),
    })
}

/// Resolves the user anew when the template asks for another one. Nothing is written if it is the same.
pub(crate) async fn refresh_identity(agent: &Agent, instance: &Instance) -> Result<()> {
    let state = instance.state();
    let (Some(object), Some(provider)) = (&state.object, state.provider()) else {
        return Ok(());
    };
    let Some(user) = unresolved(object, state.filesystem()) else {
        return Ok(());
    };
    let working = instance.work().await;
    let Some(disk) = agent.disks.get(Path::new(&object.spec.host_path_prefix)) else {
        return Ok(());
    };
    let _slot = disk.preparations.acquire().await.context("the agent ends")?;
    let host = Arc::clone(&agent.host);
    let (prefix, uid) = (
        PathBuf::from(&object.spec.host_path_prefix),
        instance.id.uid.clone(),
    );
    let process = Arc::clone(&provider.process);
    let wanted = user.clone();
    let work = move || -> Result<Result<Identity, users::UserError>> {
        let store = Store::open(&host.root, &prefix)?.context("the data is gone")?;
        let kept = store.get(&uid)?.context("the data is gone")?;
        resolve(&host, &process, &kept, &wanted)
    };
    let (_working, resolved) = working.on_disk(work).await.context("resolve the user")?;
    let resolved = resolved?;
    status::update(&agent.client, instance, |state| {
        let known = state.filesystem()?;
        // Somebody may have asked for another one, or have found the data gone.
        if unresolved(state.object.as_ref()?, Some(known)).as_ref() != Some(&user) {
            return None;
        }
        Some(match &resolved {
            Ok(identity) => FilesystemStatus {
                state: FilesystemState::Ready,
                reason: None,
                message: None,
                identity: Some(identity.clone()),
                ..known.clone()
            },
            Err(error) => FilesystemStatus {
                state: FilesystemState::Failed,
                reason: Some(reason::USER_UNKNOWN.to_owned()),
                message: Some(error.to_string()),
                ..known.clone()
            },
        })
    })
    .await
}

/// The user that the template asks for, if it is another one than was resolved last.
fn unresolved(object: &StoppableContainerInstance, known: Option<&FilesystemStatus>) -> Option<String> {
    let known = known?;
    let user = object.spec.requested_user(known.image.as_ref()?);
    let resolved = known.identity.as_ref().map(|identity| &identity.user);
    (resolved != Some(&user)).then_some(user)
}

/// Resolves a user in the kept filesystem as a consumer sees it.
fn resolve(
    host: &Host,
    provider: &Process,
    kept: &Kept,
    user: &str,
) -> Result<Result<Identity, users::UserError>> {
    let read = |root: &Root| -> Result<Result<Identity, users::UserError>> {
        let passwd = root
            .read(Path::new("etc/passwd"), MAX_USER_FILE)?
            .unwrap_or_default();
        let group = root
            .read(Path::new("etc/group"), MAX_USER_FILE)?
            .unwrap_or_default();
        Ok(users::resolve(user, &passwd, &group))
    };
    // A running consumer's own root is the one true view; a second overlay beside it is not.
    for holder in holders::find(&host.proc, kept.key())? {
        match attach::root_of(&host.proc, &holder.process, kept.key()) {
            Ok(Some(root)) => return read(&root),
            // Somebody whose mounts have the same names, or who ended.
            Ok(None) | Err(AttachError::Process(ProcessError::Gone)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let _unused = data::lock_unused(host, kept)?;
    attach::with_view(&host.proc, &host.namespace, provider, kept, read)?
}
