/*!
Which event queues which object.

One stream for each kind updates its cache first and then the queues, so that a reconciliation sees
at least the event that started it. Every replica has these streams, for its webhook and to lead
without a list.
*/

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apiserver::{mirror, watch};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt};
use stoppablecontainer_api::names::{LABEL_INSTANCE, LABEL_MANAGED_BY, MANAGED_BY};
use stoppablecontainer_api::trimmed::Whole;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use tokio::sync::watch as channel;

use crate::reconcile::context::{
    CacheWriters, Caches, HeldPod, has_our_driver, is_cordoned, keep_ready_condition, not_ready_message,
    unreachable_message,
};
use crate::selections;
use crate::user_namespaces::OwnUsers;

/// Objects to reconcile.
pub(super) struct Queues {
    /// StoppableContainers.
    pub containers: UnboundedReceiver<ObjectRef<StoppableContainer>>,
    /// Instances.
    pub instances: UnboundedReceiver<ObjectRef<StoppableContainerInstance>>,
}

/// Queues objects for the reconcilers. While this replica does not lead, events change only the
/// caches.
#[derive(Clone, Default)]
pub(super) struct Wake(Arc<Mutex<Option<Senders>>>);

struct Senders {
    containers: UnboundedSender<ObjectRef<StoppableContainer>>,
    instances: UnboundedSender<ObjectRef<StoppableContainerInstance>>,
}

/// Watches, fills the caches and wakes the reconcilers; never ends. `changed` has a message for
/// every change of an instance, after the cache has it.
pub(super) async fn watch_all(
    client: Client,
    caches: Caches,
    writers: CacheWriters,
    wake: Wake,
    changed: channel::Sender<()>,
) {
    let ours = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    let all = watcher::Config::default();
    tokio::join!(
        mirror(
            watch::<StoppableContainer, Whole>(&client, all.clone()),
            writers.containers,
            |event| wake.on_container(event, &caches),
        ),
        mirror(
            watch::<StoppableContainerInstance, Whole>(&client, all.clone()),
            writers.instances,
            |event| {
                let woken = wake.on_instance(event, &caches);
                || {
                    woken();
                    changed.send_replace(());
                }
            },
        ),
        mirror(
            watch::<Pod, selections::Pods>(&client, ours).map(|event| event.map(held)),
            writers.pods,
            |event| wake.on_pod(event, &caches),
        ),
        mirror(
            watch::<Node, selections::Nodes>(&client, all.clone())
                .map(|event| event.map(|event| event.modify(keep_ready_condition))),
            writers.nodes,
            |event| wake.on_node(event, &caches),
        ),
        mirror(
            watch::<CSINode, selections::Drivers>(&client, all),
            writers.drivers,
            |event| wake.on_drivers(event, &caches),
        ),
    );
}

/// An event with the pod as the cache holds it.
fn held(event: Event<Pod>) -> Event<HeldPod> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(pod) => Event::InitApply(pod.into()),
        Event::InitDone => Event::InitDone,
        Event::Apply(pod) => Event::Apply(pod.into()),
        Event::Delete(pod) => Event::Delete(pod.into()),
    }
}

/// Stands for every pod with users of its own.
const ANY_USERS: OwnUsers = OwnUsers {
    has_runtime_class: false,
};

// === impl Wake ===

impl Wake {
    /// New queues, with everything that the caches have, and from now on with what changes. They
    /// take the place of earlier ones.
    pub(super) fn lead(&self, caches: &Caches) -> Queues {
        let (containers, containers_rx) = unbounded();
        let (instances, instances_rx) = unbounded();
        *self.lock() = Some(Senders {
            containers,
            instances,
        });
        // After that: an event between the two queues its object twice, not never.
        self.all_containers(caches);
        self.instances_where(caches, |_| true);
        Queues {
            containers: containers_rx,
            instances: instances_rx,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Senders>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// What a list holds gets into the cache when the list is complete, and what is missing from it goes
// then. So single objects of a list queue nothing, and the end of the list queues all objects.
impl Wake {
    fn on_container(&self, event: &Event<StoppableContainer>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = changed(event).map(ObjectRef::from_obj);
        let listed = matches!(event, Event::InitDone);
        move || {
            if let Some(object) = object {
                wake.container(object);
            }
            if listed {
                wake.all_containers(&caches);
            }
        }
    }

    /// An instance has the name of its StoppableContainer.
    fn on_instance(
        &self,
        event: &Event<StoppableContainerInstance>,
        caches: &Caches,
    ) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = changed(event).map(ObjectRef::from_obj);
        let listed = matches!(event, Event::InitDone);
        move || {
            if let Some(object) = object {
                let namespace = object.namespace.clone().unwrap_or_default();
                wake.container(ObjectRef::new(&object.name).within(&namespace));
                wake.instance(object);
            }
            if listed {
                wake.all_containers(&caches);
                wake.instances_where(&caches, |_| true);
            }
        }
    }

    fn on_pod(&self, event: &Event<HeldPod>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = changed(event).and_then(|pod| instance_of(&pod.decode()?));
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

    /// Only that nodes come and go, are cordoned, fall silent, are not ready, or have another
    /// runtime is of interest. Of
    /// what makes one not ready the words may change with every report ("last seen active 3m5s
    /// ago"); such a change does not start a reconciliation.
    fn on_node(&self, event: &Event<Node>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let came_or_went = match event {
            Event::Delete(node) => Some(node.name_any()),
            Event::Apply(node) => Some(node.name_any()).filter(|name| {
                !caches.node_exists(name)
                    || caches.node_cordoned(name) != is_cordoned(node)
                    || caches.node_unreachable(name) != unreachable_message(node)
                    || caches.node_not_ready(name).is_some() != not_ready_message(node).is_some()
                    || caches.users_obstacle(name, ANY_USERS) != ANY_USERS.obstacle(node)
            }),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let listed = matches!(event, Event::InitDone);
        move || {
            if came_or_went.is_some() || listed {
                wake.instances_where(&caches, |at| listed || Some(at) == came_or_went.as_deref());
            }
        }
    }

    /// Only that the agent comes and goes is of interest.
    fn on_drivers(&self, event: &Event<CSINode>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let came_or_went = match event {
            Event::Delete(node) => Some(node.name_any()).filter(|name| caches.agent_registered(name)),
            Event::Apply(node) => {
                Some(node.name_any()).filter(|name| caches.agent_registered(name) != has_our_driver(node))
            }
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let listed = matches!(event, Event::InitDone);
        move || {
            if came_or_went.is_some() || listed {
                wake.instances_where(&caches, |at| listed || Some(at) == came_or_went.as_deref());
            }
        }
    }

    fn all_containers(&self, caches: &Caches) {
        for container in caches.containers.state() {
            self.container(ObjectRef::from_obj(&*container));
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

    // The receivers live as long as the controllers; when they are gone, no object needs a
    // reconciliation.
    fn container(&self, object: ObjectRef<StoppableContainer>) {
        if let Some(senders) = &*self.lock() {
            let _ = senders.containers.unbounded_send(object);
        }
    }

    fn instance(&self, object: ObjectRef<StoppableContainerInstance>) {
        if let Some(senders) = &*self.lock() {
            let _ = senders.instances.unbounded_send(object);
        }
    }
}

fn changed<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(object),
        Event::Init | Event::InitApply(_) | Event::InitDone => None,
    }
}

/// The instance that a pod is of, to wake it: by owner, else by label, which may be wrong and then
/// queues an object without need.
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

#[cfg(test)]
mod tests;
