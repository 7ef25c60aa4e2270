/*!
Prepares the kept filesystem of an instance for its provider: step 3 of "Objects" in
docs/ARCHITECTURE.md.

In this order: read the image's config, look at the data, compare both, report `Preparing`, delete
the data if the user decided so, make the directories and the record, resolve the user, keep the
image's layers, report `Ready`.

Invariant I1 is held here: data that was there once must be there again, and only the image that it
was made with may lie under it (see `image_match`), unless the user decides otherwise (see
`recovery`).
*/

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use rootfs::layers::LayersError;
use rootfs::{Process, Store};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{
    FilesystemStatus, Identity, ImageFacts, RecoveryVerb, StoppableContainerInstance,
};

use super::Filesystems;
use super::data::{self, Data};
use super::failure::Failure;
use super::identity::{self, Consumers, IdentityError};
use super::image_match;
use super::record::{self, DataRecord};
use super::recovery::{self, Decision};
use super::report::{Prepared, Reporter};
use crate::instance::{DataGuard, Instance};
use crate::node::space::{self, Space};
use crate::node::{Container, CriError, Disk, Node, image_lease};
use crate::volumes::Role;

/// What to do about a provider with `hostUsers: false`.
const PROVIDER_USERS: &str = "exempt the provider pods (label stoppablecontainer.xtlsoft.top/role=provider) from the \
    policy or webhook that sets hostUsers";

/// The provider that a filesystem is prepared for.
pub(crate) struct Request<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) object: &'a StoppableContainerInstance,
    pub(crate) pod_uid: &'a str,
    pub(crate) container_id: &'a str,
    pub(crate) container: &'a Container,
    /// The first process of that container: its root is the image.
    pub(crate) process: &'a Arc<Process>,
}

/// Why a filesystem is not prepared.
#[derive(Debug)]
pub(crate) enum PrepareError {
    /// It may pass: the same request may succeed later.
    Retry(Error),
    /// The user or the administrator has to act. The status has the same message.
    Final(Failure),
}

/// Prepares the filesystem, and reports it as ready or as failed.
pub(crate) async fn prepare(filesystems: &Filesystems, request: &Request<'_>) -> Result<(), PrepareError> {
    let report = Reporter::new(filesystems, request.instance, request.pod_uid);
    let node = &filesystems.node;
    let prefix = Path::new(&request.object.spec.host_path_prefix);
    let Some(disk) = node.disks.get(prefix) else {
        let refused = refused_prefix(node, prefix);
        report.failed(&refused).await?;
        return Err(refused.into());
    };
    let mut guard = request.instance.lock_data().await;
    let prepared = carry_out(filesystems, request, disk, &report, &mut guard).await;
    if let Err(PrepareError::Final(failure)) = &prepared {
        report.failed(failure).await?;
    }
    let prepared = prepared?;
    drop(guard);
    Ok(report.ready(&prepared).await?)
}

