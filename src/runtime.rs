/*!
The life of the process: what runs, when it counts as ready, and how it ends.

Every long-lived task is watched. The first to end ends the process, so that a replica does not
continue without its watches, its certificates or its lease; the kubelet starts a new one.
*/

use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn Error + Send + Sync>;

/// The tasks of the process, and its shutdown.
#[derive(Default)]
pub struct Runtime {
    shutdown: CancellationToken,
    readiness: Readiness,
    tasks: JoinSet<(&'static str, Result<(), BoxError>)>,
}

/// What the process still waits for before it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// One thing that must happen before the process is ready. Dropped without [`Pending::ready`], it
/// never is.
#[derive(Debug)]
#[must_use = "the process is ready only after `Pending::ready`"]
pub struct Pending {
    name: &'static str,
    readiness: Readiness,
}

/// Why the process ends before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Signals cannot be received.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A task failed.
    #[error("{name} failed")]
    Failed {
        /// Name of the task.
        name: &'static str,
        /// Why.
        #[source]
        error: BoxError,
    },
    /// A task that should never end did.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[source] JoinError),
    /// Asked to end a second time while draining.
    #[error("aborted by a second signal")]
    Aborted,
}

// === impl Runtime ===

impl Runtime {
    /// Cancelled when the process should end.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// What is not ready yet.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs a task that is to end only after [`Runtime::shutdown`], at its own pace.
    pub fn spawn<E: Into<BoxError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks
            .spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Runs a task that is dropped at shutdown.
    pub fn spawn_endless(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown();
        self.spawn(name, async move {
            shutdown.run_until_cancelled(task).await;
            Ok::<(), BoxError>(())
        });
    }

    /// Runs until SIGTERM or SIGINT, then until every task has ended.
    ///
    /// # Errors
    /// When a task ends before that, or a second signal comes while the others are waited for.
    pub async fn run(mut self) -> Result<(), RuntimeError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(RuntimeError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RuntimeError::Signals)?;
        let mut asked = async move || {
            tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
        };
        tokio::select! {
            signal = asked() => tracing::info!(signal, "ending"),
            Some(ended) = self.tasks.join_next() => {
                self.shutdown.cancel();
                return Err(unexpected(ended));
            }
        }
        self.shutdown.cancel();
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok((name, Ok(())))) => tracing::debug!(name, "ended"),
                    Some(Ok((name, Err(error)))) => return Err(RuntimeError::Failed { name, error }),
                    Some(Err(error)) => return Err(RuntimeError::Panicked(error)),
                },
                _ = asked() => return Err(RuntimeError::Aborted),
            }
        }
    }
}

fn unexpected(ended: Result<(&'static str, Result<(), BoxError>), JoinError>) -> RuntimeError {
    match ended {
        Ok((name, Ok(()))) => RuntimeError::Ended(name),
        Ok((name, Err(error))) => RuntimeError::Failed { name, error },
        Err(error) => RuntimeError::Panicked(error),
    }
}

// === impl Readiness ===

impl Readiness {
    /// Makes readiness wait for one more thing.
    pub fn wait_for(&self, name: &'static str) -> Pending {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Pending {
            name,
            readiness: self.clone(),
        }
    }

    /// What is still waited for; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

// === impl Pending ===

impl Pending {
    /// It has happened.
    pub fn ready(self) {
        tracing::info!(name = self.name, "ready");
        self.readiness
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_task_to_end_ends_the_process() {
        let mut runtime = Runtime::default();
        runtime.spawn("steady", std::future::pending::<Result<(), io::Error>>());
        runtime.spawn("broken", async { Err(io::Error::other("reason")) });
        let error = runtime.run().await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Failed { name: "broken", .. }),
            "{error}"
        );
    }

    #[test]
    fn ready_means_that_nothing_is_missing_and_dropping_is_not_enough() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.wait_for("one"), readiness.wait_for("two"));
        one.ready();
        drop(two);
        assert_eq!(readiness.missing(), ["two"]);
    }
}
