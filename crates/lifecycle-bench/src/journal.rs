//! What happens in a namespace, with the times at which watches show it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, PROVIDER_READY, READY, reason};
use stoppablecontainer_api::names::{
    LABEL_INSTANCE, LABEL_ROLE, ROLE_CONSUMER, ROLE_PLACEHOLDER, ROLE_PROVIDER,
};
use stoppablecontainer_api::{Phase, StoppableContainer, StoppableContainerInstance};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What an object is in the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A pod that does not belong to the product.
    PlainPod,
    Placeholder,
    Provider,
    Consumer,
    /// The StoppableContainerInstance.
    Instance,
    /// The StoppableContainer.
    Object,
}

/// What can be seen of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    Created,
    Scheduled,
    Running,
    /// A pod: its condition `Ready`. A StoppableContainer: it runs as its present spec asks for.
    Ready,
    /// The condition `FilesystemReady` of an instance.
    FilesystemReady,
    /// A StoppableContainer: all its pods are as its present spec asks for.
    Settled,
    /// A StoppableContainer is stopped as its present spec asks for.
    Stopped,
    /// The spec of an instance asks again that the consumer runs.
    RunRequested,
    /// The spec of an instance asks that the consumer does not run.
    StopRequested,
    /// A pod has a time of deletion.
    Deleting,
    /// All containers of a pod ended.
    Ended,
    Gone,
}

/// An object: the name of its StoppableContainer or plain pod, and its role.
type Key = (String, Role);

/// When the journal saw an object in a state.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    state: State,
    at: Instant,
}

#[derive(Debug, Default)]
struct Pages {
    entries: Vec<Entry>,
    /// The UID and the present states of each object.
    present: HashMap<Key, (String, BTreeSet<State>)>,
    /// How often each object was seen to change.
    changes: HashMap<Key, u32>,
}

/// The journal of a namespace. Copies share it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    pages: Arc<Mutex<Pages>>,
    changed: watch::Receiver<()>,
    limit: Duration,
}

// === impl Journal ===

impl Journal {
    /// Watches the namespace until the process ends. Waits take at most `limit`.
    pub(crate) fn of(client: &Client, namespace: &str, limit: Duration) -> Self {
        let (change, changed) = watch::channel(());
        let pages = Arc::<Mutex<Pages>>::default();
        let change = Arc::new(change);
        follow(client, namespace, &pages, &change, see_pod);
        follow(client, namespace, &pages, &change, see_instance);
        follow(client, namespace, &pages, &change, see_object);
        Self {
            pages,
            changed,
            limit,
        }
    }

    /// Waits until the object was seen in this state at or after `since`.
    ///
    /// # Errors
    /// After the limit.
    pub(crate) async fn reached(
        &self,
        name: &str,
        role: Role,
        state: State,
        since: Instant,
    ) -> Result<Instant> {
        let deadline = Instant::now() + self.limit;
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            if let Some(at) = self.first(name, role, state, since) {
                return Ok(at);
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                bail!(
                    "{role:?} of {name} is not {state:?} after {} s",
                    self.limit.as_secs()
                );
            }
        }
    }

    fn first(&self, name: &str, role: Role, state: State, since: Instant) -> Option<Instant> {
        let pages = lock(&self.pages);
        let mut found = pages.entries.iter().filter(|entry| {
            entry.at >= since && entry.state == state && entry.key.1 == role && entry.key.0 == name
        });
        found.next().map(|entry| entry.at)
    }

    /// What was seen of all objects of this name since then, in seconds.
    pub(crate) fn steps(&self, name: &str, since: Instant) -> BTreeMap<(Role, State), f64> {
        let mut steps = BTreeMap::new();
        for entry in &lock(&self.pages).entries {
            if entry.key.0 == name && entry.at >= since {
                let seconds = entry.at.duration_since(since).as_secs_f64();
                steps.entry((entry.key.1, entry.state)).or_insert(seconds);
            }
        }
        steps
    }

    /// How often the objects of this name in this role were seen to change.
    pub(crate) fn changes(&self, name: &str, role: Role) -> u32 {
        let key = (name.to_owned(), role);
        lock(&self.pages).changes.get(&key).copied().unwrap_or_default()
    }

    /// Forgets all objects of this name.
    pub(crate) fn forget(&self, name: &str) {
        let mut pages = lock(&self.pages);
        pages.entries.retain(|entry| entry.key.0 != name);
        pages.present.retain(|key, _| key.0 != name);
        pages.changes.retain(|key, _| key.0 != name);
    }
}

// === impl Pages ===

impl Pages {
    fn see(&mut self, key: &Key, uid: String, states: BTreeSet<State>, at: Instant) {
        *self.changes.entry(key.clone()).or_default() += 1;
        let (known, before) = self.present.entry(key.clone()).or_default();
        if *known != uid {
            before.clear();
            *known = uid;
        }
        for state in states.difference(before) {
            self.entries.push(Entry {
                key: key.clone(),
                state: *state,
                at,
            });
        }
        *before = states;
    }

