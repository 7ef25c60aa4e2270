//! One instance with its pods, seen by the API server (values) and by the caches (what was put
//! there by `sync`).

use std::sync::Arc;
use std::time::Duration;

use crate::objects::{CONSUMER, INSTANCE, PROVIDER, new_instance, pod};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoppablecontainer::metrics::StepMetrics;
use stoppablecontainer::reconcile::context::{
    Attempts, CacheWriters, Context, OwnWrites, ReconcileError, caches, jittered,
};
use stoppablecontainer::reconcile::pods::Created;
use stoppablecontainer::reconcile::pods::OptOuts;
use stoppablecontainer::reconcile::pods::consumer_hash;
use stoppablecontainer::reconcile::{container, instance};
use stoppablecontainer_api::StoppableContainerInstance;
use testkit::scripted::{Call, Scripted, recording};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

pub(crate) struct World {
    pub(crate) api: Scripted,
    events: UnboundedReceiver<Value>,
    pub(crate) context: Arc<Context>,
    pub(crate) writers: CacheWriters,
    pub(crate) instance: Value,
    version: u64,
}

impl World {
    /// A running instance `web` without finalizer and status, and a node `n1`.
    pub(crate) fn new() -> Self {
        let (client, api) = Scripted::new();
        let (recording, events) = recording();
        let (caches, mut writers) = caches();
        put(&mut writers.containers, &[]);
        put(&mut writers.instances, &[]);
        put(&mut writers.pods, &[]);
        put(
            &mut writers.nodes,
            &[json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } })],
        );
        let drivers = json!({
            "metadata": { "name": "n1" },
            "spec": { "drivers": [{ "name": "csi.stoppablecontainer.xtlsoft.top", "nodeID": "n1" }] },
        });
        put(&mut writers.drivers, &[drivers]);
        let reporter = Reporter {
            controller: "test".to_owned(),
            instance: None,
        };
        let context = Arc::new(Context {
            recorder: Recorder::new(recording, reporter),
            client,
            caches,
            attempts: Attempts::default(),
            steps: StepMetrics::default(),
            created: Created::default(),
            own: OwnWrites::default(),
            opt_outs: OptOuts::default(),
        });
        let instance = new_instance();
        Self {
            api,
            events,
            context,
            writers,
            instance,
            version: 1,
        }
    }

    /// The same, prepared on node `n1` and with both pods running.
    pub(crate) fn running() -> (Self, Value, Value) {
        let mut world = Self::prepared();
        let provider = World::provider();
        let consumer = pod("web", "consumer", "consumer-uid");
        world.instance["status"]["consumerPodUid"] = json!("consumer-uid");
        world.sync(&[provider.clone(), consumer.clone()]);
        (world, provider, consumer)
    }

    /// The same, prepared on node `n1`; the provider is in no cache yet.
    pub(crate) fn prepared() -> Self {
        let mut world = Self::new();
        world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
        world.instance["status"] = json!({
            "phase": "Pending", "nodeName": "n1", "providerPodUid": "provider-uid",
            "filesystem": {
                "state": "Ready", "nodeName": "n1", "providerPodUid": "provider-uid",
                "image": { "reference": "nginx:1.25", "id": "sha256:1" },
                "identity": { "user": "", "uid": 0, "gid": 0 },
            },
        });
        world.check(None);
        world
    }

    /// Notes that the API server was asked about the template, and what it said.
    pub(crate) fn check(&mut self, problem: Option<&str>) {
        let instance: StoppableContainerInstance = serde_json::from_value(self.instance.clone()).unwrap();
        let mut check = json!({ "templateHash": consumer_hash(&instance) });
        if let Some(problem) = problem {
            check["problem"] = json!(problem);
        }
        self.instance["status"]["templateCheck"] = check;
    }

    /// The provider of [`World::prepared`], running.
    pub(crate) fn provider() -> Value {
        pod("web-provider", "provider", "provider-uid")
    }

    /// Takes over the instance of another world, as the next leader does.
    pub(crate) fn continue_with(&mut self, before: World) {
        self.instance = before.instance;
        self.version = before.version;
    }

    /// Shows the caches what the API server has, and these pods.
    pub(crate) fn sync(&mut self, pods: &[Value]) {
        put(&mut self.writers.instances, std::slice::from_ref(&self.instance));
        put(&mut self.writers.pods, pods);
    }

    /// Starts a pass over the instance as the API server has it.
    pub(crate) fn reconcile(&self) -> JoinHandle<Result<Action, ReconcileError>> {
        let instance: StoppableContainerInstance = serde_json::from_value(self.instance.clone()).unwrap();
        tokio::spawn(instance::reconcile(Arc::new(instance), Arc::clone(&self.context)))
    }

    /// Starts a pass over a StoppableContainer.
    pub(crate) fn reconcile_container(
        &self,
        container: &Value,
    ) -> JoinHandle<Result<Action, ReconcileError>> {
        let container = serde_json::from_value(container.clone()).unwrap();
        tokio::spawn(container::reconcile(
            Arc::new(container),
            Arc::clone(&self.context),
        ))
    }

    /// Expects a merge patch of the instance, at the path, carries it out as the API server would,
    /// and returns it.
    pub(crate) async fn patched(&mut self, path: &str) -> Value {
        let call = self.api.expect("PATCH", path).await;
        self.answer_patch(call)
    }

    /// The same for a patch that has come already.
    pub(crate) fn answer_patch(&mut self, call: Call) -> Value {
        let sent = call.body.clone();
        assert_eq!(
            sent["metadata"]["resourceVersion"], self.instance["metadata"]["resourceVersion"],
            "written on what was seen"
        );
        self.version += 1;
        merge(&mut self.instance, &sent);
        self.instance["metadata"]["resourceVersion"] = json!(self.version.to_string());
        call.answer(&self.instance);
        sent
    }

    /// The next event with this reason. Earlier ones are skipped.
    pub(crate) async fn event(&mut self, reason: &str) -> Value {
        let next = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if event["reason"] == reason {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), next).await.unwrap()
    }

    /// Kinds of the objects and reasons of the events since the last look. Of a pass that is over,
    /// all are there.
    pub(crate) fn told(&mut self) -> Vec<(String, String)> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events
            .map(|event| (word(&event["regarding"]["kind"]), word(&event["reason"])))
            .collect()
    }

    /// Expects the fresh look that a pass takes before it lets the last hold on the instance go,
    /// and answers with the instance as the API server has it and without pods.
    pub(crate) async fn observed_uncached(&mut self) {
        self.api.expect("GET", INSTANCE).await.answer(&self.instance);
        for pod in [PROVIDER, CONSUMER] {
            self.api.expect("GET", pod).await.refuse(404, "NotFound", "gone");
        }
    }

    /// Asserts that a pass ends without another request because what it was decided on is not the
    /// newest state.
    pub(crate) async fn starts_over(&mut self, reconciling: JoinHandle<Result<Action, ReconcileError>>) {
        self.api.quiet(Duration::from_millis(20)).await;
        assert!(reconciling.await.unwrap().unwrap_err().is_conflict());
    }

    /// Asserts that a pass over the instance sends nothing.
    pub(crate) async fn expect_no_requests(&mut self) {
        let reconciling = self.reconcile();
        self.api.quiet(Duration::from_millis(50)).await;
        assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
    }
}