/// Everything but the report of the outcome.
async fn carry_out(
    filesystems: &Filesystems,
    request: &Request<'_>,
    disk: &Disk,
    report: &Reporter<'_>,
    guard: &mut DataGuard,
) -> Result<Prepared, PrepareError> {
    let (node, instance) = (&filesystems.node, request.instance);
    let slot = disk.preparations.acquire().await;
    let slot = slot.context("the agent is shutting down")?;
    instance.change(|state| state.recheck_data = false);
    let before = instance.filesystem();

    // What the provider runs, what is on the disk, and whether they belong together. Nothing is
    // changed so far.
    let image = read_image(node, request).await?;
    let (data, space) = look(node, disk, instance, before.as_ref(), guard).await?;
    // Nothing was made with an image that was only announced.
    let made = before.as_ref().filter(|before| !before.announced);
    let known = made.and_then(|made| made.image.as_ref());
    let directory = disk.path.join(&instance.id.uid);
    let matched = image_match::check(&directory, &node.name, &image, known, &data);
    if data == Data::Absent && matched.is_ok() {
        check_space(node, disk, space)?;
    }
    let decision = recovery::decision(request.object, before.as_ref(), matched.as_ref().copied(), &data);
    if decision.is_none() {
        matched?;
    }

    // From here on a deletion of the instance waits for the agent.
    report.preparing().await?;

    let record = record_to_be(instance, &image, &data, decision.as_ref());
    let reset = record.resetting;
    // An agent that ended before it could report it has carried out what is still offered.
    let carried_out = decision.is_none() && recovery::is_carried_out(before.as_ref(), &data);
    if reset {
        // As long as it takes: others on this disk go on.
        drop(slot);
        delete_data(node, request, &record, guard).await?;
    }
    let consumers = Consumers::of(filesystems, &instance.id.uid).await;
    let made = make(node, request, disk, &image, record, consumers, guard).await;
    if let Err(error @ PrepareError::Retry(_)) = made {
        return Err(error);
    }
    keep_image(filesystems, request).await;
    if let Some(decision) = &decision {
        use_up(instance, decision, reset);
    }
    let Made { identity, store } = made?;
    if data == Data::Absent {
        // The user's files do not hide those of the image.
        let namespace = &instance.id.namespace;
        filesystems
            .known_images
            .remember(namespace, request.object.spec.main_image(), &image, &identity);
    }
    Ok(Prepared {
        image,
        identity,
        store,
        keeps_usage: !reset && !carried_out,
        keeps_offer: decision.is_none() && !carried_out,
        keeps_write_failed: !reset,
    })
}

/// The image that the provider's container runs, by its config.
async fn read_image(node: &Node, request: &Request<'_>) -> Result<ImageFacts, PrepareError> {
    let object = request.instance.state().object;
    let named = object.as_ref().map_or("", |object| object.spec.main_image());
    node.cri
        .facts(request.container, named)
        .await
        .map_err(|error| match error {
            CriError::Config(_) => {
                let message = format!("image {}: {error}", request.container.image);
                Failure::new(reason::IMAGE_CONFIG_INVALID, message).into()
            }
            error => PrepareError::Retry(error.into()),
        })
}

/// The data, and the free space of its disk.
pub(super) async fn look(
    node: &Node,
    disk: &Disk,
    instance: &Instance,
    before: Option<&FilesystemStatus>,
    guard: &mut DataGuard,
) -> Result<(Data, Space), PrepareError> {
    let (host, prefix) = (Arc::clone(&node.host), disk.path.clone());
    let key = instance.id.uid.clone();
    let store = before.and_then(|before| before.store_id.clone());
    let look = move || {
        let data = data::look(&host.root, &prefix, &key, store.as_deref())?;
        anyhow::Ok((data, space::look(&host, &prefix)?))
    };
    let looked = guard.on_disk(look).await.context("examine the data")?;
    looked.map_err(|error| unusable(&error).into())
}

/// Whether a new filesystem may be made on this disk.
pub(super) fn check_space(node: &Node, disk: &Disk, space: Space) -> Result<(), Failure> {
    let Some(shortage) = node.minimum_free.shortage(space, false) else {
        return Ok(());
    };
    let message = format!(
        "{}; no new filesystem is made there. Free space on the node, or delete objects that are not needed; the \
         instance then continues without further action",
        space::on(&node.name, &disk.path, &shortage)
    );
    Err(Failure::new(reason::INSUFFICIENT_DISK, message))
}

