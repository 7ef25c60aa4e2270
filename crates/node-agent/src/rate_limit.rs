/*!
How fast processes of a pod may make the agent work, and how much of that it logs.

Token buckets, one set for each volume. A process that asks faster than the bucket fills
waits for a token, first come, first served; one that hangs up meanwhile takes no token.
Ordinary pods (some probes and hooks every second, restarts) stay far below the limits.
*/

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep_until};

/// The paces of a volume.
#[derive(Debug)]
pub(crate) struct Paces {
    /// Connections. A container's probes and hooks come here until it is on its filesystem, at most some every second.
    pub(crate) connections: Pace,
    /// `run` and `hold`: each takes the runtime's, a disk's and the API server's time. A container makes one at each start.
    pub(crate) work: Pace,
    /// Lines in the agent's log about what its processes do.
    pub(crate) lines: Lines,
}

/// A token bucket for callers that wait.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: u32,
    /// When the bucket is full, if no process takes a token until then.
    full: AsyncMutex<Instant>,
}

/// A token bucket for lines of a log: lines beyond it are left out and counted.
#[derive(Debug)]
pub(crate) struct Lines {
    every: Duration,
    burst: u32,
    state: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    full: Instant,
    left_out: u64,
}

// === impl Paces ===

impl Default for Paces {
    fn default() -> Self {
        Self {
            connections: Pace::new(Duration::from_millis(50), 128),
            work: Pace::new(Duration::from_secs(2), 16),
            lines: Lines::new(Duration::from_secs(30), 16),
        }
    }
}

// === impl Pace ===

impl Pace {
    fn new(every: Duration, burst: u32) -> Self {
        let full = AsyncMutex::new(Instant::now());
        Self { every, burst, full }
    }

    /// Takes a token as soon as there is one.
    pub(crate) async fn pass(&self) {
        let mut full = self.full.lock().await;
        if let Some(there) = next(*full, self.every, self.burst) {
            sleep_until(there).await;
        }
        *full = (*full).max(Instant::now()) + self.every;
    }
}

// === impl Lines ===

impl Lines {
    fn new(every: Duration, burst: u32) -> Self {
        let full = Instant::now();
        let state = Mutex::new(Written { full, left_out: 0 });
        Self { every, burst, state }
    }

    /// Whether a line may be written now: how many were left out since the last one, and `None` if this is one of them.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if next(state.full, self.every, self.burst).is_some_and(|there| there > now) {
            state.left_out += 1;
            return None;
        }
        state.full = state.full.max(now) + self.every;
        Some(std::mem::take(&mut state.left_out))
    }
}

/// When there is a token. `None` where clocks do not reach back so far: at once.
fn next(full: Instant, every: Duration, burst: u32) -> Option<Instant> {
    (full + every).checked_sub(every * burst)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn passed(pace: &Pace, number: u32) -> Duration {
        let begun = Instant::now();
        for _ in 0..number {
            pace.pass().await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn i18_who_asks_in_a_loop_waits_and_nobody_does_at_an_honest_pace() {
        let paces = Paces::default();
        let pace = &paces.work;
        // A burst, and what was lost by it is there again after a rest.
        assert_eq!(passed(pace, pace.burst).await, Duration::ZERO);
        assert_eq!(passed(pace, 3).await, pace.every * 3);
        advance(pace.every * pace.burst * 10).await;
        assert_eq!(passed(pace, pace.burst).await, Duration::ZERO);
        assert_eq!(passed(pace, 1).await, pace.every);

        // Three probes and a hook every second.
        advance(SECOND * 3600).await;
        for _ in 0..3600 {
            assert_eq!(passed(&paces.connections, 4).await, Duration::ZERO);
            advance(SECOND).await;
        }
    }

    /// Else a process that connects and hangs up would make later ones wait.
    #[tokio::test(start_paused = true)]
    async fn i18_who_hangs_up_takes_no_token() {
        let pace = Pace::new(SECOND, 1);
        pace.pass().await;
        for _ in 0..1000 {
            tokio::select! {
                biased;
                () = pace.pass() => panic!("there was a token"),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(passed(&pace, 1).await, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn i18_lines_that_are_left_out_are_counted() {
        let lines = Lines::new(SECOND, 3);
        let written: Vec<_> = (0..10).map(|_| lines.next()).collect();
        assert_eq!(written[..3], [Some(0); 3]);
        assert_eq!(written[3..], [None; 7]);
        advance(SECOND).await;
        assert_eq!([lines.next(), lines.next()], [Some(7), None]);
        advance(SECOND * 100).await;
        let written: Vec<_> = (0..4).map(|_| lines.next()).collect();
        assert_eq!(written, [Some(1), Some(0), Some(0), None]);
    }
}
