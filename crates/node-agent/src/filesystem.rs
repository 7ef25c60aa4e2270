/*!
The kept filesystem of an instance: its data, and what is reported of it.

Preparing is where invariant I1 is held: data that was there once must be there
again, and only the image that it was made with may lie under it (see `data`),
unless the user decides otherwise (see `recovery`).
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rootfs::{Kept, Process, Root, Store, attach, holders};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, Identity, ImageFacts, RecoveryVerb, StoppableContainerInstance,
};

use crate::agent::Agent;
use crate::data::{self, Data, Failure, Record};
use crate::host::Host;
use crate::image::CriError;
use crate::instances::Instance;
use crate::recovery::{self, Decision};
use crate::serve::Peer;
use crate::{space, status, users};

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const MAX_USER_FILE: u64 = 16 << 20;

/// Prepares the filesystem for the provider that asks, and reports it. The error says what the status says.
pub(crate) async fn prepare(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
) -> Result<Result<(), Failure>> {
    let instance = &peer.instance;
    let _working = instance.work.lock().await;
    instance.change(|state| state.suspect = false);
    let before = instance.filesystem();
    let known = before.clone();
    let report = |state| FilesystemStatus {
        state,
        node_name: agent.node_name.clone(),
        provider_pod_uid: Some(peer.volume.record.pod.uid.clone()),
        reason: None,
        message: None,
        image: known.as_ref().and_then(|known| known.image.clone()),
        identity: known.as_ref().and_then(|known| known.identity.clone()),
        usage: known.as_ref().and_then(|known| known.usage),
        recovery: None,
        disk_low: known.as_ref().and_then(|known| known.disk_low.clone()),
        blocked: known.as_ref().and_then(|known| known.blocked.clone()),
        write_failed: known.as_ref().and_then(|known| known.write_failed.clone()),
    };
    // What the data was made with stays on record whatever happens.
    let failed = |failure: &Failure| FilesystemStatus {
        reason: Some(failure.reason.to_owned()),
        message: Some(failure.message.clone()),
        recovery: recovery::offer(before.as_ref(), failure),
        ..report(FilesystemState::Failed)
    };
    let (image, data, compared) = match examine(agent, peer, object, before.as_ref()).await? {
        Ok(examined) => examined,
        Err(failure) => {
            status::apply(&agent.client, instance, failed(&failure)).await?;
            return Ok(Err(failure));
        }
    };
    let decided = recovery::decision(object, before.as_ref(), compared.as_ref().copied(), &data);
    if let (Err(failure), None) = (compared, &decided) {
        status::apply(&agent.client, instance, failed(&failure)).await?;
        return Ok(Err(failure));
    }
    if before.is_none() {
        // Whoever deletes the instance from here on must wait for the agent.
        status::apply(&agent.client, instance, report(FilesystemState::Preparing)).await?;
    }
    let record = record(instance, &image, &data, decided.as_ref());
    let reset = record.resetting;
    if reset {
        recovery::clear(agent, object, record.clone()).await?;
        instance.change(|state| state.resets += 1);
        tracing::warn!(instance = %instance.id, recovery = record.recovered, "the data was deleted as its user decided");
    }
    let made = make(agent, peer, object, &image, record).await;
    if let Some(Decision { verb, id }) = &decided {
        tracing::info!(instance = %instance.id, ?verb, id, "the user's decision is carried out");
        // Used up, whatever becomes of the status.
        instance.change(|state| {
            state.written = before.clone().map(|before| FilesystemStatus {
                recovery: None,
                ..before
            });
        });
    }
    let status = match &made {
        Err(failure) => failed(failure),
        Ok(identity) => FilesystemStatus {
            image: Some(image),
            identity: Some(identity.clone()),
            usage: known.as_ref().and_then(|known| known.usage).filter(|_| !reset),
            // Of a filesystem that is too large; it is another task's to make and take back.
            recovery: known
                .as_ref()
                .filter(|known| known.state == FilesystemState::Ready && decided.is_none())
                .and_then(|known| known.recovery.clone()),
            ..report(FilesystemState::Ready)
        },
    };
    status::apply(&agent.client, instance, status).await?;
    Ok(made.map(drop))
}

/// The record to be, next to the data: the one that is there unless its user decided otherwise.
fn record(instance: &Instance, image: &ImageFacts, data: &Data, decided: Option<&Decision>) -> Record {
    let (recovered, resetting) = match (data, decided) {
        (_, Some(decided)) => (Some(decided.id.clone()), decided.verb == RecoveryVerb::Reset),
        (Data::Recorded(begun), None) if begun.resetting => (begun.recovered.clone(), true),
        (Data::Recorded(record), None) => return record.clone(),
        (Data::Absent | Data::Unproven | Data::Doubtful(_), None) => (None, false),
    };
    Record {
        namespace: instance.id.namespace.clone(),
        name: instance.id.name.clone(),
        image_id: image.id.clone(),
        image: image.reference.clone(),
        recovered,
        resetting,
    }
}

/// Looks at image and data without changing anything; last comes whether they belong together. The outer error is
/// worth another try, the second one is nobody's to decide.
async fn examine(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    before: Option<&FilesystemStatus>,
) -> Result<Result<(ImageFacts, Data, Result<(), Failure>), Failure>> {
    let prefix = Path::new(&object.spec.host_path_prefix);
    if !agent.allows(prefix) {
        let allowed: Vec<_> = agent
            .allowed_prefixes
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        return Ok(Err(Failure::new(
            "HostPathPrefixRefused",
            format!(
                "spec.hostPathPrefix {} is not among those that node {} allows: {}",
                prefix.display(),
                agent.node_name,
                allowed.join(", ")
            ),
        )));
    }
    let container = peer.container(agent).await?;
    let image = match agent.cri.facts(&container).await {
        Ok(image) => image,
        Err(error @ CriError::Config(_)) => {
            return Ok(Err(Failure::new(
                "ImageConfigInvalid",
                format!("image {}: {error}", container.image),
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let key = peer.instance.id.uid.clone();
    let directory = prefix.join(&key);
    let prefix = prefix.to_owned();
    let host = Arc::clone(&agent.host);
    let look = move || anyhow::Ok((data::look(&host, &prefix, &key)?, space::look(&host, &prefix)?));
    let looked = tokio::task::spawn_blocking(look)
        .await
        .context("examine the data")?;
    let (data, space) = match looked {
        Ok(looked) => looked,
        Err(error) => return Ok(Err(Failure::new("FilesystemUnusable", format!("{error:#}")))),
    };
    let known = before.and_then(|before| before.image.as_ref());
    let compared = data::compare(&directory, &agent.node_name, &image, known, &data);
    let is_new = data == Data::Absent && compared.is_ok();
    if let Some(shortage) = agent.minimum.shortage(space, false).filter(|_| is_new) {
        let prefix = Path::new(&object.spec.host_path_prefix);
        let message = format!(
            "{}; no new filesystem is made there. Free space on the node, or delete objects that are not needed; it \
             goes on by itself then",
            space::on(&agent.node_name, prefix, &shortage)
        );
        return Ok(Err(Failure::new("InsufficientDisk", message)));
    }
    Ok(Ok((image, data, compared)))
}

/// Makes what is missing and resolves the user.
async fn make(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    image: &ImageFacts,
    record: Record,
) -> Result<Identity, Failure> {
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
    let work = move || -> Result<Result<Identity, users::UserError>> {
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
        resolve(&host, &provider, &kept, &user)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(Ok(identity))) => Ok(identity),
        Ok(Ok(Err(error))) => Err(Failure::new("UserUnknown", error.to_string())),
        Ok(Err(error)) => Err(Failure::new("FilesystemUnusable", format!("{error:#}"))),
        Err(error) => Err(Failure::new("FilesystemUnusable", error.to_string())),
    }
}

/// Resolves the user anew when the template asks for another one. Nothing is written if it is the same.
pub(crate) async fn refresh_identity(agent: &Agent, instance: &Instance) -> Result<()> {
    let state = instance.state();
    let (Some(object), Some(provider)) = (state.object, state.provider.filter(|p| p.ready)) else {
        return Ok(());
    };
    let _working = instance.work.lock().await;
    let Some(before) = instance.filesystem() else {
        return Ok(());
    };
    let Some(image) = &before.image else { return Ok(()) };
    let user = object.spec.requested_user(image);
    if before
        .identity
        .as_ref()
        .is_some_and(|identity| identity.user == user)
    {
        return Ok(());
    }
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
    let status = match tokio::task::spawn_blocking(work)
        .await
        .context("resolve the user")??
    {
        Ok(identity) => FilesystemStatus {
            state: FilesystemState::Ready,
            reason: None,
            message: None,
            identity: Some(identity),
            ..before.clone()
        },
        Err(error) => FilesystemStatus {
            state: FilesystemState::Failed,
            reason: Some("UserUnknown".to_owned()),
            message: Some(error.to_string()),
            ..before.clone()
        },
    };
    status::apply(&agent.client, instance, status).await
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
    match holders::find(&host.proc, kept.key())?.first() {
        Some(holder) => read(&holder.process.root(&host.proc)?),
        None => attach::with_view(&host.proc, &host.namespace, provider, kept, read)?,
    }
}
