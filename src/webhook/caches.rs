/*!
The instances, nodes and PersistentVolumeClaims that decisions on consumer pods need, kept in memory
by watches. A decision that needs something that has not arrived yet waits for the next change, for
a bounded time. It does not call the API server while a review waits.
*/

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{mirror, watch};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use stoppablecontainer_api::trimmed::Whole;
use stoppablecontainer_api::{StoppableContainerInstance, controller_of};
use tokio::sync::watch as channel;

use crate::selections::{self, NodeTaints};
use crate::user_namespaces::OwnUsers;

/// How long a decision waits for an instance to arrive in the cache: the controller creates the pod
/// as soon as *it* has seen the instance ready, and the watch of this replica may be behind. Well
/// below the webhook's `timeoutSeconds`.
const WAIT: Duration = Duration::from_secs(1);

/// What [`crate::rewrite`] reads, as of now.
#[derive(Clone)]
pub struct Caches {
    instances: Store<StoppableContainerInstance>,
    nodes: Store<Node>,
    claims: Store<PersistentVolumeClaim>,
    changed: channel::Receiver<()>,
}

/// The writing ends of [`Caches`]; each belongs to one watch.
pub struct CacheWriters {
    /// Instances of all namespaces.
    pub instances: Writer<StoppableContainerInstance>,
    /// All nodes.
    pub nodes: Writer<Node>,
    /// Claims of all namespaces.
    pub claims: Writer<PersistentVolumeClaim>,
    /// Sent after every change of an instance.
    pub changed: channel::Sender<()>,
}

/// The watches that fill [`Caches`].
pub struct Watches {
    client: Client,
    writers: CacheWriters,
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
        "metadata.ownerReferences: there is no StoppableContainerInstance {0} with this UID in the namespace, or its \
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
        let writers = CacheWriters {
            instances: Writer::default(),
            nodes: Writer::default(),
            claims: Writer::default(),
            changed,
        };
        let caches = Self {
            instances: writers.instances.as_reader(),
            nodes: writers.nodes.as_reader(),
            claims: writers.claims.as_reader(),
            changed: receiver,
        };
        (caches, writers)
    }

    /// Returns once every cache has been filled for the first time, or `false` if that will not
    /// happen any more.
    pub async fn synced(&self) -> bool {
        let all = futures::join!(
            self.instances.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.claims.wait_until_ready()
        );
        matches!(all, (Ok(()), Ok(()), Ok(())))
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
        let needs = |name: &&String| {
            let claim = self.claims.get(&ObjectRef::new(name).within(namespace));
            claim.is_none_or(|claim| needs_scheduler(&claim))
        };
        names.filter(needs).cloned().collect()
    }
}

/// A claim waits for its first consumer until the scheduler has chosen a node, and only the
/// scheduler keeps a second pod from a ReadWriteOncePod claim.
fn needs_scheduler(claim: &PersistentVolumeClaim) -> bool {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let modes = claim
        .spec
        .as_ref()
        .and_then(|s| s.access_modes.as_deref())
        .unwrap_or_default();
    !bound || modes.iter().any(|mode| mode == "ReadWriteOncePod")
}

// === impl Watches ===

impl Watches {
    /// Watches that write to `writers`.
    pub fn new(client: Client, writers: CacheWriters) -> Self {
        Self { client, writers }
    }

    /// Keeps the caches up to date. Lost connections are made again with back-off; ends only with
    /// the process.
    pub async fn run(self) {
        let Self {
            client,
            writers:
                CacheWriters {
                    instances,
                    nodes: nodes_writer,
                    claims: claims_writer,
                    changed,
                },
        } = self;
        let all = watcher::Config::default();
        let instances = mirror(watch::<_, Whole>(&client, all.clone()), instances, |_| {
            || {
                changed.send_replace(());
            }
        });
        let nodes = mirror(watch::<_, NodeTaints>(&client, all.clone()), nodes_writer, |_| {
            || ()
        });
        let claims = mirror(
            watch::<_, selections::Claims>(&client, all),
            claims_writer,
            |_| || (),
        );
        futures::join!(instances, nodes, claims);
    }
}