/// Reasons of the conditions in a status patch or object: Ready, ProviderReady, FilesystemReady,
/// ConsumerReady. The conditions that repeat what these say are left out.
pub(crate) fn reasons(of: &Value) -> Vec<&str> {
    of["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["type"] != "ConsumerScheduled" && c["type"] != "Stopped")
        .map(|c| c["reason"].as_str().unwrap())
        .collect()
}

/// UID and resourceVersion that a deletion insists on.
pub(crate) fn preconditions(call: &Call) -> (&str, &str) {
    let conditions = &call.body["preconditions"];
    (
        conditions["uid"].as_str().unwrap_or_default(),
        conditions["resourceVersion"].as_str().unwrap_or_default(),
    )
}

/// Fills a cache with exactly these objects.
pub(crate) fn put<K>(cache: &mut kube::runtime::reflector::store::Writer<K>, objects: &[Value])
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    cache.apply_watcher_event(&Event::Init);
    for object in objects {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        cache.apply_watcher_event(&Event::InitApply(object));
    }
    cache.apply_watcher_event(&Event::InitDone);
}

/// RFC 7396.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    json_patch::merge(into, patch);
}

#[tokio::test]
async fn world_is_what_the_types_read() {
    let (world, provider, _) = World::running();
    let instance: StoppableContainerInstance = serde_json::from_value(world.instance).unwrap();
    assert!(instance.status.unwrap().ready_filesystem().is_some());
    let provider: Pod = serde_json::from_value(provider).unwrap();
    assert_ne!(provider.metadata, ObjectMeta::default());
}

/// When an object that was refused `times` times before tries again: within `wait`.
pub(crate) fn retry(wait: Duration, uid: &str, times: u32) -> Action {
    let jittered = jittered(wait, uid, times);
    assert!((wait / 2..=wait).contains(&jittered));
    Action::requeue(jittered)
}
