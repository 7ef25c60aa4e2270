/*!
What failed last, by object and task: the only memory that the controller has outside of the API. It
paces retries, so losing it with the process costs one early retry.
*/

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Retries;
use crate::reconcile::conditions::Cause;
use crate::reconcile::context::pace::Budget;
use crate::reconcile::context::{Turns, jittered};
use crate::reconcile::pods::Role;

/// First wait: a webhook replica needs not longer to see a change.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait of an object after a refusal: what an outage of a webhook or a full quota may cost
/// after it is over. With thousands of objects, the budget of all retries makes some wait longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Second and longest wait for pods that end: those of the kubelet for containers that do
/// (`initialBackOff` and `MaxContainerBackOff`). The first one is replaced at once, as a container
/// is.
const ENDED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));

/// Retries after refusals, of all objects: new ones per second, and how many at once. An outage
/// that ends is followed by about the rate at which objects start otherwise.
const RETRIES: (u32, u32) = (50, 100);
/// Statuses of StoppableContainers in which nothing but the usage of the disk changed.
const USAGES: (u32, u32) = (20, 50);

/// What is being retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Creating, or keeping alive, the pod with this role.
    Pod(Role),
    /// Creating the instance of a StoppableContainer.
    Instance,
    /// Changing CPU and memory of the consumer that runs.
    Resize,
    /// The whole reconciliation of the object.
    Reconcile,
}

/// Why a task waits, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// What happened.
    pub cause: Cause,
    /// Time until the next try; zero when it is due.
    pub remaining: Duration,
}

/// Failures by object UID and task.
#[derive(Debug)]
pub struct Attempts {
    failures: Mutex<HashMap<(String, Task), Record>>,
    /// By object UID: the container that was last asked for with [`Attempts::seen_for`], and since
    /// when.
    seen: Mutex<HashMap<String, (String, Instant)>>,
    retries: Retries,
    /// By object UID: the pod that was last asked about with [`Attempts::restarted`], and how often
    /// its container had been started again.
    restarts: Mutex<HashMap<String, (String, i32)>>,
    /// All retries after refusals.
    budget: Budget,
    /// Whose usage may be shown next.
    pub usages: Turns,
}

#[derive(Debug)]
struct Record {
    /// Refusals since the task last succeeded.
    refusals: u32,
    /// Pods that ended since the last one that was well for long enough. A start alone does not
    /// reset this.
    ends: u32,
    /// Generation of the object that failed: an edit is a reason to try at once.
    generation: Option<i64>,
    /// The pod that ended, so that it is counted once.
    pod: Option<String>,
    retry_at: Instant,
    /// `None` once the task succeeded.
    cause: Option<Cause>,
}

// === impl Task ===

impl Task {
    /// The value of the metrics' label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Pod(role) => role.label(),
            Self::Instance => "instance",
            Self::Resize => "resize",
            Self::Reconcile => "reconciliation",
        }
    }
}

// === impl Attempts ===

impl Default for Attempts {
    fn default() -> Self {
        Self {
            failures: Mutex::default(),
            seen: Mutex::default(),
            retries: Retries::default(),
            restarts: Mutex::default(),
            budget: Budget::new(RETRIES.0, RETRIES.1),
            usages: Turns::new(Budget::new(USAGES.0, USAGES.1)),
        }
    }
}

impl Attempts {
    /// Without failures. Counts failures in the metrics.
    pub fn new(retries: Retries) -> Self {
        Self {
            retries,
            ..Self::default()
        }
    }

