/*!
What the controller sees: caches that watches keep, and the few reads that a
cache cannot answer.

One stream per kind feeds its cache first and then the queues, so that whoever is
woken sees at least what woke him. A cache lags behind the API server, though:
before a recorded pod counts as gone, the API server itself is asked.
*/

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::{LABEL_INSTANCE, LABEL_MANAGED_BY, MANAGED_BY};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use super::Context;
use super::attempts::{Hold, Task};
use super::plan::{Observed, Slot};
use super::pods::Role;

/// Read halves of the caches.
#[derive(Clone)]
pub struct Caches {
    /// All StoppableContainers.
    pub containers: Store<StoppableContainer>,
    /// All StoppableContainerInstances.
    pub instances: Store<StoppableContainerInstance>,
    /// All pods with our label.
    pub pods: Store<Pod>,
    /// All nodes; only that they exist.
    pub nodes: Store<PartialObjectMeta<Node>>,
}

/// Write halves of the caches.
pub struct CacheWriters {
    /// See [`Caches::containers`].
    pub containers: Writer<StoppableContainer>,
    /// See [`Caches::instances`].
    pub instances: Writer<StoppableContainerInstance>,
    /// See [`Caches::pods`].
    pub pods: Writer<Pod>,
    /// See [`Caches::nodes`].
    pub nodes: Writer<PartialObjectMeta<Node>>,
}

/// Objects that need a pass.
pub struct Queues {
    /// StoppableContainers.
    pub containers: UnboundedReceiver<ObjectRef<StoppableContainer>>,
    /// Instances.
    pub instances: UnboundedReceiver<ObjectRef<StoppableContainerInstance>>,
}

#[derive(Clone)]
struct Wake {
    containers: UnboundedSender<ObjectRef<StoppableContainer>>,
    instances: UnboundedSender<ObjectRef<StoppableContainerInstance>>,
}

/// Empty caches.
pub fn caches() -> (Caches, CacheWriters) {
    let (containers, write_containers) = reflector::store();
    let (instances, write_instances) = reflector::store();
    let (pods, write_pods) = reflector::store();
    let (nodes, write_nodes) = reflector::store();
    (
        Caches {
            containers,
            instances,
            pods,
            nodes,
        },
        CacheWriters {
            containers: write_containers,
            instances: write_instances,
            pods: write_pods,
            nodes: write_nodes,
        },
    )
}

/// Starts nothing: returns the queues, and the future that watches, fills the caches and the queues and never ends.
pub fn watch(
    client: &Client,
    caches: &Caches,
    writers: CacheWriters,
) -> (Queues, impl Future<Output = ()> + Send + use<>) {
    let (containers, containers_rx) = unbounded();
    let (instances, instances_rx) = unbounded();
    let wake = Wake {
        containers,
        instances,
    };
    let client = client.clone();
    let caches = caches.clone();
    let watching = async move {
        let ours = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
        let all = watcher::Config::default();
        tokio::join!(
            follow(
                guarded(
                    Api::<DeserializeGuard<StoppableContainer>>::all(client.clone()),
                    all.clone()
                ),
                writers.containers,
                |event| wake.on_container(event),
            ),
            follow(
                guarded(
                    Api::<DeserializeGuard<StoppableContainerInstance>>::all(client.clone()),
                    all.clone()
                ),
                writers.instances,
                |event| wake.on_instance(event, &caches),
            ),
            follow(
                watcher::watcher(Api::<Pod>::all(client.clone()), ours)
                    .default_backoff()
                    .map(|event| {
                        event.map(|event| event.modify(|pod| pod.metadata.managed_fields = None))
                    }),
                writers.pods,
                |event| wake.on_pod(event, &caches),
            ),
            follow(
                watcher::watcher(Api::<PartialObjectMeta<Node>>::all(client), all).default_backoff(),
                writers.nodes,
                |event| wake.on_node(event, &caches),
            ),
        );
    };
    (
        Queues {
            containers: containers_rx,
            instances: instances_rx,
        },
        watching,
    )
}

