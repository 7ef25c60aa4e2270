/*!
What the agent knows of the instances of its node, by UID.

A snapshot for each, behind a watch channel: who waits for something (a
provider, a status, a deletion) waits for a change of the snapshot.
*/

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rootfs::Process;
use stoppablecontainer_api::{FilesystemStatus, StoppableContainerInstance};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::blocked::Blocked;
use crate::journal::Object;
use crate::writeback::Outcome;

/// All instances that matter here.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    known: Mutex<HashMap<String, Arc<Instance>>>,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: Object,
    state: watch::Sender<State>,
    attended: AtomicBool,
    /// Held while its kept filesystem is prepared, mounted or removed.
    pub(crate) work: AsyncMutex<()>,
}

/// What is known now.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The object, as last seen.
    pub(crate) object: Option<Arc<StoppableContainerInstance>>,
    /// What this agent last wrote to its status; newer than the object's.
    pub(crate) written: Option<FilesystemStatus>,
    /// The provider, while it holds.
    pub(crate) provider: Option<Provider>,
    /// How many containers were moved since the agent started.
    pub(crate) attached: u64,
    /// A start did not find the data, so it has to be looked at again.
    pub(crate) suspect: bool,
    /// The consumer that waits for the filesystem.
    pub(crate) blocked: Option<Blocked>,
    /// What became of the files of the last consumer that ended.
    pub(crate) outcome: Option<Outcome>,
    /// How often the data was deleted since the agent started: what was measured before says nothing then.
    pub(crate) resets: u64,
}

/// A provider that holds.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) process: Arc<Process>,
    pub(crate) pod_uid: String,
    /// Set once the filesystem is prepared with it.
    pub(crate) ready: bool,
}

// === impl Instances ===

impl Instances {
    /// The instance, known from now on.
    pub(crate) fn get(&self, id: &Object) -> Arc<Instance> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = known
            .entry(id.uid.clone())
            .or_insert_with(|| Arc::new(Instance::new(id.clone())));
        Arc::clone(instance)
    }

    /// All that are known.
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }

    /// Takes a newer object. `None` if it lacks what every stored object has.
    pub(crate) fn apply(&self, object: StoppableContainerInstance) -> Option<Arc<Instance>> {
        let id = id_of(&object)?;
        let instance = self.get(&id);
        instance.change(|state| {
            if state.object.is_none() && state.blocked.is_none() {
                // An earlier agent said so, and nobody else knows better.
                state.blocked = Blocked::recorded(&object);
            }
            state.object = Some(Arc::new(object));
        });
        Some(instance)
    }

    /// Forgets an object that is gone.
    pub(crate) fn delete(&self, uid: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = known.remove(uid) {
            instance.change(|state| state.object = None);
        }
    }

    /// Forgets all objects but these.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let gone =
            |instance: &&Arc<Instance>| instance.state().object.is_some() && !uids.contains(&instance.id.uid);
        let gone: Vec<_> = known
            .values()
            .filter(gone)
            .map(|instance| instance.id.uid.clone())
            .collect();
        drop(known);
        for uid in gone {
            self.delete(&uid);
        }
    }
}

// === impl State ===

impl State {
    /// The filesystem's status, as this agent or the API server last had it.
    pub(crate) fn filesystem(&self) -> Option<&FilesystemStatus> {
        let seen = || self.object.as_ref()?.status.as_ref()?.filesystem.as_ref();
        self.written.as_ref().or_else(seen)
    }
}

// === impl Provider ===

impl Provider {
    /// Whether this is the provider that the instance has now.
    pub(crate) fn is_of(&self, object: &StoppableContainerInstance) -> bool {
        let status = object.status.as_ref();
        status.and_then(|status| status.provider_pod_uid.as_deref()) == Some(&self.pod_uid)
    }
}

// === impl Instance ===

impl Instance {
    fn new(id: Object) -> Self {
        Self {
            id,
            state: watch::Sender::default(),
            attended: AtomicBool::new(false),
            work: AsyncMutex::default(),
        }
    }

    /// Whether the caller is the first to attend to it.
    pub(crate) fn claim_attendance(&self) -> bool {
        !self.attended.swap(true, Ordering::Relaxed)
    }

    /// What is known now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Changes what is known, and wakes who waits for that.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Wakes at every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Waits until the object is as wanted, or the time is over; then the object as it is.
    pub(crate) async fn wait_for(
        &self,
        timeout: Duration,
        wanted: impl Fn(&StoppableContainerInstance) -> bool,
    ) -> Result<Arc<StoppableContainerInstance>, Option<Arc<StoppableContainerInstance>>> {
        let mut changes = self.subscribe();
        let found = changes.wait_for(|state| state.object.as_deref().is_some_and(&wanted));
        match tokio::time::timeout(timeout, found).await {
            Ok(Ok(state)) => state.object.clone().ok_or(None),
            _ => Err(self.state().object),
        }
    }

    /// The filesystem's status, as this agent or the API server last had it.
    pub(crate) fn filesystem(&self) -> Option<FilesystemStatus> {
        self.state.borrow().filesystem().cloned()
    }
}

/// The identity of an object.
pub(crate) fn id_of(object: &StoppableContainerInstance) -> Option<Object> {
    let metadata = &object.metadata;
    Some(Object {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
    })
}
