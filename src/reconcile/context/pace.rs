/*!
What keeps many objects from making their requests at the same moment: waits that differ by object,
and a budget that the whole process shares.
*/

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that gives out times: at most `burst` at once, then one each `interval`.
#[derive(Debug)]
pub struct Budget {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again.
    full_at: Mutex<Option<Instant>>,
}

/// Writes that may be late, by object: each has its turn in a [`Budget`].
#[derive(Debug)]
pub struct Turns {
    budget: Budget,
    due: Mutex<HashMap<String, Instant>>,
}

// === impl Budget ===

impl Budget {
    /// A full bucket with `per_second` new tokens each second.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst,
            full_at: Mutex::default(),
        }
    }

    /// Takes a token, and returns how long to wait until it may be used.
    pub fn reserve(&self) -> Duration {
        let now = Instant::now();
        let mut full_at = lock(&self.full_at);
        let before = full_at.map_or(now, |at| at.max(now));
        *full_at = Some(before + self.interval);
        let debt = (before + self.interval).saturating_duration_since(now);
        debt.saturating_sub(self.interval.saturating_mul(self.burst))
    }
}

// === impl Turns ===

impl Turns {
    /// No object waits.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            due: Mutex::default(),
        }
    }

    /// How long until the write of this object may be made. An object that asks again keeps its
    /// turn.
    pub fn wait(&self, uid: &str) -> Duration {
        let mut due = lock(&self.due);
        let now = Instant::now();
        let at = due
            .entry(uid.to_owned())
            .or_insert_with(|| now + self.budget.reserve());
        at.saturating_duration_since(now)
    }

    /// The write was made, or there is nothing to write any more.
    pub fn done(&self, uid: &str) {
        lock(&self.due).remove(uid);
    }
}

/// Between half of `wait` and all of it, by object and attempt: objects that failed at the same
/// moment do not try again at the same moment. The same at every call, so that a run can be
/// repeated.
pub fn jittered(wait: Duration, uid: &str, attempt: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (uid, attempt).hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 1024).unwrap_or_default();
    wait / 2 + (wait / 2).saturating_mul(share) / 1024
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave plain values half-written in a way that matters.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn i18_a_budget_allows_a_burst_and_then_a_rate() {
        let budget = Budget::new(10, 3);
        let waits: Vec<_> = (0..5).map(|_| budget.reserve().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        tokio::time::advance(SECOND).await;
        let waits: Vec<_> = (0..4).map(|_| budget.reserve().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100], "no more than the burst is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn i18_five_thousand_objects_have_their_turns_one_after_another() {
        let turns = Turns::new(Budget::new(20, 50));
        let uids: Vec<_> = (0..5000).map(|index| index.to_string()).collect();
        let waits: Vec<_> = uids.iter().map(|uid| turns.wait(uid)).collect();
        for second in 0..240 {
            let within = SECOND * second..SECOND * (second + 1);
            let writes = waits.iter().filter(|wait| within.contains(*wait)).count();
            assert!(writes <= 70, "{writes} writes in second {second}");
        }
        assert_eq!(turns.wait(&uids[4999]), waits[4999], "a turn is kept");
        tokio::time::advance(waits[4999]).await;
        assert_eq!(turns.wait(&uids[4999]), Duration::ZERO);
        turns.done(&uids[4999]);
    }

    #[test]
    fn i18_objects_that_failed_together_do_not_try_again_together() {
        let uids: Vec<_> = (0..1000).map(|index| format!("uid-{index}")).collect();
        let waits: Vec<_> = uids.iter().map(|uid| jittered(SECOND, uid, 1)).collect();
        for tenth in 0..10 {
            let begin = Duration::from_millis(500 + 50 * tenth);
            let within = begin..begin + Duration::from_millis(50);
            let count = waits.iter().filter(|wait| within.contains(*wait)).count();
            assert!((50..200).contains(&count), "{count} of 1000 in {within:?}");
        }
        assert_ne!(jittered(SECOND, "a", 1), jittered(SECOND, "a", 2));
        assert_eq!(jittered(SECOND, "a", 1), jittered(SECOND, "a", 1));
    }
}