    /// Counts a failure and returns the time until the next try. With `pod` it is the end of that
    /// pod, which is counted once; without, a refusal, whose wait differs by object and is within
    /// the budget of the process.
    pub fn failed(
        &self,
        uid: &str,
        task: Task,
        generation: Option<i64>,
        pod: Option<&str>,
        cause: Cause,
    ) -> Duration {
        let mut failures = self.lock();
        let failure = failures.entry((uid.to_owned(), task)).or_insert_with(|| Record {
            refusals: 0,
            ends: 0,
            generation,
            pod: None,
            retry_at: Instant::now(),
            cause: None,
        });
        if pod.is_some() && failure.pod.as_deref() == pod {
            return failure.retry_at.saturating_duration_since(Instant::now());
        }
        self.retries.failed(task.as_str());
        if failure.generation != generation {
            (failure.refusals, failure.ends) = (0, 0);
        }
        let doubled = |first: Duration, times, longest| {
            let factor = 2_u32.saturating_pow(times);
            first.saturating_mul(factor).min(longest)
        };
        let wait = match (pod, failure.ends) {
            (None, _) => {
                let wait = doubled(FIRST, failure.refusals, LONGEST);
                jittered(wait, uid, failure.refusals).max(self.budget.reserve())
            }
            (Some(_), 0) => FIRST,
            (Some(_), before) => doubled(ENDED.0, before - 1, ENDED.1),
        };
        let count = if pod.is_some() {
            failure.pod = pod.map(str::to_owned);
            &mut failure.ends
        } else {
            &mut failure.refusals
        };
        *count = count.saturating_add(1);
        failure.generation = generation;
        failure.retry_at = Instant::now() + wait;
        failure.cause = Some(cause);
        wait
    }

    /// The last failure of a task, unless the object was edited since.
    pub fn backoff(&self, uid: &str, task: Task, generation: Option<i64>) -> Option<Backoff> {
        let failures = self.lock();
        let failure = failures
            .get(&(uid.to_owned(), task))
            .filter(|f| f.generation == generation)?;
        Some(Backoff {
            cause: failure.cause.clone()?,
            remaining: failure.retry_at.saturating_duration_since(Instant::now()),
        })
    }

    /// The task succeeded: its refusals are forgotten. Ends of pods are not forgotten, because the
    /// next pod that starts may end as soon.
    pub fn succeeded(&self, uid: &str, task: Task) {
        let mut failures = self.lock();
        let key = (uid.to_owned(), task);
        if let Some(failure) = failures.get_mut(&key) {
            failure.refusals = 0;
            failure.cause = None;
            if failure.ends == 0 {
                failures.remove(&key);
            }
        }
    }

    /// A pod was well for long enough: what failed before it is forgotten.
    pub fn recovered(&self, uid: &str, task: Task) {
        self.lock().remove(&(uid.to_owned(), task));
    }

    /// How long ago the controller saw this container, or state, of an object first. By its own
    /// clock: the clock of a node may be wrong.
    pub fn seen_for(&self, uid: &str, container: &str) -> Duration {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seen = all.entry(uid.to_owned()).or_insert_with(|| (String::new(), now));
        if seen.0 != container {
            *seen = (container.to_owned(), now);
        }
        now.saturating_duration_since(seen.1)
    }

    /// Whether the container of this pod was started again since the controller last looked. A
    /// restart before the first look does not count.
    pub fn restarted(&self, uid: &str, pod: &str, count: i32) -> bool {
        let mut all = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        let last = all.insert(uid.to_owned(), (pod.to_owned(), count));
        last.is_some_and(|(known, before)| known == pod && before < count)
    }

