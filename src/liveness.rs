/*!
What `/livez` answers: whether work that began also ends.

Every call to the API server has a time limit, so a piece of work takes seconds. One that is under
way for minutes hangs, and the kubelet has to restart the process.
*/

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longest that a piece of work may take. A reconciliation makes about ten calls at most, of
/// [`apiserver::TIME_LIMIT`] each.
const LONGEST: Duration = Duration::from_mins(5);

/// The work under way.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<Works>>);

#[derive(Debug, Default)]
struct Works {
    next: u64,
    /// In the order in which they were begun.
    begun: BTreeMap<u64, Work>,
}

#[derive(Debug)]
struct Work {
    name: String,
    since: Instant,
}

/// Removes a piece of work when it ends or is dropped.
struct Guard<'a> {
    liveness: &'a Liveness,
    id: u64,
}

// === impl Progress ===

impl Liveness {
    /// Does `work`; while that lasts it counts as under way.
    pub async fn of<T>(&self, name: String, work: impl Future<Output = T>) -> T {
        let _guard = self.begin(name);
        work.await
    }

    /// The work that is under way for too long, as a sentence.
    pub fn stuck(&self) -> Option<String> {
        let works = self.lock();
        let oldest = works.begun.values().next()?;
        let taken = oldest.since.elapsed();
        (taken > LONGEST).then(|| format!("{} has made no progress for {} s", oldest.name, taken.as_secs()))
    }

    fn begin(&self, name: String) -> Guard<'_> {
        let mut works = self.lock();
        let id = works.next;
        works.next += 1;
        let since = Instant::now();
        works.begun.insert(id, Work { name, since });
        Guard { liveness: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Works> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.liveness.lock().begun.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn i18_work_that_does_not_end_is_named_and_other_work_is_not() {
        let liveness = Liveness::default();
        assert_eq!(liveness.stuck(), None);
        let endless = liveness.of(
            "reconciliation of ns/web".to_owned(),
            std::future::pending::<()>(),
        );
        let endless = tokio::time::timeout(LONGEST + Duration::from_secs(2), endless);
        let look = async {
            tokio::time::sleep(LONGEST).await;
            assert_eq!(liveness.stuck(), None, "not yet");
            liveness
                .of("reconciliation of ns/quick".to_owned(), async {})
                .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let stuck = liveness.stuck().unwrap();
            assert!(
                stuck.starts_with("reconciliation of ns/web has made no progress"),
                "{stuck}"
            );
        };
        let (given_up, ()) = tokio::join!(endless, look);
        assert!(given_up.is_err());
        assert_eq!(liveness.stuck(), None, "what is given up is not under way");
    }
}
