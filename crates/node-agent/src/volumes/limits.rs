/*!
How fast processes of a pod may make the agent work, and how much of that it logs: one set of token
buckets for each volume.

A process that asks faster than the bucket fills waits for a token. Ordinary pods (some probes and
hooks every second, restarts) stay far below the limits.
*/

use std::time::Duration;

use crate::rate_limit::{LogLimit, TokenBucket};

/// The limits of a volume.
#[derive(Debug)]
pub(crate) struct PeerLimits {
    /// Connections. A container's probes and hooks connect until it is on its filesystem, at most
    /// some every second.
    pub(crate) connections: TokenBucket,
    /// `run`, `hold` and requests about kept files: each takes the runtime's, a disk's or the API
    /// server's time. A container makes one at each start, and users make few.
    pub(crate) work: TokenBucket,
    /// Lines in the agent's log about what its processes do.
    pub(crate) log_lines: LogLimit,
}

// === impl PeerLimits ===

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections: TokenBucket::new(Duration::from_millis(50), 128),
            work: TokenBucket::new(Duration::from_secs(2), 16),
            log_lines: LogLimit::new(Duration::from_secs(30), 16),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::rate_limit::passed;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn i18_a_pod_that_asks_in_a_loop_waits_and_one_at_an_honest_pace_does_not() {
        let limits = PeerLimits::default();
        let bucket = &limits.work;
        let (every, burst) = bucket.limits();
        // A burst, and what was lost by it is there again after a rest.
        assert_eq!(passed(bucket, burst).await, Duration::ZERO);
        assert_eq!(passed(bucket, 3).await, every * 3);
        advance(every * burst * 10).await;
        assert_eq!(passed(bucket, burst).await, Duration::ZERO);
        assert_eq!(passed(bucket, 1).await, every);

        // Three probes and a hook every second.
        advance(SECOND * 3600).await;
        for _ in 0..3600 {
            assert_eq!(passed(&limits.connections, 4).await, Duration::ZERO);
            advance(SECOND).await;
        }
    }
}