/// The record to be, next to the data: the one that is there unless its user decided otherwise.
fn record_to_be(
    instance: &Instance,
    image: &ImageFacts,
    data: &Data,
    decision: Option<&Decision>,
) -> DataRecord {
    let (recovered, resetting) = match (data, decision) {
        (_, Some(decision)) => (Some(decision.id.clone()), decision.verb == RecoveryVerb::Reset),
        (Data::Recorded(begun), None) if begun.resetting => (begun.recovered.clone(), true),
        (Data::Recorded(record), None) => return record.clone(),
        (Data::Absent | Data::OtherDirectory | Data::WithoutRecord | Data::Defective(_), None) => {
            (None, false)
        }
    };
    DataRecord {
        format: record::FORMAT,
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

async fn delete_data(
    node: &Node,
    request: &Request<'_>,
    record: &DataRecord,
    guard: &mut DataGuard,
) -> Result<()> {
    recovery::clear(&node.host, request.object, record.clone(), guard).await?;
    let instance = request.instance;
    instance.change(|state| {
        state.resets += 1;
        state.outcome = None;
    });
    tracing::warn!(instance = %instance.id, recovery = record.recovered, "the data was deleted, as the user decided");
    Ok(())
}

/// What a filesystem is when it is made.
struct Made {
    identity: Identity,
    /// See [`FilesystemStatus::store_id`].
    store: Option<String>,
}

/// Makes what is missing (the directories and the record) and resolves the user.
async fn make(
    node: &Node,
    request: &Request<'_>,
    disk: &Disk,
    image: &ImageFacts,
    record: DataRecord,
    consumers: Consumers,
    guard: &mut DataGuard,
) -> Result<Made, PrepareError> {
    let (host, prefix) = (Arc::clone(&node.host), disk.path.clone());
    let key = request.instance.id.uid.clone();
    let provider = Arc::clone(request.process);
    let record = DataRecord {
        resetting: false,
        ..record
    };
    let user = request.object.spec.requested_user(image);
    let make = move || {
        // Its root would have other owners than the image.
        if !provider.shares_user_namespace(&host.proc)? {
            return Err(Error::from(LayersError::UserNamespace).context(PROVIDER_USERS));
        }
        let store = Store::create(&host.root, &prefix)?;
        // The merged root is as the upper directory is, so that is made as the image's root is.
        let root = provider.root(&host.proc)?.stat();
        let kept = store.create_key(&key, &root.context("examine the image's root")?)?;
        let record = serde_json::to_vec(&record).context("write the record")?;
        if kept.record()?.as_ref() != Some(&record) {
            kept.set_record(&record)?;
        }
        anyhow::Ok((
            store.identity()?,
            identity::resolve(&host, &provider, &consumers, &kept, &user),
        ))
    };
    let made = guard.on_disk(make).await.context("make the filesystem")?;
    let (store, identity) = made.map_err(|error| unusable(&error))?;
    let identity = identity.map_err(|error| match error {
        IdentityError::User(error) => Failure::new(reason::USER_UNKNOWN, error.to_string()),
        IdentityError::Unreadable(error) => unusable(&error),
    })?;
    Ok(Made { identity, store })
}

/// Keeps the image's layers on the node. Without that the provider alone keeps them, until the
/// node's disk is full.
async fn keep_image(filesystems: &Filesystems, request: &Request<'_>) {
    let (instance, container) = (request.instance, request.container_id);
    let volumes = filesystems.volumes.of_instance(&instance.id.uid);
    let in_use = volumes.iter().any(|volume| volume.record.role == Role::Consumer);
    let cri = &filesystems.node.cri;
    if let Err(error) = image_lease::pin(cri, &instance.id.uid, container, in_use).await {
        tracing::warn!(instance = %instance.id, %error, "cannot keep the layers of the image on the node");
    }
}

/// Forgets the offer that was decided on, whatever becomes of the status.
fn use_up(instance: &Instance, decision: &Decision, reset: bool) {
    let Decision { verb, id } = decision;
    tracing::info!(instance = %instance.id, ?verb, id, "the user's decision is carried out");
    instance.change_quietly(|state| {
        state.write_uncertain = true;
        state.written = state.filesystem().cloned().map(|known| FilesystemStatus {
            recovery: None,
            usage: known.usage.filter(|_| !reset),
            ..known
        });
    });
}

fn refused_prefix(node: &Node, prefix: &Path) -> Failure {
    Failure::new(
        reason::HOST_PATH_PREFIX_REFUSED,
        format!(
            "spec.hostPathPrefix {} is not among those that node {} allows: {}",
            prefix.display(),
            node.name,
            node.disks.names()
        ),
    )
}

fn unusable(error: &Error) -> Failure {
    Failure::new(reason::FILESYSTEM_UNUSABLE, format!("{error:#}"))
}

// === impl PrepareError ===

impl From<Error> for PrepareError {
    fn from(error: Error) -> Self {
        Self::Retry(error)
    }
}

impl From<Failure> for PrepareError {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}
