/*!
Which event queues which object.

One stream for each kind updates its cache first and then the queues, so that a reconciliation sees
at least the event that started it.
*/

use std::future::Future;

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

use crate::reconcile::context::{
    CacheWriters, Caches, has_our_driver, is_cordoned, keep_ready_condition, not_ready_message,
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

#[derive(Clone)]
struct Wake {
    containers: UnboundedSender<ObjectRef<StoppableContainer>>,
    instances: UnboundedSender<ObjectRef<StoppableContainerInstance>>,
}

/// Starts nothing: returns the queues, and the future that watches, fills the caches and the queues
/// and never ends.
pub(super) fn start(
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
            mirror(
                watch::<StoppableContainer, Whole>(&client, all.clone()),
                writers.containers,
                |event| wake.on_container(event, &caches),
            ),
            mirror(
                watch::<StoppableContainerInstance, Whole>(&client, all.clone()),
                writers.instances,
                |event| wake.on_instance(event, &caches),
            ),
            mirror(
                watch::<Pod, selections::Pods>(&client, ours),
                writers.pods,
                |event| wake.on_pod(event, &caches),
            ),
            mirror(
                watch::<Node, selections::NodeHealth>(&client, all.clone())
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
    };
    (
        Queues {
            containers: containers_rx,
            instances: instances_rx,
        },
        watching,
    )
}

/// Stands for every pod with users of its own.
const ANY_USERS: OwnUsers = OwnUsers {
    has_runtime_class: false,
};

// === impl Wake ===

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

    fn on_pod(&self, event: &Event<Pod>, caches: &Caches) -> impl FnOnce() + use<> {
        let (wake, caches) = (self.clone(), caches.clone());
        let object = changed(event).and_then(instance_of);
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
        let _ = self.containers.unbounded_send(object);
    }

    fn instance(&self, object: ObjectRef<StoppableContainerInstance>) {
        let _ = self.instances.unbounded_send(object);
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
