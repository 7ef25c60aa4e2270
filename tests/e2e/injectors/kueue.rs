//! Kueue's controller from the view of pods, modelled on kubernetes-sigs/kueue
//! `pkg/controller/jobs/pod/pod_controller.go` (`Run`, `prepare`, `Finalize`) and
//! `pkg/podset/podset.go` (`Merge`): it patches gated pods when there is quota, and removes its
//! finalizer when they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_pods};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::Namespace;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const MANAGED: &str = "kueue.x-k8s.io/managed";
const GATE: &str = "kueue.x-k8s.io/admission";

/// A queue of one namespace.
pub(crate) struct Queue {
    open: watch::Sender<bool>,
    usage: Usage,
    work: JoinHandle<()>,
}

/// UIDs of the pods that count against the quota, and their names.
type Usage = Arc<Mutex<BTreeMap<String, String>>>;

/// The controller's part.
struct Controller {
    pods: Api<Pod>,
    usage: Usage,
}

/// Runs a test with a controller. Without quota (`open`), pods stay gated. At the end of the test,
/// also after a failure, it removes the controller's finalizers, because pods with them would block
/// the deletion of the namespace.
pub(crate) async fn with_queue(
    ns: &Namespace,
    open: bool,
    test: impl AsyncFnOnce(&Queue) -> Result<()>,
) -> Result<()> {
    let queue = Queue::start(ns, open);
    let result = test(&queue).await;
    drop(queue);
    let pods = ns.api::<Pod>();
    let managed = ListParams::default().labels(&format!("{MANAGED}=true"));
    for pod in pods.list(&managed).await?.items {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        match pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => drop(patched?),
        }
    }
    result
}

// === impl Queue ===

impl Queue {
    fn start(ns: &Namespace, open: bool) -> Self {
        let (sender, receiver) = watch::channel(open);
        let usage = Usage::default();
        let controller = Controller {
            pods: ns.api(),
            usage: usage.clone(),
        };
        Self {
            open: sender,
            usage,
            work: tokio::spawn(controller.run(receiver)),
        }
    }

    /// From now on there is quota.
    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// The quota is used up from now on.
    pub(super) fn close(&self) {
        self.open.send_replace(false);
    }

    /// Names of the admitted pods.
    pub(super) fn admitted(&self) -> Vec<String> {
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.values().cloned().collect()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.work.abort();
    }
}

// === impl Controller ===

impl Controller {
    async fn run(self, mut open: watch::Receiver<bool>) {
        let config = watcher::Config::default().labels(&format!("{MANAGED}=true"));
        let mut events = std::pin::pin!(watch_pods(self.pods.clone(), config).default_backoff());
        let mut pods = BTreeMap::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                        pods.insert(pod.name_any(), pod);
                    }
                    Some(Ok(Event::Delete(pod))) => drop(pods.remove(&pod.name_any())),
                    Some(_) => continue,
                    None => return,
                },
                Ok(()) = open.changed() => {}
            }
            let has_quota = *open.borrow();
            for pod in pods.values() {
                match self.reconcile(pod, has_quota).await {
                    Ok(()) => {}
                    // The newer version of the pod, or its deletion, will arrive.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(error) => eprintln!("queue: {}: {error:#}", pod.name_any()),
                }
            }
        }
    }

    async fn reconcile(&self, pod: &Pod, has_quota: bool) -> kube::Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
            self.count(|usage| drop(usage.remove(&uid)));
            if pod.finalizers().iter().any(|finalizer| finalizer == MANAGED) {
                self.patch(pod, json!({"metadata": {"finalizers": null}})).await?;
            }
            return Ok(());
        }
        let gates = pod.spec.iter().flat_map(|s| s.scheduling_gates.iter().flatten());
        if has_quota && gates.clone().any(|gate| gate.name == GATE) {
            self.patch(pod, admission(pod)).await?;
            self.count(|usage| drop(usage.insert(uid, pod.name_any())));
        }
        Ok(())
    }

    /// A merge patch that fails on a newer version of the pod, like Kueue's.
    async fn patch(&self, pod: &Pod, mut patch: Value) -> kube::Result<()> {
        patch["metadata"]["resourceVersion"] = json!(pod.resource_version());
        let patch = Patch::Merge(patch);
        self.pods
            .patch(&pod.name_any(), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        change(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The patch for a pod of a flavor with a node label and a toleration.
fn admission(pod: &Pod) -> Value {
    let uid = pod.uid().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let mut tolerations = json!(spec.tolerations.unwrap_or_default());
    if let Some(tolerations) = tolerations.as_array_mut() {
        tolerations.push(json!({"key": "flavor", "operator": "Exists", "effect": "NoSchedule"}));
    }
    json!({
        "metadata": {
            "annotations": {"kueue.x-k8s.io/workload": format!("pod-{}-{}", pod.name_any(), uid.get(..5).unwrap_or_default())},
            "labels": {
                "kueue.x-k8s.io/podset": "main",
                "kueue.x-k8s.io/local-queue-name": pod.labels().get("kueue.x-k8s.io/queue-name"),
                "kueue.x-k8s.io/cluster-queue-name": "cluster-queue",
            },
        },
        "spec": {
            "schedulingGates": null,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": tolerations,
        },
    })
}
