/*!
Threads that the agent does not wait for any more.

The agent cannot end a thread that waits for a disk or for a tenant's file system: it leaves the
thread behind, and the thread ends when it gets its answer. A tenant can cause one for each of his
filesystems on the node, over and over. So each namespace may have a few; the agent refuses more
work of it until one ends. Other namespaces are not affected.
*/

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

/// How many threads of one namespace may be left behind.
pub(crate) const MAX_ABANDONED: usize = 16;

/// How many are left behind, by namespace.
#[derive(Debug, Default)]
pub(crate) struct AbandonedThreads(Mutex<HashMap<String, usize>>);

/// Held by a thread that may be left behind, as long as it works.
#[derive(Debug)]
pub(crate) struct ThreadSlot(Arc<Shared>);

/// Records that the agent does not wait for a thread any more.
#[derive(Debug)]
pub(crate) struct AbandonHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Arc<AbandonedThreads>,
    namespace: String,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Working,
    Abandoned,
    Ended,
}

// === impl AbandonedThreads ===

impl AbandonedThreads {
    /// A place for a thread of this namespace.
    ///
    /// # Errors
    /// When too many of the namespace are left behind already.
    pub(crate) fn slot(self: &Arc<Self>, namespace: &str) -> Result<ThreadSlot> {
        let count = lock(&self.0).get(namespace).copied().unwrap_or_default();
        if count >= MAX_ABANDONED {
            bail!(
                "{count} threads of namespace {namespace} on this node still wait for disks or mounted file \
                 systems that do not answer, and the agent starts no more; repair those, or delete the pods that \
                 serve them"
            );
        }
        Ok(ThreadSlot(Arc::new(Shared {
            all: Arc::clone(self),
            namespace: namespace.to_owned(),
            stage: Mutex::new(Stage::Working),
        })))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).values().sum()
    }
}

// === impl ThreadSlot ===

impl ThreadSlot {
    pub(crate) fn abandon_handle(&self) -> AbandonHandle {
        AbandonHandle(Arc::clone(&self.0))
    }
}

impl Drop for ThreadSlot {
    fn drop(&mut self) {
        let mut stage = lock(&self.0.stage);
        if *stage == Stage::Abandoned {
            let mut all = lock(&self.0.all.0);
            if let Some(count) = all.get_mut(&self.0.namespace) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&self.0.namespace);
                }
            }
        }
        *stage = Stage::Ended;
    }
}

// === impl AbandonHandle ===

impl AbandonHandle {
    pub(crate) fn abandon(self) {
        let mut stage = lock(&self.0.stage);
        if *stage == Stage::Working {
            *stage = Stage::Abandoned;
            *lock(&self.0.all.0).entry(self.0.namespace.clone()).or_default() += 1;
            tracing::error!(
                namespace = self.0.namespace,
                "the agent abandons a thread: a disk or a mounted file system does not answer"
            );
        }
    }
}

/// A lock whose holders never panic half-way: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
