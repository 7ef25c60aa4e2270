/*!
Kept filesystems that belong to no instance of this node: an administrator removed a finalizer by
hand, the cluster's etcd was restored from an older backup, or the disk comes from another node.
*/

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::ListParams;
use kube::{Api, Client};
use rootfs::Store;
use stoppablecontainer_api::StoppableContainerInstance;

use super::data;
use super::record::DataRecord;
use crate::node::{Disks, Host};

/// How long one disk may take to list what it holds.
const DISK_TIME: Duration = Duration::from_secs(30);
/// Instances that one call lists.
const PAGE: u32 = 500;

/// A kept filesystem without instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Orphan {
    pub(crate) prefix: PathBuf,
    /// Name of its directory, the UID of the instance that it was made for.
    pub(crate) key: String,
    /// Namespace and name of that instance, as far as the record says.
    pub(crate) of: Option<String>,
}

/// Kept filesystems that are not known.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Those without an instance.
    pub(crate) orphans: Vec<Orphan>,
    /// Those that have one.
    pub(crate) owned: Vec<Orphan>,
}

/// Kept filesystems without an instance now, and the others. The API server is not asked about
/// those that `is_known` to have one.
///
/// # Guarantees
/// A directory is made after its instance, and all instances are listed after the directories: an
/// orphan had no instance at one moment, and an instance's UID comes back only with a restored
/// backup.
pub(crate) async fn find(
    host: &Arc<Host>,
    disks: &Disks,
    client: &Client,
    is_known: impl Fn(&str) -> bool,
) -> Result<Found> {
    let mut found = Vec::new();
    for disk in disks.iter() {
        let (host, prefix) = (Arc::clone(host), disk.path.clone());
        let list = tokio::task::spawn_blocking(move || list(&host, &prefix));
        let Ok(listed) = tokio::time::timeout(DISK_TIME, list).await else {
            tracing::warn!(prefix = %disk.path.display(), "the disk does not answer");
            continue;
        };
        found.extend(listed.context("list a disk")??);
    }
    found.retain(|orphan| !is_known(&orphan.key));
    if found.is_empty() {
        return Ok(Found::default());
    }
    let uids = instance_uids(client).await?;
    let (owned, orphans) = found.into_iter().partition(|orphan| uids.contains(&orphan.key));
    Ok(Found { orphans, owned })
}

/// The instance that a record names, if its node is not `node` and the directory is its own. An
/// instance that has no node yet may get this one.
pub(crate) async fn instance_elsewhere(
    client: &Client,
    orphan: &Orphan,
    node: &str,
) -> Result<Option<StoppableContainerInstance>> {
    let Some((namespace, name)) = orphan.of.as_deref().and_then(|of| of.split_once('/')) else {
        return Ok(None);
    };
    let api = Api::<StoppableContainerInstance>::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.context("read an instance")?;
    Ok(found.filter(|found| {
        let at = found
            .status
            .as_ref()
            .and_then(|status| status.node_name.as_deref());
        found.metadata.uid.as_deref() == Some(&orphan.key) && at.is_some_and(|at| at != node)
    }))
}

fn list(host: &Host, prefix: &Path) -> Result<Vec<Orphan>> {
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in store.keys()? {
        let record = store.get(&key)?.and_then(|kept| kept.record().ok().flatten());
        let record = record.and_then(|record| serde_json::from_slice::<DataRecord>(&record).ok());
        found.push(Orphan {
            prefix: prefix.to_owned(),
            key,
            of: record.map(|record| format!("{}/{}", record.namespace, record.name)),
        });
    }
    Ok(found)
}

/// The UIDs of all instances of the cluster, read from etcd and not from a cache.
pub(crate) async fn instance_uids(client: &Client) -> Result<HashSet<String>> {
    let api = Api::<StoppableContainerInstance>::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut uids = HashSet::new();
    loop {
        let page = api.list_metadata(&params).await.context("list the instances")?;
        uids.extend(page.items.into_iter().filter_map(|item| item.metadata.uid));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(uids),
        }
    }
}

/// Removes the data of one.
pub(crate) fn remove(host: &Host, orphan: &Orphan) -> Result<()> {
    let Some(store) = Store::open(&host.root, &orphan.prefix)? else {
        bail!("it is gone");
    };
    let Some(kept) = store.get(&orphan.key)? else {
        bail!("it is gone");
    };
    let _locked = data::lock_unused(host, &kept)?;
    Ok(store.remove(&orphan.key)?)
}

impl std::fmt::Display for Orphan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.prefix.join(&self.key).display())
    }
}