    fn see_end(&mut self, key: Key, at: Instant) {
        self.present.remove(&key);
        self.entries.push(Entry {
            key,
            state: State::Gone,
            at,
        });
    }
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches one kind. `see` returns the key of an object and its states.
fn follow<K>(
    client: &Client,
    namespace: &str,
    pages: &Arc<Mutex<Pages>>,
    change: &Arc<watch::Sender<()>>,
    see: fn(&K) -> (Key, BTreeSet<State>),
) where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let (pages, change) = (Arc::clone(pages), Arc::clone(change));
    tokio::spawn(async move {
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let at = Instant::now();
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    let (key, states) = see(&object);
                    lock(&pages).see(&key, object.uid().unwrap_or_default(), states, at);
                }
                Ok(Event::Delete(object)) => lock(&pages).see_end(see(&object).0, at),
                Ok(Event::Init | Event::InitDone) | Err(_) => continue,
            }
            change.send_replace(());
        }
    });
}

fn see_pod(pod: &Pod) -> (Key, BTreeSet<State>) {
    let label = |name| pod.labels().get(name).map(String::as_str);
    let role = match label(LABEL_ROLE) {
        Some(ROLE_PLACEHOLDER) => Role::Placeholder,
        Some(ROLE_PROVIDER) => Role::Provider,
        Some(ROLE_CONSUMER) => Role::Consumer,
        _ => Role::PlainPod,
    };
    let name = label(LABEL_INSTANCE).map_or_else(|| pod.name_any(), str::to_owned);
    let mut states = BTreeSet::from([State::Created]);
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        states.insert(State::Scheduled);
    }
    let status = pod.status.as_ref();
    if status.and_then(|status| status.phase.as_deref()) == Some("Running") {
        states.insert(State::Running);
    }
    let mut conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        states.insert(State::Ready);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        states.insert(State::Deleting);
    }
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let has_ended = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some())
    };
    if containers.is_some_and(|containers| !containers.is_empty() && containers.iter().all(has_ended)) {
        states.insert(State::Ended);
    }
    ((name, role), states)
}

fn see_instance(instance: &StoppableContainerInstance) -> (Key, BTreeSet<State>) {
    let mut states = BTreeSet::from([State::Created]);
    let mut conditions = instance.status.iter().flat_map(|status| &status.conditions);
    if conditions.any(|condition| condition.type_ == FILESYSTEM_READY && condition.status == "True") {
        states.insert(State::FilesystemReady);
    }
    if !instance.spec.running {
        states.insert(State::StopRequested);
    } else if instance.metadata.generation > Some(1) {
        states.insert(State::RunRequested);
    }
    ((instance.name_any(), Role::Instance), states)
}

fn see_object(object: &StoppableContainer) -> (Key, BTreeSet<State>) {
    let mut states = BTreeSet::from([State::Created]);
    if let Some(status) = &object.status
        && status.observed_generation == object.metadata.generation
        && let Some(ready) = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY)
        && ready.status == "True"
    {
        if ready.reason == reason::STOPPED {
            states.insert(State::Stopped);
        } else if status.phase == Some(Phase::Running) {
            states.insert(State::Ready);
            let mut conditions = status.conditions.iter();
            if conditions.any(|condition| condition.type_ == PROVIDER_READY && condition.status == "True") {
                states.insert(State::Settled);
            }
        }
    }
    ((object.name_any(), Role::Object), states)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_state_is_recorded_when_it_begins() {
        let mut pages = Pages::default();
        let key = || ("a".to_owned(), Role::Object);
        let at = Instant::now();
        let mut see = |uid: &str, states: &[State]| {
            pages.see(&key(), uid.to_owned(), states.iter().copied().collect(), at);
        };
        see("1", &[State::Created]);
        see("1", &[State::Created, State::Ready]);
        see("1", &[State::Created, State::Ready]);
        see("1", &[State::Created]);
        see("1", &[State::Created, State::Ready]);
        see("2", &[State::Created]);
        let states: Vec<_> = pages.entries.iter().map(|entry| entry.state).collect();
        assert_eq!(
            states,
            [State::Created, State::Ready, State::Ready, State::Created]
        );
        assert_eq!(pages.changes[&key()], 6);
    }

    #[test]
    fn a_pod_ends_when_all_its_containers_have() {
        let container = |state: &Value| {
            json!({
                "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            })
        };
        let end = json!({ "terminated": { "exitCode": 0 } });
        let states = |second: &Value| {
            let pod = json!({
                "metadata": { "name": "a", "deletionTimestamp": "2026-01-31T00:00:00Z" },
                "status": { "containerStatuses": [container(&end), container(second)] },
            });
            see_pod(&serde_json::from_value(pod).unwrap()).1
        };
        let running = states(&json!({ "running": {} }));
        assert_eq!(running, BTreeSet::from([State::Created, State::Deleting]));
        let ended = states(&end);
        assert!(ended.contains(&State::Ended));
    }
}
