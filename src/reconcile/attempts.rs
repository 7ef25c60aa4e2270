/*!
What went wrong last time, per object and thing to do: the only memory that the
controller has outside of the API. It paces retries, so losing it with the
process costs one early retry.
*/

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pods::{Role, Trouble};

/// First wait: a webhook replica that has not heard of a change yet needs no longer.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait: what an outage of a webhook or a full quota may cost after it is over.
const LONGEST: Duration = Duration::from_secs(30);

/// What is being retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Creating, or keeping alive, the pod with this role.
    Pod(Role),
    /// Creating the instance of a StoppableContainer.
    Instance,
    /// A whole pass over the object.
    Pass,
}

/// Why a task waits, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What happened.
    pub trouble: Trouble,
    /// Time until the next try; zero when it is due.
    pub remaining: Duration,
}

/// Failures by object UID and task.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: Mutex<HashMap<(String, Task), Failure>>,
}

#[derive(Debug)]
struct Failure {
    count: u32,
    /// Generation of the object that failed: an edit is a reason to try at once.
    generation: Option<i64>,
    /// The pod that ended, so that it is counted once.
    pod: Option<String>,
    retry_at: Instant,
    trouble: Trouble,
}

// === impl Attempts ===

impl Attempts {
    /// Counts a failure and returns the time until the next try. A `pod` that ended is counted once.
    pub fn failed(
        &self,
        uid: &str,
        task: Task,
        generation: Option<i64>,
        pod: Option<&str>,
        trouble: Trouble,
    ) -> Duration {
        let mut failures = self.lock();
        let failure = failures.entry((uid.to_owned(), task)).or_insert_with(|| Failure {
            count: 0,
            generation,
            pod: None,
            retry_at: Instant::now(),
            trouble: trouble.clone(),
        });
        if pod.is_some() && failure.pod.as_deref() == pod {
            return failure.retry_at.saturating_duration_since(Instant::now());
        }
        if failure.generation != generation {
            failure.count = 0;
        }
        let wait = FIRST
            .saturating_mul(2_u32.saturating_pow(failure.count))
            .min(LONGEST);
        *failure = Failure {
            count: failure.count.saturating_add(1),
            generation,
            pod: pod.map(str::to_owned),
            retry_at: Instant::now() + wait,
            trouble,
        };
        wait
    }

    /// The last failure of a task, unless the object was edited since.
    pub fn hold(&self, uid: &str, task: Task, generation: Option<i64>) -> Option<Hold> {
        let failures = self.lock();
        let failure = failures
            .get(&(uid.to_owned(), task))
            .filter(|f| f.generation == generation)?;
        Some(Hold {
            trouble: failure.trouble.clone(),
            remaining: failure.retry_at.saturating_duration_since(Instant::now()),
        })
    }

    /// The task went well: forget its failures.
    pub fn succeeded(&self, uid: &str, task: Task) {
        self.lock().remove(&(uid.to_owned(), task));
    }

    /// The object is gone: forget it.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|(of, _), _| of != uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Task), Failure>> {
        // A panic elsewhere cannot leave a map of plain values half-written in a way that matters.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Trouble {
        Trouble::new("CreationRefused", "no")
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_bound_and_an_edit_starts_over() {
        let attempts = Attempts::default();
        let task = Task::Pod(Role::Consumer);
        let fail = |generation| attempts.failed("u", task, generation, None, trouble());
        assert_eq!(fail(Some(1)), FIRST);
        assert_eq!(fail(Some(1)), FIRST * 2);
        for _ in 0..40 {
            assert!(fail(Some(1)) <= LONGEST);
        }
        assert_eq!(attempts.hold("u", task, Some(1)).unwrap().remaining, LONGEST);
        assert_eq!(
            attempts.hold("u", task, Some(2)),
            None,
            "an edit is a reason to try at once"
        );
        assert_eq!(fail(Some(2)), FIRST);
        tokio::time::advance(FIRST).await;
        assert_eq!(
            attempts.hold("u", task, Some(2)).unwrap().remaining,
            Duration::ZERO
        );
        attempts.forget("u");
        assert_eq!(attempts.hold("u", task, Some(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_ended_counts_once() {
        let attempts = Attempts::default();
        let task = Task::Pod(Role::Consumer);
        assert_eq!(attempts.failed("u", task, None, Some("a"), trouble()), FIRST);
        assert_eq!(attempts.failed("u", task, None, Some("a"), trouble()), FIRST);
        assert_eq!(attempts.failed("u", task, None, Some("b"), trouble()), FIRST * 2);
    }
}
