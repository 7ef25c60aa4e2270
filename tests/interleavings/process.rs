/*!
One process of the controller: the product's reconcilers with their context, caches that are fed
event by event, and a queue.

Which event queues which object follows `src/reconcile/watch.rs`, and how long a failed object waits
follows `src/reconcile.rs`. Both are repeated here, because the driver decides when a pass runs.
*/

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stoppablecontainer::metrics::StepMetrics;
use stoppablecontainer::reconcile::context::{
    Attempts, CacheWriters, Context, HeldPod, OwnWrites, ReconcileError, caches,
};
use stoppablecontainer::reconcile::pods::{Created, OptOuts, Role};
use stoppablecontainer::reconcile::{container, instance};
use stoppablecontainer::selections::{Drivers, Nodes, Pods};
use stoppablecontainer_api::names::{LABEL_INSTANCE, LABEL_MANAGED_BY};
use stoppablecontainer_api::trimmed::{Selection, Trimmed, Whole};
use tokio::time::Instant;

use crate::api::Api;
use crate::api::gate::ProcessId;
use crate::api::kind::{Key, Kind, NAMESPACE};
use crate::api::store::{Change, Store};
use crate::world::name;

/// First and longest wait after a pass that failed, as in `context/attempts.rs`.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The roles of pods.
const ROLES: [Role; 3] = [Role::Placeholder, Role::Provider, Role::Consumer];

/// An object to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Container(String),
    Instance(String),
}

/// The outcome of a pass.
pub(crate) type Passed = Result<Action, ReconcileError>;

/// A pass on its way.
pub(crate) type Pass = BoxFuture<'static, Passed>;

/// A process that leads, or believes so.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    context: Arc<Context>,
    writers: CacheWriters,
    pub(crate) queue: VecDeque<Target>,
    timers: BTreeMap<Target, Instant>,
    failures: BTreeMap<Target, u32>,
    /// How much of the history each cache has seen.
    seen: BTreeMap<Kind, usize>,
    /// Caches that do not get on for now.
    pub(crate) frozen: BTreeSet<Kind>,
}

// === impl Process ===

impl Process {
    /// A process that has just listed everything, `stale` as it was at an earlier revision.
    pub(crate) fn start(api: &Api, id: ProcessId, stale: Option<(Kind, usize)>) -> Self {
        let mut process = Self::empty(api, id);
        process.frozen.extend(stale.map(|(kind, _)| kind));
        let store = api.lock().world.store.clone();
        for kind in Kind::CACHED {
            let now = store.history().len();
            let revision = stale
                .filter(|(of, _)| *of == kind)
                .map_or(now, |(_, revision)| revision);
            process.list(&store, kind, revision);
        }
        process.queue_all();
        process
    }

