/*!
Kept filesystems that belong to no instance: an administrator removed a finalizer by
hand, or the cluster's etcd was restored from an older backup.

The agent reports them in a metric, its log and an event of the node. It does not
delete them: an instance that comes back with another backup finds its data. An
administrator removes them with `node-agent orphans --remove KEY` in the agent's pod.
*/

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ListParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use rootfs::Store;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::FIELD_MANAGER_AGENT;

use crate::agent::Agent;
use crate::args;
use crate::filesystem::data::{self, Record};
use crate::node::disks::Disks;
use crate::node::host::Host;
use crate::node::image_lease;

/// Time between two looks, and how much of it is left to chance: agents start together.
const EVERY: Duration = Duration::from_hours(1);
const SPREAD_SECONDS: u64 = 600;
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

/// Looks every now and then, for ever.
pub(crate) async fn follow(agent: Arc<Agent>) {
    let mut told = HashSet::new();
    agent.synced().await;
    loop {
        match find(&agent.host, &agent.disks, &agent.client, |uid| knows(&agent, uid)).await {
            Ok(found) => {
                for orphan in &found {
                    if told.insert(orphan.clone()) {
                        tell(&agent, orphan).await;
                    }
                }
                agent.set_orphans(found);
            }
            Err(error) => tracing::warn!("cannot look for data without instance: {error:#}"),
        }
        if let Err(error) = unpin(&agent).await {
            tracing::warn!("cannot look for images that are kept for no instance: {error:#}");
        }
        let chance = RandomState::new().hash_one(0_u8) % SPREAD_SECONDS;
        tokio::time::sleep(EVERY + Duration::from_secs(chance)).await;
    }
}

fn knows(agent: &Agent, uid: &str) -> bool {
    let instance = agent.instances.find(uid);
    instance.is_some_and(|instance| instance.state().object.is_some())
}

/// Gives up the images of instances that do not exist any more.
async fn unpin(agent: &Agent) -> Result<()> {
    let mut kept_for = image_lease::pinned(&agent.cri).await?;
    kept_for.retain(|uid| !knows(agent, uid));
    if kept_for.is_empty() {
        return Ok(());
    }
    let uids = uids(&agent.client).await?;
    for uid in kept_for.iter().filter(|uid| !uids.contains(*uid)) {
        image_lease::unpin(&agent.cri, uid).await?;
    }
    Ok(())
}

/// Kept filesystems without an instance now. The API server is not asked about those that `is_known` to have one.
///
/// # Guarantees
/// A directory is made after its instance, and all instances are listed after the directories: a filesystem listed here
/// had no instance at one moment, and an instance's UID comes back only with a restored backup.
async fn find(
    host: &Arc<Host>,
    disks: &Disks,
    client: &Client,
    is_known: impl Fn(&str) -> bool,
) -> Result<Vec<Orphan>> {
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
    if !found.is_empty() {
        let uids = uids(client).await?;
        found.retain(|orphan| !uids.contains(&orphan.key));
    }
    Ok(found)
}

fn list(host: &Host, prefix: &Path) -> Result<Vec<Orphan>> {
    let Some(store) = Store::open(&host.root, prefix)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in store.keys()? {
        let record = store.get(&key)?.and_then(|kept| kept.record().ok().flatten());
        let record = record.and_then(|record| serde_json::from_slice::<Record>(&record).ok());
        found.push(Orphan {
            prefix: prefix.to_owned(),
            key,
            of: record.map(|record| format!("{}/{}", record.namespace, record.name)),
        });
    }
    Ok(found)
}

/// The UIDs of all instances of the cluster, read from etcd and not from a cache.
async fn uids(client: &Client) -> Result<HashSet<String>> {
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

async fn tell(agent: &Agent, orphan: &Orphan) {
    let note = format!(
        "{orphan} holds data of an instance that does not exist any more. If it is not needed, remove it in the node \
         agent's pod of this node: kubectl exec POD -- /node-agent orphans --remove {}",
        orphan.key
    );
    tracing::warn!(directory = %orphan, of = orphan.of, "data without instance");
    let reporter = Reporter {
        controller: FIELD_MANAGER_AGENT.to_owned(),
        instance: Some(agent.node_name.clone()),
    };
    // As the kubelet refers to its node in events: the name in the place of the UID.
    let node = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(agent.node_name.clone()),
        uid: Some(agent.node_name.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: reason::ORPHANED_FILESYSTEM.to_owned(),
        note: Some(note),
        action: "Keep".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(agent.client.clone(), reporter);
    if let Err(error) = recorder.publish(&event, &node).await {
        tracing::debug!(%error, "event not published");
    }
}

/// `orphans`: lists them, or removes those that are named.
pub(crate) fn run(args: &args::Orphans) -> Result<()> {
    crate::agent::in_runtime(async {
        let host = Arc::new(Host::open().context("reach the node")?);
        let disks = Disks::new(&args.allowed_prefix);
        let client = apiserver::client()
            .await
            .context("configure access to the API server")?;
        let found = find(&host, &disks, &client, |_| false).await?;
        if args.remove.is_empty() {
            print(&found);
            return Ok(());
        }
        for key in &args.remove {
            let orphan = found.iter().find(|orphan| orphan.key == *key);
            let orphan = orphan.ok_or_else(|| {
                anyhow!("{key}: nothing of this name is without instance here; see `node-agent orphans`")
            })?;
            tokio::task::block_in_place(|| remove(&host, orphan)).with_context(|| key.clone())?;
            say(&format!("{orphan} removed"));
        }
        Ok(())
    })
}

fn remove(host: &Host, orphan: &Orphan) -> Result<()> {
    let Some(store) = Store::open(&host.root, &orphan.prefix)? else {
        bail!("it is gone");
    };
    let Some(kept) = store.get(&orphan.key)? else {
        bail!("it is gone");
    };
    let _locked = data::lock_unused(host, &kept)?;
    Ok(store.remove(&orphan.key)?)
}

fn print(found: &[Orphan]) {
    say("DIRECTORY\tINSTANCE");
    for orphan in found {
        say(&format!(
            "{orphan}\t{}",
            orphan.of.as_deref().unwrap_or("unknown")
        ));
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(line: &str) {
    println!("{line}");
}

impl std::fmt::Display for Orphan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.prefix.join(&self.key).display())
    }
}
