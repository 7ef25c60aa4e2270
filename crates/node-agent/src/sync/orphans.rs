/*!
Looks for kept filesystems that belong to no instance of this node.

The agent reports them in a metric, its log and an event of the node. It does not delete them: an
instance that comes back with another backup finds its data. An administrator removes them with
`node-agent orphans --remove KEY` in the agent's pod. If the instance is on another node, the event
has the command that continues it here.
*/

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::{ANNOTATION_MOVED_TO, FIELD_MANAGER_AGENT};

use crate::filesystem::Filesystems;
use crate::filesystem::orphans::{self, Found, Orphan};
use crate::instance::Instances;
use crate::node::image_lease;

/// Time between two searches, and the random part of it: all agents start together.
const EVERY: Duration = Duration::from_hours(1);
const SPREAD_SECONDS: u64 = 600;

/// Kept filesystems without an instance, as last looked.
#[derive(Debug, Default)]
pub(crate) struct FoundOrphans(Mutex<Vec<Orphan>>);

/// Searches every hour.
pub(crate) async fn follow(filesystems: Arc<Filesystems>, orphans: Arc<FoundOrphans>) {
    let mut reported = HashSet::new();
    filesystems.instances.synced().await;
    loop {
        let node = &filesystems.node;
        let is_known = |uid: &str| knows(&filesystems.instances, uid);
        match orphans::find(&node.host, &node.disks, &filesystems.client, is_known).await {
            Ok(found) => {
                for report in reports(&filesystems, &found).await {
                    if reported.insert(report.note.clone()) {
                        tracing::warn!("{}", report.note);
                        publish(&filesystems, report).await;
                    }
                }
                orphans.set(found.orphans);
            }
            Err(error) => tracing::warn!("cannot look for data without an instance: {error:#}"),
        }
        if let Err(error) = release_images(&filesystems).await {
            tracing::warn!("cannot release images of instances that are gone: {error:#}");
        }
        let chance = RandomState::new().hash_one(0_u8) % SPREAD_SECONDS;
        tokio::time::sleep(EVERY + Duration::from_secs(chance)).await;
    }
}

fn knows(instances: &Instances, uid: &str) -> bool {
    let instance = instances.find(uid);
    instance.is_some_and(|instance| instance.state().object.is_some())
}

/// What the agent reports about its node.
struct Report {
    reason: &'static str,
    note: String,
}

async fn reports(filesystems: &Filesystems, found: &Found) -> Vec<Report> {
    let mut reports: Vec<_> = found.orphans.iter().map(orphaned).collect();
    let node = &filesystems.node.name;
    for orphan in &found.owned {
        match orphans::instance_elsewhere(&filesystems.client, orphan, node).await {
            Ok(instance) => reports.extend(instance.map(|instance| moved(orphan, &instance, node))),
            Err(error) => {
                tracing::warn!(directory = %orphan, "cannot find out whose data this is: {error:#}");
            }
        }
    }
    reports
}

fn orphaned(orphan: &Orphan) -> Report {
    let note = format!(
        "{orphan} holds data of an instance that does not exist any more. If it is not needed, remove it in the node \
         agent's pod of this node: kubectl exec POD -- /node-agent orphans --remove {}",
        orphan.key
    );
    Report {
        reason: reason::ORPHANED_FILESYSTEM,
        note,
    }
}

/// The disk of another node, or a copy of it. Only a person knows whether that node comes back.
fn moved(orphan: &Orphan, instance: &StoppableContainerInstance, node: &str) -> Report {
    let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
    let status = instance.status.as_ref();
    let at = status
        .and_then(|status| status.node_name.as_deref())
        .unwrap_or_default();
    let note = format!(
        "{orphan} holds the files of {namespace}/{name}, which is on node {at}. If that node is gone for good, delete its \
         Node object and continue here: kubectl annotate --overwrite -n {namespace} stoppablecontainer {name} \
         {ANNOTATION_MOVED_TO}={node}"
    );
    Report {
        reason: reason::MOVED_FILESYSTEM,
        note,
    }
}

async fn publish(filesystems: &Filesystems, report: Report) {
    let node_name = &filesystems.node.name;
    let reporter = Reporter {
        controller: FIELD_MANAGER_AGENT.to_owned(),
        instance: Some(node_name.clone()),
    };
    // As the kubelet refers to its node in events: the name in the place of the UID.
    let node = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node_name.clone()),
        uid: Some(node_name.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: report.reason.to_owned(),
        note: Some(report.note),
        action: "Keep".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(filesystems.client.clone(), reporter);
    if let Err(error) = recorder.publish(&event, &node).await {
        tracing::debug!(%error, "event not published");
    }
}

/// Releases the images of instances that do not exist any more.
async fn release_images(filesystems: &Filesystems) -> Result<()> {
    let cri = &filesystems.node.cri;
    let mut kept_for = image_lease::pinned(cri).await?;
    kept_for.retain(|uid| !knows(&filesystems.instances, uid));
    if kept_for.is_empty() {
        return Ok(());
    }
    let uids = orphans::instance_uids(&filesystems.client).await?;
    for uid in kept_for.iter().filter(|uid| !uids.contains(*uid)) {
        image_lease::unpin(cri, uid).await?;
    }
    Ok(())
}

// === impl FoundOrphans ===

impl FoundOrphans {
    /// How many there are below `prefix`.
    pub(crate) fn count(&self, prefix: &Path) -> usize {
        let orphans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.iter().filter(|orphan| orphan.prefix == prefix).count()
    }

    fn set(&self, found: Vec<Orphan>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
