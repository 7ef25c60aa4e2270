/*!
The instances, nodes and PersistentVolumeClaims that decisions on consumer pods need, kept in memory
by watches: those of the controllers, and one of claims. A decision that needs something that has
not arrived yet waits for the next change, for a bounded time. It does not call the API server while
a review waits.
*/

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use stoppablecontainer_api::{StoppableContainerInstance, controller_of};
use tokio::sync::watch as channel;

use crate::reconcile::context;
use crate::user_namespaces::OwnUsers;
use crate::webhook::claims::{Claims, ClaimsWriter};

/// How long a decision waits for an instance to arrive in the cache: the controller creates the pod
/// as soon as *it* has seen the instance ready, and the watch of this replica may be behind. Well
/// below the webhook's `timeoutSeconds`.
const WAIT: Duration = Duration::from_secs(1);

/// What [`crate::rewrite`] reads, as of now.
#[derive(Clone)]
pub struct Caches {
    instances: Store<StoppableContainerInstance>,
    nodes: Store<Node>,
    claims: Claims,
    changed: channel::Receiver<()>,
}

/// The writing ends of [`Caches`]; each belongs to one watch.
pub struct CacheWriters {
    /// Instances of all namespaces.
    pub instances: Writer<StoppableContainerInstance>,
    /// All nodes.
    pub nodes: Writer<Node>,
    /// Claims of all namespaces.
    pub claims: ClaimsWriter,
    /// Sent after every change of an instance.
    pub changed: channel::Sender<()>,
}

/// What a pod's references name in the cluster.
pub(super) struct Found {
    pub(super) instance: Arc<StoppableContainerInstance>,
    pub(super) node: Option<Arc<Node>>,
    pub(super) scheduler_claims: BTreeSet<String>,
}

/// Why a pod has no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFound {
    #[error(
        "metadata.ownerReferences: a consumer pod is controlled by a StoppableContainerInstance, and created by the controller alone"
    )]
    NoOwner,
    #[error(
        "metadata.ownerReferences: there is no StoppableContainerInstance {0} with this UID in the namespace, or \
         the webhook has not seen its creation yet"
    )]
    NoInstance(String),
    #[error("metadata.name: the consumer pod of StoppableContainerInstance {0} has the instance's name")]
    WrongName(String),
}

// === impl Caches ===

impl Caches {
    /// Empty caches and their writing ends.
    pub fn new() -> (Self, CacheWriters) {
        let (changed, receiver) = channel::channel(());
        let (instances, nodes) = (Writer::default(), Writer::default());
        let (claims, claims_writer) = Claims::new();
        let caches = Self {
            instances: instances.as_reader(),
            nodes: nodes.as_reader(),
            claims,
            changed: receiver,
        };
        let writers = CacheWriters {
            instances,
            nodes,
            claims: claims_writer,
            changed,
        };
        (caches, writers)
    }

    /// The caches of the controllers, and an empty one of claims. `changed` has a message for every
    /// change of an instance.
    pub fn sharing(caches: &context::Caches, changed: channel::Receiver<()>) -> (Self, ClaimsWriter) {
        let (claims, claims_writer) = Claims::new();
        let caches = Self {
            instances: caches.instances.clone(),
            nodes: caches.nodes.clone(),
            claims,
            changed,
        };
        (caches, claims_writer)
    }

    /// Returns once every cache has been filled for the first time, or `false` if that will not
    /// happen any more.
    pub async fn synced(&self) -> bool {
        let all = futures::join!(
            self.instances.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.claims.filled()
        );
        matches!(all, (Ok(()), Ok(()), true))
    }

    /// Makes a decision that may need facts which are still on their way: `decide` runs at once,
    /// and again after every change of an instance, until it has an answer that `is_final` or
    /// [`WAIT`] is over. The last answer counts.
    pub(super) async fn decide<T>(&self, mut decide: impl FnMut() -> T, is_final: impl Fn(&T) -> bool) -> T {
        let mut changed = self.changed.clone();
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            changed.mark_unchanged();
            let answer = decide();
            if is_final(&answer) {
                return answer;
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return answer,
            }
        }
    }

    /// What the pod refers to. The owner reference decides, and it is the controller who writes it;
    /// labels do not count (invariant I8).
    pub(super) fn find(&self, pod: &Pod, namespace: &str) -> Result<Found, NotFound> {
        let owner = controller_of::<StoppableContainerInstance>(pod).ok_or(NotFound::NoOwner)?;
        let reference = ObjectRef::new(&owner.name).within(namespace);
        let instance = self
            .instances
            .get(&reference)
            .filter(|i| i.uid().as_ref() == Some(&owner.uid));
        let instance = instance.ok_or_else(|| NotFound::NoInstance(owner.name.clone()))?;
        if pod.name_any() != owner.name {
            return Err(NotFound::WrongName(owner.name.clone()));
        }
        let node = instance.status.as_ref().and_then(|s| s.node_name.as_deref());
        let node = node.and_then(|name| self.nodes.get(&ObjectRef::new(name)));
        Ok(Found {
            scheduler_claims: self.scheduler_claims(pod, namespace),
            instance,
            node,
        })
    }

    /// Why no node can run the pod of an object with users of its own, as far as is known: the node
    /// that has its files cannot, or none can.
    pub(super) fn users_obstacle(&self, namespace: &str, name: &str, users: OwnUsers) -> Option<String> {
        let instance = self.instances.get(&ObjectRef::new(name).within(namespace));
        let status = instance.as_ref().and_then(|instance| instance.status.as_ref());
        // Without files it may still get another node.
        let home = status
            .filter(|status| !status.never_started)
            .and_then(|status| status.node_name.as_deref());
        if let Some(home) = home {
            return users.obstacle(self.nodes.get(&ObjectRef::new(home)).as_deref()?);
        }
        let nodes = self.nodes.state();
        let mut obstacles = nodes.iter().map(|node| users.obstacle(node));
        let first = obstacles.next()??;
        obstacles
            .all(|obstacle| obstacle.is_some())
            .then(|| match nodes.len() {
                1 => first,
                _ => format!("no node of this cluster can run such a pod: {first}"),
            })
    }

    fn scheduler_claims(&self, pod: &Pod, namespace: &str) -> BTreeSet<String> {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let names = volumes
            .filter_map(|v| v.persistent_volume_claim.as_ref())
            .map(|c| &c.claim_name);
        let needs = |name: &&String| self.claims.needs_scheduler(namespace, name);
        names.filter(needs).cloned().collect()
    }
}
