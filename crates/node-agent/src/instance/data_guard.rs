/*!
The right to work on the data of an instance, and the threads that work on it.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::abandoned_threads::AbandonedThreads;

/// How long work on a disk may take that is usually done in milliseconds.
const DISK_TIME: Duration = Duration::from_secs(30);

/// The lock of one instance's data.
#[derive(Debug)]
pub(super) struct DataLock {
    lock: Arc<AsyncMutex<()>>,
    abandoned: Arc<AbandonedThreads>,
}

/// The right to prepare, mount or remove a kept filesystem. One task at a time has it.
#[derive(Debug)]
pub(crate) struct DataGuard {
    /// A thread that works has it meanwhile. Without it the agent does not wait for that thread any
    /// more.
    held: Option<OwnedMutexGuard<()>>,
    namespace: String,
    abandoned: Arc<AbandonedThreads>,
}

// === impl DataLock ===

impl DataLock {
    pub(super) fn new(abandoned: Arc<AbandonedThreads>) -> Self {
        let lock = Arc::default();
        Self { lock, abandoned }
    }

    pub(super) async fn lock(&self, namespace: &str) -> DataGuard {
        DataGuard {
            held: Some(Arc::clone(&self.lock).lock_owned().await),
            namespace: namespace.to_owned(),
            abandoned: Arc::clone(&self.abandoned),
        }
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.lock.try_lock().is_err()
    }
}

// === impl DataGuard ===

impl DataGuard {
    /// Works on a thread that may block. The thread takes the lock along and gives it back with the
    /// result. So a disk that does not answer has one waiting thread for each filesystem, however
    /// often a task asks.
    ///
    /// # Errors
    /// When the work takes too long. The thread goes on then and keeps the lock until it ends; this
    /// guard is of no use any more. And when too many threads of this namespace are left behind
    /// already ([`AbandonedThreads`]).
    pub(crate) async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let slot = self.abandoned.slot(&self.namespace)?;
        let handle = slot.abandon_handle();
        let working = self.without_limit(move || {
            let _slot = slot;
            work()
        });
        if let Ok(done) = tokio::time::timeout(DISK_TIME, working).await {
            return done;
        }
        handle.abandon();
        bail!(
            "disk I/O did not finish within {} s: the disk, or a file system that the container has mounted, does not answer",
            DISK_TIME.as_secs()
        )
    }

    /// The same for work that takes long by nature, such as deleting.
    pub(crate) async fn without_limit<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let held = self
            .held
            .take()
            .context("earlier work on the data has not ended")?;
        let (send, receive) = tokio::sync::oneshot::channel();
        // A thread of its own, so that work that hangs does not use up the threads of other work.
        std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || {
                let result = work();
                // The caller may have stopped waiting.
                drop(send.send((held, result)));
            })
            .context("start a thread")?;
        let (held, result) = receive.await.context("work on the kept filesystem")?;
        self.held = Some(held);
        Ok(result)
    }
}
