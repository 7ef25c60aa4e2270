//! The StoppableContainers as a user sees them, kept up to date by a watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use stoppablecontainer_api::conditions::{READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What an object shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// `Ready` is true, and its container runs.
    pub(crate) running: bool,
    /// `Ready` is true, and it is stopped.
    pub(crate) stopped: bool,
    /// The status describes the present spec.
    pub(crate) as_asked: bool,
    /// The generation that the status describes.
    pub(crate) generation: i64,
    /// When this was seen.
    pub(crate) at: Instant,
}

/// All objects. Copies share them.
#[derive(Clone)]
pub(crate) struct Watched {
    objects: Arc<Mutex<HashMap<String, Shown>>>,
    changed: watch::Receiver<()>,
}

// === impl Watched ===

impl Watched {
    /// Watches until the process ends.
    pub(crate) fn start(client: &Client) -> Self {
        let (change, changed) = watch::channel(());
        let objects = Arc::default();
        let watched = Self { objects, changed };
        let (client, shared) = (client.clone(), Arc::clone(&watched.objects));
        tokio::spawn(async move {
            let api = Api::<StoppableContainer>::all(client);
            let events = watcher(api, watcher::Config::default())
                .default_backoff()
                .touched_objects();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let Ok(object) = event else { continue };
                lock(&shared).insert(object.name_any(), Shown::of(&object));
                change.send_replace(());
            }
        });
        watched
    }

    /// What an object shows.
    pub(crate) fn get(&self, name: &str) -> Option<Shown> {
        lock(&self.objects).get(name).copied()
    }

    /// Waits until this many objects show something.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        count: usize,
        wanted: impl Fn(&Shown) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut changed = self.changed.clone();
        loop {
            let shown = lock(&self.objects).values().filter(|shown| wanted(shown)).count();
            if shown >= count {
                return Ok(());
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                bail!("{shown} of {count} objects after {} s", limit.as_secs());
            }
            // One look for many changes: a look takes time too.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shown ===

impl Shown {
    fn of(object: &StoppableContainer) -> Self {
        let status = object.status.as_ref();
        let phase = status.and_then(|status| status.phase);
        let mut conditions = status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.find(|condition| condition.type_ == READY && condition.status == "True");
        let is_stopped = ready.is_some_and(|ready| ready.reason == reason::STOPPED);
        let generation = status.and_then(|status| status.observed_generation);
        Self {
            running: ready.is_some() && !is_stopped && phase == Some(Phase::Running),
            stopped: is_stopped,
            as_asked: generation.is_some() && generation == object.metadata.generation,
            generation: generation.unwrap_or_default(),
            at: Instant::now(),
        }
    }
}