    fn empty(api: &Api, id: ProcessId) -> Self {
        let client = api.client(id);
        let (caches, writers) = caches();
        let reporter = Reporter {
            controller: "test".to_owned(),
            instance: None,
        };
        let context = Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            caches,
            attempts: Attempts::default(),
            steps: StepMetrics::default(),
            created: Created::default(),
            own: OwnWrites::default(),
            opt_outs: OptOuts::default(),
        });
        Self {
            id,
            context,
            writers,
            queue: VecDeque::new(),
            timers: BTreeMap::new(),
            failures: BTreeMap::new(),
            seen: BTreeMap::new(),
            frozen: BTreeSet::new(),
        }
    }

    /// A process that has these objects in its caches and created these pods, by the UID of their
    /// instance and their role.
    pub(crate) fn restore(
        api: &Api,
        cached: &BTreeMap<Key, Arc<Value>>,
        created: &BTreeMap<(String, &'static str), String>,
    ) -> Self {
        let mut process = Self::empty(api, 0);
        for kind in Kind::CACHED {
            let of_kind = cached.iter().filter(|(key, _)| key.kind == kind);
            process.fill(kind, of_kind.map(|(_, object)| Arc::clone(object)).collect());
        }
        for ((instance, role), pod) in created {
            let Some(role) = ROLES.into_iter().find(|known| known.label() == *role) else {
                continue;
            };
            process.context.created.note(instance, role, pod);
        }
        process
    }

    /// What it knows of the pods that it created for an instance.
    pub(crate) fn created(&self, instance: &str) -> impl Iterator<Item = (&'static str, String)> {
        ROLES
            .into_iter()
            .filter_map(|role| Some((role.label(), self.context.created.pod(instance, role)?)))
    }

    /// What a new list of everything does.
    pub(crate) fn relist(&mut self, store: &Store) {
        for kind in Kind::CACHED {
            self.list(store, kind, store.history().len());
        }
        self.queue_all();
    }

    fn list(&mut self, store: &Store, kind: Kind, revision: usize) {
        self.fill(kind, store.at(kind, revision).into_values().collect());
        self.seen.insert(kind, revision);
    }

    fn fill(&mut self, kind: Kind, objects: Vec<Arc<Value>>) {
        match kind {
            Kind::Container => fill::<_, Whole>(&mut self.writers.containers, &objects),
            Kind::Instance => fill::<_, Whole>(&mut self.writers.instances, &objects),
            Kind::Pod => {
                let ours: Vec<_> = objects.into_iter().filter(|pod| is_ours(pod)).collect();
                fill::<HeldPod, Pods>(&mut self.writers.pods, &ours);
            }
            Kind::Node => fill::<Node, Nodes>(&mut self.writers.nodes, &objects),
            Kind::Driver => fill::<CSINode, Drivers>(&mut self.writers.drivers, &objects),
            Kind::Event => {}
        }
    }

    fn queue_all(&mut self) {
        let caches = &self.context.caches;
        let containers = caches.containers.state();
        let containers = containers
            .iter()
            .map(|object| Target::Container(object.metadata.name.clone().unwrap()));
        let instances = caches.instances.state();
        let instances = instances
            .iter()
            .map(|object| Target::Instance(object.metadata.name.clone().unwrap()));
        let mut all: Vec<_> = containers.chain(instances).collect();
        // The order of a cache differs from run to run.
        all.sort();
        for target in all {
            self.wake(target);
        }
    }

    fn wake(&mut self, target: Target) {
        if !self.queue.contains(&target) {
            self.queue.push_back(target);
        }
    }

    /// Position in the history of the next event for the cache of a kind.
    pub(crate) fn next_event(&self, store: &Store, kind: Kind) -> Option<usize> {
        let seen = self.seen.get(&kind).copied().unwrap_or_default();
        let rest = store.history().iter().enumerate().skip(seen);
        rest.filter(|(_, change)| change.key.kind == kind)
            .map(|(at, _)| at)
            .next()
    }

    /// Takes note that the watch of a kind is past a position, whether or not its event arrived.
    pub(crate) fn pass_over(&mut self, kind: Kind, at: usize) {
        self.seen.insert(kind, at + 1);
    }

    /// An event of a watch: the cache first, then the queues.
    pub(crate) fn take(&mut self, change: &Change) {
        let object = &change.object;
        match change.key.kind {
            Kind::Container => {
                tell::<_, Whole>(&mut self.writers.containers, object, change.deleted);
                self.wake(Target::Container(change.key.name.clone()));
            }
            Kind::Instance => {
                tell::<_, Whole>(&mut self.writers.instances, object, change.deleted);
                self.wake(Target::Container(change.key.name.clone()));
                self.wake(Target::Instance(change.key.name.clone()));
            }
            Kind::Pod => {
                let deleted = change.deleted || !is_ours(object);
                tell::<HeldPod, Pods>(&mut self.writers.pods, object, deleted);
                if let Some(instance) = instance_of(object) {
                    self.wake(Target::Instance(instance));
                }
            }
            Kind::Node => {
                tell::<Node, Nodes>(&mut self.writers.nodes, object, change.deleted);
                self.wake_on(&change.key.name);
            }
            Kind::Driver => {
                tell::<CSINode, Drivers>(&mut self.writers.drivers, object, change.deleted);
                self.wake_on(&change.key.name);
            }
            Kind::Event => {}
        }
    }

    fn wake_on(&mut self, node: &str) {
        let instances = self.context.caches.instances.state();
        let on = instances.iter().filter(|instance| {
            let at = instance
                .status
                .as_ref()
                .and_then(|status| status.node_name.as_deref());
            at == Some(node)
        });
        let mut names: Vec<_> = on
            .map(|instance| instance.metadata.name.clone().unwrap())
            .collect();
        names.sort();
        for name in names {
            self.wake(Target::Instance(name));
        }
    }

    /// The pass over an object. `None` if the cache does not have it.
    pub(crate) fn pass(&mut self, target: &Target) -> Option<Pass> {
        self.timers.remove(target);
        let (context, caches) = (Arc::clone(&self.context), &self.context.caches);
        match target {
            Target::Container(name) => {
                let object = caches.containers.get(&ObjectRef::new(name).within(NAMESPACE))?;
                Some(Box::pin(container::reconcile(object, context)))
            }
            Target::Instance(name) => {
                let object = caches.instances.get(&ObjectRef::new(name).within(NAMESPACE))?;
                Some(Box::pin(instance::reconcile(object, context)))
            }
        }
    }

    /// Plans the next pass over an object by the outcome of the last one.
    pub(crate) fn passed(&mut self, target: Target, outcome: &Passed) {
        let wait = if let Ok(action) = outcome {
            self.failures.remove(&target);
            requeue_after(action)
        } else {
            let failures = self.failures.entry(target.clone()).or_default();
            let factor = 2_u32.saturating_pow(*failures);
            *failures += 1;
            Some(WAITS.0.saturating_mul(factor).min(WAITS.1))
        };
        if let Some(wait) = wait {
            self.timers.insert(target, Instant::now() + wait);
        }
    }

    /// When the next timer ends.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.values().min().copied()
    }

    /// Queues the objects whose timers have ended.
    pub(crate) fn queue_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(target, _)| target.clone())
            .collect();
        for target in due {
            self.timers.remove(&target);
            self.wake(target);
        }
    }
}

