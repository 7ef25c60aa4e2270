/*!
What the agent knows of the instances of its node, by UID.

A snapshot for each, behind a watch channel: who waits for something (a
provider, a status, a deletion) waits for a change of the snapshot.
*/

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rootfs::Process;
use stoppablecontainer_api::{FilesystemStatus, StoppableContainerInstance};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use crate::blocked::Blocked;
use crate::journal::Object;
use crate::writeback::Outcome;

/// How long work on a disk may take that is usually done in milliseconds.
const DISK_TIME: Duration = Duration::from_secs(30);

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
    /// See [`Working`].
    work: Arc<AsyncMutex<()>>,
    /// Held while its status is written, and never while a disk is asked for something.
    pub(crate) writing: AsyncMutex<()>,
    /// Held by the thread that measures it, however long that takes.
    pub(crate) measuring: Arc<AsyncMutex<()>>,
}

/// The right to prepare, mount or remove a kept filesystem; one at a time has it.
#[derive(Debug)]
pub(crate) struct Working {
    _right: OwnedMutexGuard<()>,
}

/// What is known now.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The object, as last seen.
    pub(crate) object: Option<Arc<StoppableContainerInstance>>,
    /// What this agent last wrote to its status; newer than the object's.
    pub(crate) written: Option<FilesystemStatus>,
    /// A write was begun whose end is not known: the object's status may be another one than [`State::filesystem`] says.
    pub(crate) unsure: bool,
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

    /// The instance, if it is known.
    pub(crate) fn find(&self, uid: &str) -> Option<Arc<Instance>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(uid).cloned()
    }

    /// Forgets those that nobody has anything to do with: a name that somebody only claimed to be an instance's.
    pub(crate) fn sweep(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, instance| Arc::strong_count(instance) > 1 || instance.state().object.is_some());
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
            work: Arc::default(),
            writing: AsyncMutex::default(),
            measuring: Arc::default(),
        }
    }

    /// Waits for the right to work on its filesystem.
    pub(crate) async fn work(&self) -> Working {
        Working {
            _right: Arc::clone(&self.work).lock_owned().await,
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

    /// Changes what is known and wakes nobody.
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

// === impl Working ===

impl Working {
    /// Works on a thread that may block. The right goes with it, and comes back with the result: where a disk does not
    /// answer, one thread for each filesystem waits for it, whoever asks how often.
    ///
    /// # Errors
    /// When it takes too long. It goes on then, and nobody else gets the right before it ends.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Self, T)> {
        tokio::time::timeout(DISK_TIME, self.for_long(work))
            .await
            .with_context(|| format!("the disk needs more than {} s for it", DISK_TIME.as_secs()))?
    }

    /// The same for what takes long by nature, such as deleting.
    pub(crate) async fn for_long<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Self, T)> {
        tokio::task::spawn_blocking(move || {
            let result = work();
            (self, result)
        })
        .await
        .context("work on the kept filesystem")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(uid: &str) -> Object {
        Object {
            namespace: "ns".into(),
            name: "web".into(),
            uid: uid.into(),
        }
    }

    #[test]
    fn what_somebody_only_claims_to_be_an_instance_is_not_remembered() {
        let instances = Instances::default();
        let waited_for = instances.get(&id("u1"));
        instances.get(&id("u2"));
        instances.sweep();
        assert!(instances.find("u2").is_none());
        assert!(Arc::ptr_eq(&instances.find("u1").unwrap(), &waited_for));
    }

    /// However often somebody tries, a disk that does not answer has one thread for a filesystem.
    #[tokio::test]
    async fn i9_work_that_nobody_waits_for_keeps_others_out_until_it_ends() {
        let instance = Instance::new(id("u1"));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let working = instance.work().await;
        let work = working.on_disk(move || ended.recv().is_err());
        tokio::select! {
            biased;
            _ = work => panic!("it ended"),
            () = tokio::task::yield_now() => {}
        }
        assert!(instance.work.try_lock().is_err(), "somebody else may work on it");
        drop(end);
        instance.work().await.on_disk(|| ()).await.unwrap();
    }
}