/// A watch that one object with an impossible spec cannot stop: such an object is reported and passed over. The
/// schema and the webhook keep them out; this is for objects from before either.
fn guarded<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher::watcher(api, config)
        .default_backoff()
        .filter_map(|event| async {
            Some(match event {
                Err(error) => Err(error),
                Ok(Event::Init) => Ok(Event::Init),
                Ok(Event::InitDone) => Ok(Event::InitDone),
                Ok(Event::InitApply(object)) => Ok(Event::InitApply(readable(object)?)),
                Ok(Event::Apply(object)) => Ok(Event::Apply(readable(object)?)),
                Ok(Event::Delete(object)) => Ok(Event::Delete(readable(object)?)),
            })
        })
}

fn readable<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            tracing::error!(
                kind = %K::kind(&()),
                namespace = invalid.metadata.namespace.as_deref().unwrap_or_default(),
                name = invalid.metadata.name.as_deref().unwrap_or_default(),
                error = invalid.error,
                "object cannot be read and is passed over; correct it"
            );
            None
        }
    }
}

/// Feeds a cache, then tells what happened. `notify` is asked before the event is applied what it wants to be told
/// after.
async fn follow<K, N>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    mut cache: Writer<K>,
    mut notify: impl FnMut(&Event<K>) -> N + Send,
) where
    K: reflector::Lookup<DynamicType = ()> + Clone + 'static,
    N: FnOnce(),
{
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let told = notify(&event);
                cache.apply_watcher_event(&event);
                told();
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it starts again by itself");
            }
        }
    }
}

// === impl Caches ===

impl Caches {
    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When the watches were dropped before that.
    pub async fn filled(&self) -> Result<(), reflector::store::WriterDropped> {
        self.containers.wait_until_ready().await?;
        self.instances.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.nodes.wait_until_ready().await
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// Whether a Node object of this name exists.
    pub fn node_exists(&self, name: &str) -> bool {
        self.nodes.get(&ObjectRef::new(name)).is_some()
    }
}

// === impl Wake ===

impl Wake {
    fn on_container(&self, event: &Event<StoppableContainer>) -> impl FnOnce() + use<> {
        let (wake, object) = (self.clone(), touched(event).map(ObjectRef::from_obj));
        move || object.into_iter().for_each(|object| wake.container(object))
    }

    /// An instance has the name of its StoppableContainer. A fresh list may lack objects whose deletion was missed, so
    /// after one everything is looked at.
    fn on_instance(
        &self,
        event: &Event<StoppableContainerInstance>,
        caches: &Caches,
    ) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = touched(event).map(ObjectRef::from_obj);
        let listed = matches!(event, Event::InitDone);
        move || {
            if let Some(object) = object {
                let namespace = object.namespace.clone().unwrap_or_default();
                wake.container(ObjectRef::new(&object.name).within(&namespace));
                wake.instance(object);
            }
            if listed {
                caches
                    .containers
                    .state()
                    .iter()
                    .for_each(|object| wake.container(ObjectRef::from_obj(&**object)));
            }
        }
    }

    fn on_pod(&self, event: &Event<Pod>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = touched(event).and_then(instance_of);
        let listed = matches!(event, Event::InitDone);
        move || {
            if let Some(object) = object {
                wake.instance(object);
            }
            if listed {
                wake.instances_where(&caches, |_| true);
            }
        }
    }

    /// Only that nodes come and go is of interest.
    fn on_node(&self, event: &Event<PartialObjectMeta<Node>>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let came_or_went = match event {
            Event::Delete(node) => Some(node.name_any()),
            Event::Apply(node) => Some(node.name_any()).filter(|name| !caches.node_exists(name)),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let listed = matches!(event, Event::InitDone);
        move || {
            if came_or_went.is_some() || listed {
                wake.instances_where(&caches, |at| listed || Some(at) == came_or_went.as_deref());
            }
        }
    }

    fn instances_where(&self, caches: &Caches, on: impl Fn(&str) -> bool) {
        for instance in caches.instances.state() {
            let at = instance
                .status
                .as_ref()
                .and_then(|s| s.node_name.as_deref())
                .unwrap_or_default();
            if on(at) {
                self.instance(ObjectRef::from_obj(&*instance));
            }
        }
    }

    // The receivers live as long as the controllers; when they are gone nobody needs a pass.
    fn container(&self, object: ObjectRef<StoppableContainer>) {
        let _ = self.containers.unbounded_send(object);
    }

    fn instance(&self, object: ObjectRef<StoppableContainerInstance>) {
        let _ = self.instances.unbounded_send(object);
    }
}

fn touched<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) => Some(object),
        Event::Init | Event::InitDone => None,
    }
}

