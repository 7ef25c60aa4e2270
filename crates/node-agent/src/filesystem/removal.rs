/*!
Deletes the data of an instance that is being deleted, once nobody uses it.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use rootfs::Store;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::FINALIZER;
use stoppablecontainer_api::{FilesystemState, FilesystemStatus};

use crate::agent::Agent;
use crate::filesystem::data::{self, Data, Doubt, Failure};
use crate::instance::state::Instance;
use crate::instance::status;
use crate::node::host::Host;
use crate::node::image_lease;
use crate::sync::restore::{drop_volume, is_stale};

/// Deletes the data if the instance is being deleted and no volume of it is published any more, and reports it.
/// An error is worth another try.
pub(crate) async fn remove(agent: &Agent, instance: &Instance) -> Result<()> {
    let Some(object) = instance.state().object else {
        return Ok(());
    };
    if object.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let node = object
        .status
        .as_ref()
        .and_then(|status| status.node_name.as_deref());
    if node != Some(agent.node_name.as_str()) {
        return Ok(());
    }
    for volume in agent.volumes.of_instance(&instance.id.uid) {
        if !is_stale(agent, &volume).await? {
            // Its unpublishing will lead here again.
            return Ok(());
        }
        drop_volume(agent, &volume)?;
    }
    let prefix = PathBuf::from(&object.spec.host_path_prefix);
    if agent.disks.get(&prefix).is_some() {
        let (host, key) = (Arc::clone(&agent.host), instance.id.uid.clone());
        let (directory, node) = (prefix.join(&key), agent.node_name.clone());
        let store = instance.filesystem().and_then(|known| known.store_id);
        let working = instance.work().await;
        let delete = move || delete(&host, &prefix, &key, store.as_deref());
        let (_working, deleted) = working.for_long(delete).await?;
        let kept = match deleted? {
            Deleted::Gone => None,
            Deleted::OutOfReach => Some(data::out_of_reach(&directory, &node)),
            Deleted::Newer => Some(data::outdated(&directory, &node)),
        };
        if let Some(failure) = kept {
            report_kept(agent, instance, &failure).await?;
            // Nothing announces that a disk was mounted or an agent updated.
            bail!("the data cannot be deleted: {}", failure.message);
        }
    } else if let Some(known) = instance.filesystem().filter(has_data) {
        // Whoever could write there by now must not choose what is deleted.
        let refused = FilesystemStatus {
            state: FilesystemState::Failed,
            reason: Some(reason::HOST_PATH_PREFIX_REFUSED.to_owned()),
            message: Some(format!(
                "the data in {} is not deleted, as node {} does not allow spec.hostPathPrefix {} any more. Allow it again, or \
                 delete the directory by hand and take the finalizer {FINALIZER} off the instance",
                prefix.join(&instance.id.uid).display(),
                agent.node_name,
                prefix.display(),
            )),
            recovery: None,
            ..known
        };
        return status::update(&agent.client, instance, |_| Some(refused.clone())).await;
    }
    image_lease::unpin(&agent.cri, &instance.id.uid).await?;
    let removed = FilesystemStatus {
        state: FilesystemState::Removed,
        node_name: agent.node_name.clone(),
        provider_pod_uid: None,
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
    status::update(&agent.client, instance, |_| Some(removed.clone())).await
}

/// Whether there can be data: it was made, or was about to be.
fn has_data(known: &FilesystemStatus) -> bool {
    known.image.is_some() || known.state == FilesystemState::Preparing
}

/// What became of the data.
enum Deleted {
    /// Nothing of it is left.
    Gone,
    /// The directory is not the one that holds it.
    OutOfReach,
    /// A newer agent knows where all of it is.
    Newer,
}

fn delete(host: &Host, prefix: &Path, key: &str, store: Option<&str>) -> Result<Deleted> {
    match data::look(&host.root, prefix, key, store)? {
        Data::OutOfReach => return Ok(Deleted::OutOfReach),
        Data::Doubtful(Doubt::Newer) => return Ok(Deleted::Newer),
        _ => {}
    }
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(Deleted::Gone);
    };
    let Some(kept) = store.get(key)? else {
        return Ok(Deleted::Gone);
    };
    let _locked = data::lock_unused(host, &kept)?;
    store.remove(key)?;
    Ok(Deleted::Gone)
}

/// Says in the status why the data is still there.
async fn report_kept(agent: &Agent, instance: &Instance, failure: &Failure) -> Result<()> {
    status::update(&agent.client, instance, |state| {
        let known = state.filesystem()?;
        Some(FilesystemStatus {
            state: FilesystemState::Failed,
            reason: Some(failure.reason.to_owned()),
            message: Some(format!(
                "{}. If it is gone for good, take the finalizer {FINALIZER} off the instance",
                failure.message
            )),
            recovery: None,
            ..known.clone()
        })
    })
    .await
}
