/*!
The kept filesystem of an instance: its data, and what is reported of it.

Preparing is where invariant I1 is held: data that was there once must be there
again, and only the image that it was made with may lie under it.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rootfs::{Kept, Process, Root, Store, attach, holders};
use serde::{Deserialize, Serialize};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, Identity, ImageFacts, StoppableContainerInstance,
};

use crate::agent::Agent;
use crate::host::Host;
use crate::image::CriError;
use crate::instances::Instance;
use crate::journal::Record as Volume;
use crate::serve::Peer;
use crate::{status, users};

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const MAX_USER_FILE: u64 = 16 << 20;

/// Why a filesystem cannot be used: what goes into its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is remembered next to the data.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Of the instance, for whoever finds the directory.
    namespace: String,
    name: String,
    /// Identity of the image that the data was made with.
    image_id: String,
    /// That image as it was named.
    image: String,
}

/// Prepares the filesystem for the provider that asks, and reports it. The error says what the status says.
pub(crate) async fn prepare(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
) -> Result<Result<(), Failure>> {
    let instance = &peer.instance;
    let _working = instance.work.lock().await;
    let before = instance.filesystem();
    let pod_uid = peer.volume.record.pod.uid.clone();
    let report = |state, image, identity, failure: Option<&Failure>| FilesystemStatus {
        state,
        node_name: agent.node_name.clone(),
        provider_pod_uid: Some(pod_uid.clone()),
        reason: failure.map(|f| f.reason.to_owned()),
        message: failure.map(|f| f.message.clone()),
        image,
        identity,
    };
    let known_image = before.as_ref().and_then(|before| before.image.clone());
    let known_identity = before.as_ref().and_then(|before| before.identity.clone());
    let announce = async || {
        // Whoever deletes the instance from here on must wait for the agent.
        if before.is_none() {
            let status = report(FilesystemState::Preparing, None, None, None);
            status::apply(&agent.client, instance, status).await?;
        }
        anyhow::Ok(())
    };
    let failure = match examine(agent, peer, object, known_image.as_ref()).await? {
        Err(failure) => failure,
        Ok(image) => {
            announce().await?;
            match make(agent, peer, object, &image).await {
                Err(failure) => failure,
                Ok(identity) => {
                    let status = report(FilesystemState::Ready, Some(image), Some(identity), None);
                    status::apply(&agent.client, instance, status).await?;
                    return Ok(Ok(()));
                }
            }
        }
    };
    // What the data was made with stays on record whatever happens.
    let status = report(
        FilesystemState::Failed,
        known_image,
        known_identity,
        Some(&failure),
    );
    status::apply(&agent.client, instance, status).await?;
    Ok(Err(failure))
}

/// Looks at image and data without changing anything. The outer error is worth another try.
async fn examine(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    known: Option<&ImageFacts>,
) -> Result<Result<ImageFacts, Failure>> {
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
    let data = tokio::task::spawn_blocking(move || look(&host, &prefix, &key))
        .await
        .context("examine the data")?;
    let recorded = match data {
        Ok(recorded) => recorded,
        Err(error) => return Ok(Err(Failure::new("FilesystemUnusable", format!("{error:#}")))),
    };
    Ok(compare(&directory, &agent.node_name, &image, known, recorded.as_ref()).map(|()| image))
}

/// Whether this image may be used with what is in the directory.
fn compare(
    directory: &Path,
    node: &str,
    image: &ImageFacts,
    known: Option<&ImageFacts>,
    recorded: Option<&Record>,
) -> Result<(), Failure> {
    if let (Some(_), None) = (known, recorded) {
        return Err(Failure::new(
            "FilesystemLost",
            format!(
                "the data of this instance is not on node {node} any more (directory {}); it is not started on an \
                 empty filesystem. Restore the directory, or delete the object",
                directory.display()
            ),
        ));
    }
    let made_with = recorded
        .map(|r| (&r.image, &r.image_id))
        .or(known.map(|k| (&k.reference, &k.id)));
    if let Some((name, id)) = made_with.filter(|(_, id)| **id != image.id) {
        return Err(Failure::new(
            "ImageChanged",
            format!(
                "the data was made with image {name} ({id}), but the provider runs {} ({}); it is not put on another \
                 image. Set the template's image to the one it was made with, by digest",
                image.reference, image.id
            ),
        ));
    }
    Ok(())
}

/// What is recorded next to the data; none where there is no data.
fn look(host: &Host, prefix: &Path, key: &str) -> Result<Option<Record>> {
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(None);
    };
    let Some(kept) = store.get(key)? else {
        return Ok(None);
    };
    if !kept.has_upper()? {
        return Ok(None);
    }
    let Some(record) = kept.record()? else {
        return Ok(None);
    };
    Ok(Some(
        serde_json::from_slice(&record).context("the record next to the data is not understood")?,
    ))
}

/// Makes what is missing and resolves the user.
async fn make(
    agent: &Agent,
    peer: &Peer,
    object: &StoppableContainerInstance,
    image: &ImageFacts,
) -> Result<Identity, Failure> {
    let host = Arc::clone(&agent.host);
    let (prefix, id) = (
        PathBuf::from(&object.spec.host_path_prefix),
        peer.instance.id.clone(),
    );
    let provider = Arc::clone(&peer.process);
    let record = Record {
        namespace: id.namespace,
        name: id.name,
        image_id: image.id.clone(),
        image: image.reference.clone(),
    };
    let user = object.spec.requested_user(image);
    let work = move || -> Result<Result<Identity, users::UserError>> {
        let store = Store::create(&host.root, &prefix)?;
        // The merged root is as the upper directory is, so that is made as the image's root is.
        let root = provider
            .root(&host.proc)?
            .stat()
            .context("examine the image's root")?;
        let kept = store.create_key(&id.uid, &root)?;
        if kept.record()?.is_none() {
            kept.set_record(&serde_json::to_vec(&record).context("write the record")?)?;
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

/// Makes what a consumer wrote durable.
pub(crate) async fn sync(agent: &Agent, volume: &Volume) -> Result<()> {
    let host = Arc::clone(&agent.host);
    let (prefix, key) = (volume.prefix.clone(), volume.instance.uid.clone());
    let work = move || {
        let Some(store) = Store::open(&host.root, &prefix)? else {
            return Ok(());
        };
        match store.get(&key)? {
            Some(kept) if kept.has_upper()? => Ok(kept.sync()?),
            _ => Ok(()),
        }
    };
    tokio::task::spawn_blocking(work).await.context("sync")?
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

// === impl Failure ===

impl Failure {
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, id: &str) -> ImageFacts {
        ImageFacts {
            reference: reference.into(),
            id: id.into(),
            ..ImageFacts::default()
        }
    }

    fn record(id: &str) -> Record {
        Record {
            namespace: "ns".into(),
            name: "web".into(),
            image_id: id.into(),
            image: "nginx:1.25".into(),
        }
    }

    fn reason(known: Option<&ImageFacts>, recorded: Option<&Record>) -> Option<&'static str> {
        let image = image("nginx:1.25", "sha256:1");
        let compared = compare(Path::new("/data/u"), "node1", &image, known, recorded);
        compared.err().map(|failure| failure.reason)
    }

    #[test]
    fn i1_the_first_time_anything_is_fine() {
        assert_eq!(reason(None, None), None);
    }

    #[test]
    fn i1_data_that_was_there_must_be_there() {
        assert_eq!(
            reason(Some(&image("nginx:1.25", "sha256:1")), None),
            Some("FilesystemLost")
        );
        assert_eq!(
            reason(Some(&image("nginx:1.25", "sha256:1")), Some(&record("sha256:1"))),
            None
        );
    }

    #[test]
    fn f25_another_image_is_never_put_under_the_data() {
        assert_eq!(reason(None, Some(&record("sha256:2"))), Some("ImageChanged"));
        assert_eq!(
            reason(Some(&image("x", "sha256:1")), Some(&record("sha256:2"))),
            Some("ImageChanged")
        );
        // The record lies next to the data, so it is the one that counts.
        assert_eq!(
            reason(Some(&image("x", "sha256:2")), Some(&record("sha256:1"))),
            None
        );
    }
}
