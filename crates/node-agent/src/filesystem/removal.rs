/*!
Deletes the data of an instance that is being deleted, once the data is not in use.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use kube::Client;
use rootfs::Store;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::FINALIZER;
use stoppablecontainer_api::{FilesystemState, FilesystemStatus};

use super::Filesystems;
use super::data::{self, Data};
use super::failure::Failure;
use super::record::RecordDefect;
use crate::instance::{Instance, status};
use crate::node::{Host, image_lease};
use crate::volumes::left_over;

/// Deletes the data if the instance is being deleted and no volume of it is published any more, and
/// reports it. An error is worth another try.
pub(crate) async fn remove(filesystems: &Filesystems, instance: &Instance) -> Result<()> {
    let Some(object) = instance.state().object else {
        return Ok(());
    };
    if object.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let (node, client) = (&filesystems.node, &filesystems.client);
    let recorded = object
        .status
        .as_ref()
        .and_then(|status| status.node_name.as_deref());
    if recorded != Some(node.name.as_str()) {
        return Ok(());
    }
    for volume in filesystems.volumes.of_instance(&instance.id.uid) {
        if !left_over::is_left_over(&node.host, client, &volume).await? {
            // Its unpublishing will lead here again.
            return Ok(());
        }
        left_over::remove(&node.host, &filesystems.volumes, &volume)?;
    }
    let prefix = PathBuf::from(&object.spec.host_path_prefix);
    if node.disks.get(&prefix).is_some() {
        let (host, key) = (Arc::clone(&node.host), instance.id.uid.clone());
        let directory = prefix.join(&key);
        let store = instance.filesystem().and_then(|known| known.store_id);
        let mut guard = instance.lock_data().await;
        let delete = move || delete(&host, &prefix, &key, store.as_deref());
        let kept = match guard.without_limit(delete).await?? {
            DeleteOutcome::Gone => None,
            DeleteOutcome::OtherDirectory => Some(Failure::other_directory(&directory, &node.name)),
            DeleteOutcome::Newer => Some(Failure::outdated_agent(&directory, &node.name)),
        };
        if let Some(failure) = kept {
            report_kept(client, instance, &failure).await?;
            // No event announces that a disk was mounted or an agent updated, so try again.
            bail!("the data cannot be deleted: {}", failure.message);
        }
    } else if let Some(known) = instance.filesystem().filter(has_data) {
        // A process that can write there by now must not choose what is deleted.
        let refused = FilesystemStatus {
            state: FilesystemState::Failed,
            reason: Some(reason::HOST_PATH_PREFIX_REFUSED.to_owned()),
            message: Some(format!(
                "the data in {} is not deleted, as node {} does not allow spec.hostPathPrefix {} any more. Allow \
                 it again, or delete the directory and remove the finalizer {FINALIZER} from the instance",
                prefix.join(&instance.id.uid).display(),
                node.name,
                prefix.display(),
            )),
            recovery: None,
            ..known
        };
        return status::update(client, instance, |_| Some(refused.clone())).await;
    }
    image_lease::unpin(&node.cri, &instance.id.uid).await?;
    let removed = FilesystemStatus {
        state: FilesystemState::Removed,
        node_name: node.name.clone(),
        provider_pod_uid: None,
        announced: false,
        store_id: None,
        reason: None,
        message: None,
        image: None,
        identity: None,
        usage: None,
        recovery: None,
        disk_low: None,
        blocked: None,
        write_failed: None,
    };
    status::update(client, instance, |_| Some(removed.clone())).await
}

/// Whether there can be data: it was made, or making it was reported.
fn has_data(known: &FilesystemStatus) -> bool {
    known.image.is_some() || known.state == FilesystemState::Preparing
}

/// The result of a removal.
enum DeleteOutcome {
    /// Nothing of it is left.
    Gone,
    /// The directory is not the one that holds it.
    OtherDirectory,
    /// A newer agent knows where all of it is.
    Newer,
}

fn delete(host: &Host, prefix: &Path, key: &str, store: Option<&str>) -> Result<DeleteOutcome> {
    match data::look(&host.root, prefix, key, store)? {
        Data::OtherDirectory => return Ok(DeleteOutcome::OtherDirectory),
        Data::Defective(RecordDefect::Newer) => return Ok(DeleteOutcome::Newer),
        _ => {}
    }
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(DeleteOutcome::Gone);
    };
    let Some(kept) = store.get(key)? else {
        return Ok(DeleteOutcome::Gone);
    };
    let _locked = data::lock_unused(host, &kept)?;
    store.remove(key)?;
    Ok(DeleteOutcome::Gone)
}

/// Says in the status why the data is still there.
async fn report_kept(client: &Client, instance: &Instance, failure: &Failure) -> Result<()> {
    status::update(client, instance, |state| {
        let known = state.filesystem()?;
        Some(FilesystemStatus {
            state: FilesystemState::Failed,
            reason: Some(failure.reason.to_owned()),
            message: Some(format!(
                "{}. If it is lost, remove the finalizer {FINALIZER} from the instance",
                failure.message
            )),
            recovery: None,
            ..known.clone()
        })
    })
    .await
}
