/*!
Fake node agents: they report a filesystem as ready as soon as the provider of an instance runs.
They write what the real ones write, by server-side apply, and do nothing on a disk.
*/

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::{FIELD_MANAGER_AGENT, LABEL_ROLE, ROLE_PROVIDER};
use tokio::sync::Semaphore;

/// Writes under way at the same time: a hundred nodes do not write one after another.
const CONCURRENCY: usize = 64;

/// Runs until the process ends.
pub(crate) async fn run(client: Client) {
    let providers = watcher::Config::default().labels(&format!("{LABEL_ROLE}={ROLE_PROVIDER}"));
    let pods = watcher(Api::<Pod>::all(client.clone()), providers)
        .default_backoff()
        .touched_objects()
        .filter_map(async |pod| pod.ok())
        .map(|pod| Seen::Pod(Box::new(pod)));
    let instances = watcher(
        Api::<StoppableContainerInstance>::all(client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .filter_map(async |instance| instance.ok())
    .map(|instance| Seen::Instance(Box::new(instance)));
    let mut seen = std::pin::pin!(futures::stream::select(pods, instances));
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut agent = Agent::default();
    while let Some(seen) = seen.next().await {
        let due = match seen {
            Seen::Pod(pod) => agent.pod(&pod),
            Seen::Instance(instance) => agent.instance(*instance),
        };
        let Some(instance) = due else { continue };
        let (client, permits) = (client.clone(), Arc::clone(&permits));
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            if let Err(error) = report(&client, &instance).await {
                eprintln!("fake agent: {}: {error}", instance.name_any());
            }
        });
    }
}

enum Seen {
    Pod(Box<Pod>),
    Instance(Box<StoppableContainerInstance>),
}

/// What the fake agents know.
#[derive(Default)]
struct Agent {
    running: HashSet<String>,
    waiting: std::collections::HashMap<String, StoppableContainerInstance>,
}

// === impl Agent ===

impl Agent {
    fn pod(&mut self, pod: &Pod) -> Option<StoppableContainerInstance> {
        let uid = pod.uid()?;
        let phase = pod.status.as_ref()?.phase.as_deref();
        if phase != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
            self.running.remove(&uid);
            return None;
        }
        let due = self.waiting.remove(&uid);
        self.running.insert(uid);
        due
    }

    fn instance(&mut self, instance: StoppableContainerInstance) -> Option<StoppableContainerInstance> {
        let status = instance.status.as_ref()?;
        let provider = status.provider_pod_uid.clone()?;
        if status.filesystem.is_some() {
            return None;
        }
        if self.running.contains(&provider) {
            return Some(instance);
        }
        self.waiting.insert(provider, instance);
        None
    }
}

async fn report(client: &Client, instance: &StoppableContainerInstance) -> Result<(), kube::Error> {
    let status = instance.status.as_ref();
    let patch = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": { "name": instance.name_any(), "uid": instance.uid() },
        "status": { "filesystem": {
            "state": "Ready",
            "nodeName": status.and_then(|status| status.node_name.clone()),
            "providerPodUid": status.and_then(|status| status.provider_pod_uid.clone()),
            "image": {
                "reference": instance.spec.main_image(),
                "id": "sha256:0000000000000000000000000000000000000000000000000000000000000001",
                "entrypoint": ["/run"], "env": ["PATH=/usr/bin:/bin"],
            },
            "identity": { "user": "", "uid": 0, "gid": 0 },
            "usage": { "bytes": 4096, "inodes": 1 },
        } },
    });
    let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
    let namespace = instance.namespace().unwrap_or_default();
    let api = Api::<StoppableContainerInstance>::namespaced(client.clone(), &namespace);
    api.patch_status(&instance.name_any(), &params, &Patch::Apply(patch))
        .await
        .map(drop)
}