    /// The object is gone: forget it.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|(of, _), _| of != uid);
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
        self.usages.done(uid);
        self.restarts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Task), Record>> {
        // A panic elsewhere cannot leave a map of plain values half-written in a way that matters.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking_cause() -> Cause {
        Cause::new("CreationRefused", "no")
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_bound_and_an_edit_starts_over() {
        let attempts = Attempts::default();
        let task = Task::Pod(Role::Consumer);
        let fail = |generation| attempts.failed("u", task, generation, None, blocking_cause());
        let is_about = |wait: Duration, most: Duration| (most / 2..=most).contains(&wait);
        assert!(is_about(fail(Some(1)), FIRST));
        assert!(is_about(fail(Some(1)), FIRST * 2));
        for _ in 0..40 {
            assert!(fail(Some(1)) <= LONGEST);
        }
        let remaining = attempts.backoff("u", task, Some(1)).unwrap().remaining;
        assert!(is_about(remaining, LONGEST));
        assert_eq!(
            attempts.backoff("u", task, Some(2)),
            None,
            "an edit is a reason to try at once"
        );
        assert!(is_about(fail(Some(2)), FIRST));
        tokio::time::advance(FIRST).await;
        assert_eq!(
            attempts.backoff("u", task, Some(2)).unwrap().remaining,
            Duration::ZERO
        );
        attempts.forget("u");
        assert_eq!(attempts.backoff("u", task, Some(2)), None);
    }

    /// An outage of the webhook ends: 5,000 objects have waited for it.
    #[tokio::test(start_paused = true)]
    async fn i18_retries_of_many_objects_stay_within_the_budget() {
        let attempts = Attempts::default();
        let uids: Vec<_> = (0..5000).map(|index| format!("u{index}")).collect();
        let mut waits: Vec<_> = uids
            .iter()
            .map(|uid| attempts.failed(uid, Task::Pod(Role::Consumer), None, None, blocking_cause()))
            .collect();
        waits.sort();
        let second = Duration::from_secs(1);
        // The first ones after the burst share their first tenth of a second with it.
        for begin in &waits[usize::try_from(RETRIES.1).unwrap() + 10..] {
            let within = *begin..*begin + second;
            let retries = waits.iter().filter(|wait| within.contains(*wait)).count();
            assert!(retries <= 60, "{retries} retries within a second");
        }
        assert!(
            waits[4999] < second * 100,
            "the last one does not wait longer than needed"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_ended_counts_once() {
        let attempts = Attempts::default();
        let task = Task::Pod(Role::Consumer);
        assert_eq!(
            attempts.failed("u", task, None, Some("a"), blocking_cause()),
            FIRST
        );
        assert_eq!(
            attempts.failed("u", task, None, Some("a"), blocking_cause()),
            FIRST
        );
        assert_eq!(
            attempts.failed("u", task, None, Some("b"), blocking_cause()),
            ENDED.0
        );
    }

    /// `activeDeadlineSeconds: 5`, say: every pod starts well.
    #[tokio::test(start_paused = true)]
    async fn i18_that_a_pod_starts_is_no_reason_to_begin_anew() {
        let attempts = Attempts::default();
        let task = Task::Pod(Role::Consumer);
        let end = |pod| attempts.failed("u", task, Some(1), Some(pod), blocking_cause());
        let mut waits = Vec::new();
        for pod in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            waits.push(end(pod).as_millis());
            tokio::time::advance(ENDED.1).await;
            // The creation of its successor is refused for a while, and then that runs.
            assert!(attempts.failed("u", task, Some(1), None, blocking_cause()) <= FIRST);
            attempts.succeeded("u", task);
            assert_eq!(
                attempts.backoff("u", task, Some(1)),
                None,
                "nothing is in its way"
            );
        }
        assert_eq!(
            waits,
            [
                100, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000
            ]
        );
        attempts.recovered("u", task);
        assert_eq!(end("j"), FIRST);
        assert_eq!(end("k"), ENDED.0);
        assert_eq!(
            attempts.failed("u", task, Some(2), Some("l"), blocking_cause()),
            FIRST,
            "the user edited, or stopped and started it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_is_seen_from_the_first_look_on() {
        let attempts = Attempts::default();
        assert_eq!(attempts.seen_for("u", "c1"), Duration::ZERO);
        tokio::time::advance(FIRST).await;
        assert_eq!(attempts.seen_for("u", "c1"), FIRST);
        assert_eq!(attempts.seen_for("u", "c2"), Duration::ZERO);
        attempts.forget("u");
        assert_eq!(attempts.seen_for("u", "c2"), Duration::ZERO);
    }

    #[test]
    fn i12_a_restart_counts_once_and_not_before_the_first_look() {
        let attempts = Attempts::default();
        let looks = [("a", 2), ("a", 2), ("a", 3), ("a", 3), ("b", 4), ("b", 5)];
        let counted = looks.map(|(pod, count)| attempts.restarted("u", pod, count));
        assert_eq!(counted, [false, false, true, false, false, true]);
        attempts.forget("u");
        assert!(!attempts.restarted("u", "b", 6));
    }
}