/// kube has no accessor for it.
fn requeue_after(action: &Action) -> Option<Duration> {
    let text = format!("{action:?}");
    let (_, text) = text.split_once("Some(")?;
    let text = text.split(')').next()?;
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => 1e-9,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().unwrap() * seconds))
}

fn held<K: Resource<DynamicType = ()> + DeserializeOwned, S: Selection>(object: &Value) -> K {
    let held: Trimmed<K, S> = serde_json::from_str(&object.to_string()).unwrap();
    held.into_object().unwrap()
}

fn fill<K, S>(cache: &mut Writer<K>, objects: &[Arc<Value>])
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    S: Selection,
{
    cache.apply_watcher_event(&Event::Init);
    for object in objects {
        cache.apply_watcher_event(&Event::InitApply(held::<K, S>(object)));
    }
    cache.apply_watcher_event(&Event::InitDone);
}

fn tell<K, S>(cache: &mut Writer<K>, object: &Value, deleted: bool)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    S: Selection,
{
    let object = held::<K, S>(object);
    cache.apply_watcher_event(&if deleted {
        Event::Delete(object)
    } else {
        Event::Apply(object)
    });
}

fn is_ours(pod: &Value) -> bool {
    pod["metadata"]["labels"][LABEL_MANAGED_BY] == "stoppablecontainer"
}

fn instance_of(pod: &Value) -> Option<String> {
    let mut owners = pod["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    let owner = owners
        .find(|owner| owner["kind"] == "StoppableContainerInstance")
        .map(name_of_owner);
    let label = || {
        pod["metadata"]["labels"][LABEL_INSTANCE]
            .as_str()
            .map(str::to_owned)
    };
    owner.or_else(label)
}

fn name_of_owner(owner: &Value) -> String {
    owner["name"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn waits_are_read_from_actions() {
    for wait in [
        Duration::from_millis(1_500),
        Duration::from_mins(5),
        Duration::from_nanos(4_999_999_999),
    ] {
        let read = requeue_after(&Action::requeue(wait)).unwrap();
        assert!(read.abs_diff(wait) < Duration::from_micros(1), "{read:?}");
    }
    assert_eq!(requeue_after(&Action::await_change()), None);
    assert_eq!(name(&serde_json::json!({ "metadata": { "name": "web" } })), "web");
}
