/*!
The one rate limiter of the agent, a token bucket: for processes of pods, for lines in the log that
they cause, and for bearer tokens that scrapers send.
*/

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep_until};

/// A token bucket: `burst` tokens when it is full, and a new one `every` so often.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    every: Duration,
    burst: u32,
    /// When the bucket is full again, if no caller takes a token until then.
    full_at: Mutex<Instant>,
    /// Held by the caller that waits for the next token.
    queue: AsyncMutex<()>,
}

/// Limits lines of a log: lines beyond the limit are left out and counted.
#[derive(Debug)]
pub(crate) struct LogLimit {
    bucket: TokenBucket,
    left_out: AtomicU64,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A bucket that is full.
    pub(crate) fn new(every: Duration, burst: u32) -> Self {
        Self {
            every,
            burst,
            full_at: Mutex::new(Instant::now()),
            queue: AsyncMutex::default(),
        }
    }

    /// Takes a token as soon as there is one; first come, first served. A caller that stops waiting
    /// takes none.
    pub(crate) async fn take(&self) {
        let _turn = self.queue.lock().await;
        while let Err(there) = self.try_take() {
            sleep_until(there).await;
        }
    }

    /// Takes a token if there is one.
    ///
    /// # Errors
    /// With the time when there will be one.
    pub(crate) fn try_take(&self) -> Result<(), Instant> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Where clocks do not reach back so far there is a token.
        let there = (*full_at + self.every).checked_sub(self.every * self.burst);
        if let Some(there) = there.filter(|there| *there > now) {
            return Err(there);
        }
        *full_at = (*full_at).max(now) + self.every;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn limits(&self) -> (Duration, u32) {
        (self.every, self.burst)
    }
}

// === impl LogLimit ===

impl LogLimit {
    pub(crate) fn new(every: Duration, burst: u32) -> Self {
        let bucket = TokenBucket::new(every, burst);
        Self {
            bucket,
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now: how many were left out since the last one, and `None` if
    /// this is one of them.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.bucket.try_take().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// How long `number` tokens took.
#[cfg(test)]
pub(crate) async fn passed(bucket: &TokenBucket, number: u32) -> Duration {
    let begun = Instant::now();
    for _ in 0..number {
        bucket.take().await;
    }
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Else a process that connects and hangs up would make later ones wait.
    #[tokio::test(start_paused = true)]
    async fn i18_who_hangs_up_takes_no_token() {
        let bucket = TokenBucket::new(SECOND, 1);
        bucket.take().await;
        for _ in 0..1000 {
            tokio::select! {
                biased;
                () = bucket.take() => panic!("there was a token"),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(passed(&bucket, 1).await, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn i18_lines_that_are_left_out_are_counted() {
        let lines = LogLimit::new(SECOND, 3);
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
