/*!
What the agent knows of the instances of its node, by UID.

Each has a snapshot behind a watch channel: a task that waits for something (a provider, a status, a
deletion) waits for a change of the snapshot.
*/

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rootfs::Process;
use stoppablecontainer_api::{ConsumerReport, FilesystemStatus, StoppableContainerInstance};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use super::abandoned_threads::AbandonedThreads;
use super::data_guard::{DataGuard, DataLock};
use super::object_ref::ObjectRef;

/// All instances of this agent: those whose objects it saw. A pod that only names an instance does
/// not count.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    known: Mutex<HashMap<String, Arc<Instance>>>,
    /// Changes when one is added.
    added: watch::Sender<()>,
    /// Whether all were listed since the agent started.
    synced: watch::Sender<bool>,
    abandoned: Arc<AbandonedThreads>,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: ObjectRef,
    state: watch::Sender<State>,
    has_task: AtomicBool,
    data: DataLock,
    /// Held while its status is written, and never while a disk is asked for something.
    pub(crate) writing: AsyncMutex<()>,
    /// Held by the thread that measures it, however long that takes.
    pub(crate) measuring: Arc<AsyncMutex<()>>,
    /// Held by the thread that reads its files for a user, however long that takes.
    pub(crate) reading: Arc<AsyncMutex<()>>,
}

/// What is known now.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The object, as last seen.
    pub(crate) object: Option<Arc<StoppableContainerInstance>>,
    /// What this agent last wrote to its status; newer than the object's.
    pub(crate) written: Option<FilesystemStatus>,
    /// The outcome of the last write is unknown: the object's status may differ from
    /// [`State::filesystem`].
    pub(crate) write_uncertain: bool,
    /// Processes of providers that hold, the longest-held first.
    pub(crate) holding: Vec<Provider>,
    /// How many containers were moved since the agent started.
    pub(crate) attached: u64,
    /// A start did not find the data, so the data has to be checked again.
    pub(crate) recheck_data: bool,
    /// The consumer that waits for the filesystem.
    pub(crate) blocked: Option<Blocked>,
    /// The result of the sync after the last consumer ended.
    pub(crate) outcome: Option<WritebackOutcome>,
    /// How often the data was deleted since the agent started. An earlier measurement is void then.
    pub(crate) resets: u64,
}

/// A provider that holds, and with which the filesystem was prepared.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) process: Arc<Process>,
    pub(crate) pod_uid: String,
}

/// A consumer that waits for its filesystem, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) consumer: ConsumerReport,
    pub(crate) since: Instant,
    /// An earlier agent reported it, and this one has not checked it yet.
    pub(crate) recorded: bool,
}

/// The result of the sync after a consumer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WritebackOutcome {
    pub(crate) pod_uid: String,
    /// The write error, as sentences.
    pub(crate) failure: Option<String>,
}

// === impl Instances ===

impl Instances {
    /// The instance, if it is known.
    pub(crate) fn find(&self, uid: &str) -> Option<Arc<Instance>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(uid).cloned()
    }

    /// The instance, as soon as it is known.
    pub(crate) async fn wait_until_known(&self, uid: &str) -> Arc<Instance> {
        let mut added = self.added.subscribe();
        loop {
            if let Some(instance) = self.find(uid) {
                return instance;
            }
            // Never an error: the other end is ours.
            let _ = added.changed().await;
        }
    }

    /// Waits until the instance is known and its object as wanted, or the time is over; then the
    /// object as it is.
    pub(crate) async fn wait_for(
        &self,
        uid: &str,
        timeout: Duration,
        wanted: impl Fn(&StoppableContainerInstance) -> bool,
    ) -> Result<Arc<StoppableContainerInstance>, Option<Arc<StoppableContainerInstance>>> {
        let found = async {
            let instance = self.wait_until_known(uid).await;
            let mut changes = instance.subscribe();
            let found = changes.wait_for(|state| state.object.as_deref().is_some_and(&wanted));
            found.await.ok()?.object.clone()
        };
        match tokio::time::timeout(timeout, found).await {
            Ok(Some(object)) => Ok(object),
            _ => Err(self.find(uid).and_then(|instance| instance.state().object)),
        }
    }

    /// Whether all were listed since the agent started.
    pub(crate) fn are_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) fn set_synced(&self) {
        self.synced.send_replace(true);
    }

    /// Waits until all were listed.
    pub(crate) async fn synced(&self) {
        // Never an error: the sender is in `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// How many threads the agent does not wait for any more.
    pub(crate) fn abandoned_threads(&self) -> usize {
        self.abandoned.count()
    }

    /// All that are known.
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }

    /// Takes a newer object. `None` if it lacks what every stored object has.
    pub(crate) fn apply(&self, object: StoppableContainerInstance) -> Option<Arc<Instance>> {
        let id = ObjectRef::of(&object)?;
        let instance = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = known.entry(id.uid.clone());
            Arc::clone(entry.or_insert_with(|| Arc::new(Instance::new(id, Arc::clone(&self.abandoned)))))
        };
        instance.change(|state| {
            if state.object.is_none() && state.blocked.is_none() {
                // An earlier agent reported it, and there is no newer information.
                state.blocked = Blocked::recorded(&object);
            }
            state.object = Some(Arc::new(object));
        });
        self.added.send_replace(());
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

    /// The provider that the instance has now. Of several processes that hold for it, the first
    /// that lives: another process of its container that starts and ends again changes nothing.
    pub(crate) fn provider(&self) -> Option<&Provider> {
        let object = self.object.as_ref()?;
        let mut holding = self.holding.iter();
        holding.find(|provider| provider.is_of(object) && provider.process.is_alive())
    }
}

// === impl Provider ===

impl Provider {
    /// Whether its pod is the provider that the instance has now.
    fn is_of(&self, object: &StoppableContainerInstance) -> bool {
        let status = object.status.as_ref();
        status.and_then(|status| status.provider_pod_uid.as_deref()) == Some(&self.pod_uid)
    }
}

// === impl Blocked ===

impl Blocked {
    /// What an earlier agent reported.
    pub(crate) fn recorded(object: &StoppableContainerInstance) -> Option<Self> {
        let consumer = object.status.as_ref()?.filesystem.as_ref()?.blocked.clone()?;
        Some(Self {
            consumer,
            since: Instant::now(),
            recorded: true,
        })
    }
}

// === impl Instance ===

impl Instance {
    fn new(id: ObjectRef, abandoned: Arc<AbandonedThreads>) -> Self {
        Self {
            id,
            state: watch::Sender::default(),
            has_task: AtomicBool::new(false),
            data: DataLock::new(abandoned),
            writing: AsyncMutex::default(),
            measuring: Arc::default(),
            reading: Arc::default(),
        }
    }

    /// Waits for the right to work on its data.
    pub(crate) async fn lock_data(&self) -> DataGuard {
        self.data.lock(&self.id.namespace).await
    }

    /// Whether the caller is the first to ask, and so runs the task of the instance.
    pub(crate) fn claim_task(&self) -> bool {
        !self.has_task.swap(true, Ordering::Relaxed)
    }

    /// What is known now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Changes what is known, and wakes the tasks that wait for changes.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Changes what is known without waking any task.
    pub(crate) fn change_quietly(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            change(state);
            false
        });
    }

    /// Wakes at every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The filesystem's status, as this agent or the API server last had it.
    pub(crate) fn filesystem(&self) -> Option<FilesystemStatus> {
        self.state.borrow().filesystem().cloned()
    }
}

#[cfg(test)]
mod tests;