/// The instance that a pod is of, to wake it: by owner, else by label, which may be wrong and then wakes in vain.
fn instance_of(pod: &Pod) -> Option<ObjectRef<StoppableContainerInstance>> {
    let kind = StoppableContainerInstance::kind(&());
    let owner = pod
        .owner_references()
        .iter()
        .find(|o| o.kind == kind)
        .map(|o| o.name.as_str());
    let name = owner.or_else(|| pod.labels().get(LABEL_INSTANCE).map(String::as_str))?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

// === A pass over an instance ===

/// Looks at everything that the plan of `instance` depends on.
///
/// # Errors
/// When the API server cannot be asked what the caches do not tell.
pub async fn observe(
    context: &Context,
    instance: Arc<StoppableContainerInstance>,
) -> Result<Observed, kube::Error> {
    let status = instance.status.clone().unwrap_or_default();
    let uid = instance.uid().unwrap_or_default();
    let hold = |role| {
        context
            .attempts
            .hold(&uid, Task::Pod(role), instance.metadata.generation)
    };
    let (provider_hold, consumer_hold) = (hold(Role::Provider), hold(Role::Consumer));
    let provider = slot(
        context,
        &instance,
        Role::Provider,
        status.provider_pod_uid.is_some(),
        provider_hold.as_ref(),
    )
    .await?;
    let consumer = slot(
        context,
        &instance,
        Role::Consumer,
        status.consumer_pod_uid.is_some(),
        consumer_hold.as_ref(),
    )
    .await?;
    let unbound = matches!(provider, Slot::Free) && status.node_name.is_none();
    Ok(Observed {
        provider,
        consumer,
        node_gone: status
            .node_name
            .is_some_and(|name| !context.caches.node_exists(&name)),
        exclusive_claims: if unbound {
            exclusive_claims(context, &instance).await?
        } else {
            BTreeSet::new()
        },
        provider_hold,
        consumer_hold,
        instance,
    })
}

async fn slot(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    recorded: bool,
    hold: Option<&Hold>,
) -> Result<Slot, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let name = role.pod_name(&instance.name_any());
    if let Some(pod) = context.caches.pod(&namespace, &name) {
        return Ok(Slot::of(pod, instance));
    }
    // A pod without our label is outside of the cache. Its owner is asked about again when the wait is over.
    if let Some(hold) =
        hold.filter(|h| h.trouble.reason == reason::NAME_CONFLICT && h.remaining > Duration::ZERO)
    {
        return Ok(Slot::Taken(hold.trouble.message.clone()));
    }
    if recorded {
        let found = Api::<Pod>::namespaced(context.client.clone(), &namespace)
            .get_opt(&name)
            .await?;
        return Ok(found.map_or(Slot::Free, |pod| Slot::of(Arc::new(pod), instance)));
    }
    Ok(Slot::Free)
}

/// The template's claims that only one pod may use: listing them in the provider would keep the consumer from them.
async fn exclusive_claims(
    context: &Context,
    instance: &StoppableContainerInstance,
) -> Result<BTreeSet<String>, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &namespace);
    let volumes = instance
        .spec
        .template
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut exclusive = BTreeSet::new();
    for claim in volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        let modes = api
            .get_opt(&claim.claim_name)
            .await?
            .and_then(|found| found.spec?.access_modes);
        if modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")) {
            exclusive.insert(claim.claim_name.clone());
        }
    }
    Ok(exclusive)
}
