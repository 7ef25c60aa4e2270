/*!
A bounded number of connections. At the bound, a new connection replaces the one that has waited
longest for its peer. A slow client therefore cannot keep other clients out. API servers finish
their requests in milliseconds and are not affected.
*/

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::{AbortHandle, JoinSet};

/// The connections that are served.
pub(crate) struct Connections {
    limit: usize,
    next: u64,
    tasks: JoinSet<()>,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
}

/// One connection's place among the others; it leaves with this.
pub(crate) struct Place {
    id: u64,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
}

struct Waiting {
    since: Instant,
    /// None until the task is there.
    task: Option<AbortHandle>,
}

// === impl Connections ===

impl Connections {
    /// None yet, and `limit` at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            next: 0,
            tasks: JoinSet::new(),
            waiting: Arc::default(),
        }
    }

    /// Serves one more.
    pub(crate) fn add<F>(&mut self, serve: impl FnOnce(Place) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.make_room();
        let id = self.next;
        self.next += 1;
        let since = Instant::now();
        lock(&self.waiting).insert(id, Waiting { since, task: None });
        let place = Place {
            id,
            waiting: self.waiting.clone(),
        };
        let task = self.tasks.spawn(serve(place));
        // It may be over already.
        if let Some(waiting) = lock(&self.waiting).get_mut(&id) {
            waiting.task = Some(task);
        }
    }

    /// Returns when all have ended.
    pub(crate) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn make_room(&self) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < self.limit {
            return;
        }
        let longest = waiting.iter().min_by_key(|(_, one)| one.since);
        let longest = longest.map(|(id, _)| *id);
        if let Some(task) = longest.and_then(|id| waiting.remove(&id)?.task) {
            tracing::debug!("too many connections: the one that waited longest is closed");
            task.abort();
        }
    }
}

// === impl Place ===

impl Place {
    /// The peer has done something: a request came, or was answered.
    pub(crate) fn touch(&self) {
        if let Some(waiting) = lock(&self.waiting).get_mut(&self.id) {
            waiting.since = Instant::now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

fn lock(waiting: &Mutex<HashMap<u64, Waiting>>) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
