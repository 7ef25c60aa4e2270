/*!
The objects that the controller knows without a call, because watches keep them up to date.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use stoppablecontainer_api::names::CSI_DRIVER;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::reconcile::context::{HeldPod, is_cordoned, not_ready_message, unreachable_message};
use crate::user_namespaces::OwnUsers;

/// Read halves of the caches.
#[derive(Clone)]
pub struct Caches {
    /// All StoppableContainers.
    pub containers: Store<StoppableContainer>,
    /// All StoppableContainerInstances.
    pub instances: Store<StoppableContainerInstance>,
    /// All pods with our label.
    pub pods: Store<HeldPod>,
    /// All nodes: only their names, Ready conditions, taints and runtimes.
    pub nodes: Store<Node>,
    /// What CSI drivers the kubelets have, by node.
    pub drivers: Store<CSINode>,
}

/// Write halves of the caches.
pub struct CacheWriters {
    /// See [`Caches::containers`].
    pub containers: Writer<StoppableContainer>,
    /// See [`Caches::instances`].
    pub instances: Writer<StoppableContainerInstance>,
    /// See [`Caches::pods`].
    pub pods: Writer<HeldPod>,
    /// See [`Caches::nodes`].
    pub nodes: Writer<Node>,
    /// See [`Caches::drivers`].
    pub drivers: Writer<CSINode>,
}

/// Empty caches.
pub fn caches() -> (Caches, CacheWriters) {
    let (containers, write_containers) = reflector::store();
    let (instances, write_instances) = reflector::store();
    let (pods, write_pods) = reflector::store();
    let (nodes, write_nodes) = reflector::store();
    let (drivers, write_drivers) = reflector::store();
    (
        Caches {
            containers,
            instances,
            pods,
            nodes,
            drivers,
        },
        CacheWriters {
            containers: write_containers,
            instances: write_instances,
            pods: write_pods,
            nodes: write_nodes,
            drivers: write_drivers,
        },
    )
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
        self.nodes.wait_until_ready().await?;
        self.drivers.wait_until_ready().await
    }

    /// The pod, if it has our label.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let held = self.pods.get(&ObjectRef::new(name).within(namespace))?;
        held.decode().map(Arc::new)
    }

    /// Whether the kubelet of this node has our CSI driver, that is, the node agent.
    pub fn agent_registered(&self, node: &str) -> bool {
        self.drivers
            .get(&ObjectRef::new(node))
            .is_some_and(|node| has_our_driver(&node))
    }

    /// Whether a Node object of this name exists.
    pub fn node_exists(&self, name: &str) -> bool {
        self.nodes.get(&ObjectRef::new(name)).is_some()
    }

    /// Whether the node is cordoned: no new pods are scheduled there.
    pub fn node_cordoned(&self, name: &str) -> bool {
        let node = self.nodes.get(&ObjectRef::new(name));
        node.is_some_and(|node| is_cordoned(&node))
    }

    /// Whether any node is as `wanted`.
    pub(crate) fn any_node(&self, wanted: impl Fn(&Node) -> bool) -> bool {
        self.nodes.state().iter().any(|node| wanted(node))
    }

    /// Why a node cannot run a pod with users of its own.
    pub(crate) fn users_obstacle(&self, name: &str, users: OwnUsers) -> Option<String> {
        users.obstacle(self.nodes.get(&ObjectRef::new(name)).as_deref()?)
    }

    /// The message of the Ready condition of a node that is not ready.
    pub fn node_not_ready(&self, name: &str) -> Option<String> {
        not_ready_message(self.nodes.get(&ObjectRef::new(name)).as_deref()?)
    }

    /// The message of the Ready condition of an unreachable node.
    pub fn node_unreachable(&self, name: &str) -> Option<String> {
        unreachable_message(self.nodes.get(&ObjectRef::new(name)).as_deref()?)
    }
}

/// Whether the kubelet has our CSI driver.
pub(crate) fn has_our_driver(node: &CSINode) -> bool {
    node.spec.drivers.iter().any(|driver| driver.name == CSI_DRIVER)
}
