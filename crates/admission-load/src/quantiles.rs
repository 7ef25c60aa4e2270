//! Many requests at a time, in a closed loop, and the quantiles of their times.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use scale_load::number;
use serde::Serialize;

/// Errors that are printed of a part.
const PRINTED: usize = 3;

/// Times of the requests of a part.
#[derive(Debug, Default)]
pub(crate) struct Times {
    seconds: Vec<f64>,
    failures: usize,
    wall: Duration,
}

/// What is written of them. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) requests: usize,
    pub(crate) failures: usize,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

/// Lets one client for each of `states` send its requests one after the other, `requests`
/// altogether. `send` gets the number of the request and the state of its client.
pub(crate) async fn closed_loop<S, F>(
    states: Vec<S>,
    requests: usize,
    send: impl Fn(usize, S) -> F + Clone + Send + 'static,
) -> Result<Times>
where
    S: Send + 'static,
    F: Future<Output = (S, Result<()>)> + Send + 'static,
{
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let clients = states.into_iter().map(|mut state| {
        let (next, send) = (next.clone(), send.clone());
        tokio::spawn(async move {
            let mut times = Times::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return times;
                }
                let sent = Instant::now();
                let result;
                (state, result) = send(number, state).await;
                match result {
                    Ok(()) => times.seconds.push(sent.elapsed().as_secs_f64()),
                    Err(error) => times.failed(&error),
                }
            }
        })
    });
    let mut all = Times::default();
    for times in join_all(clients.collect::<Vec<_>>()).await {
        all.add(times?);
    }
    all.wall = begin.elapsed();
    Ok(all)
}

// === impl Times ===

impl Times {
    fn failed(&mut self, error: &anyhow::Error) {
        self.failures += 1;
        if self.failures <= PRINTED {
            eprintln!("failed: {error:#}");
        }
    }

    /// Adds the requests of another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.seconds.extend(other.seconds);
        self.failures += other.failures;
        self.wall += other.wall;
    }

    pub(crate) fn measured(mut self) -> Measured {
        self.seconds.sort_by(f64::total_cmp);
        let quantile = |percent: usize| {
            let rank = (self.seconds.len() * percent).div_ceil(100).max(1);
            self.seconds.get(rank - 1).copied().unwrap_or_default() * 1e3
        };
        Measured {
            requests: self.seconds.len() + self.failures,
            failures: self.failures,
            per_second: number(self.seconds.len()) / self.wall.as_secs_f64(),
            p50: quantile(50),
            p90: quantile(90),
            p99: quantile(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_request_is_sent_once_and_failures_are_counted() {
        let send = |number: usize, seen: Vec<usize>| async move {
            tokio::task::yield_now().await;
            let result = if number.is_multiple_of(4) {
                Err(anyhow::anyhow!("refused"))
            } else {
                Ok(())
            };
            (seen, result)
        };
        let times = closed_loop(vec![Vec::new(); 7], 100, send).await.unwrap();
        let measured = times.measured();
        assert_eq!((measured.requests, measured.failures), (100, 25));
    }

    #[test]
    fn a_quantile_is_the_time_at_its_rank() {
        let times = Times {
            seconds: (1..=200).rev().map(|n| f64::from(n) / 1e3).collect(),
            failures: 0,
            wall: Duration::from_secs(2),
        };
        let measured = times.measured();
        let found = [measured.p50, measured.p90, measured.p99, measured.per_second].map(f64::round);
        assert!(
            found
                .iter()
                .zip([100.0, 180.0, 198.0, 100.0])
                .all(|(a, b)| (a - b).abs() < 0.5)
        );
    }
}
