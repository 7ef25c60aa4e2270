/*!
Reading bodies with a bound on their memory: each one's length, all of them together, and the time
that one may take. The same for the values that pods are decoded into, which are many times as large
as their text.

What counts is what has arrived, not what a header announces, so a client that announces much and
sends little takes nothing away from others.
*/

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use stoppablecontainer_api::MAX_POD_NODES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest body that is read, in bytes: what the API server's own library allows
/// (`controller-runtime`, `pkg/webhook/admission/http.go`). etcd's limit on objects is below it
/// even with old and new object in one review.
pub const BODY_LIMIT: usize = 7 * 1024 * 1024;

/// How long a body may take to arrive. The API server waits no longer than `timeoutSeconds` (3) for
/// the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of all bodies at a time. A review of an ordinary pod has about ten thousand.
const BUDGET: usize = 6 * BODY_LIMIT;

/// Values of all pods at a time: two of the largest, thousands of ordinary ones.
const VALUES: usize = 2 * MAX_POD_NODES;

/// Memory for bodies, and for what they are decoded into.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    values: Arc<Semaphore>,
}

/// Memory for the values of a pod; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Values(#[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);

/// A body; its memory counts until this is dropped.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body did not arrive within {} s, or there was no memory for it", TIMEOUT.as_secs())]
    Slow,
    #[error("the body is longer than {BODY_LIMIT} bytes")]
    Long,
    #[error("the body was cut off")]
    Broken(#[source] axum::Error),
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(BUDGET)),
            values: Arc::new(Semaphore::new(VALUES)),
        }
    }
}

impl Budget {
    /// Reads a whole body.
    pub(super) async fn read(&self, body: Body) -> Result<Bytes, BodyError> {
        tokio::time::timeout(TIMEOUT, self.collect(body))
            .await
            .unwrap_or(Err(BodyError::Slow))
    }

    /// Waits for the memory for a pod of so many values. One with more values than the bound of a
    /// pod is not decoded.
    pub(super) async fn values(&self, count: usize) -> Result<Values, BodyError> {
        let count = u32::try_from(count.min(VALUES)).unwrap_or(u32::MAX);
        let memory = self.values.clone().acquire_many_owned(count);
        let memory = tokio::time::timeout(TIMEOUT, memory)
            .await
            .map_err(|_| BodyError::Slow)?;
        Ok(Values(memory.ok()))
    }

    async fn collect(&self, mut body: Body) -> Result<Bytes, BodyError> {
        let mut bytes = Vec::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > BODY_LIMIT {
                return Err(BodyError::Long);
            }
            // Below the limit, so it fits; the semaphore is never closed, and an error would only
            // mean that nothing counts.
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            match (self.bytes.clone().acquire_many_owned(length).await, &mut memory) {
                (Ok(more), Some(memory)) => memory.merge(more),
                (Ok(more), None) => memory = Some(more),
                (Err(_), _) => {}
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes {
            bytes,
            _memory: memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn h24_memory_for_bodies_is_bounded_and_given_back() {
        let budget = Budget::default();
        let mut held = Vec::new();
        for _ in 0..BUDGET / BODY_LIMIT {
            held.push(budget.read(Body::from(vec![0; BODY_LIMIT])).await.unwrap());
        }
        assert!(matches!(budget.read(Body::from("x")).await, Err(BodyError::Slow)));
        held.pop();
        assert_eq!(budget.read(Body::from("x")).await.unwrap().bytes, b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn h24_memory_for_decoded_pods_is_bounded_and_given_back() {
        let budget = Budget::default();
        let first = budget.values(MAX_POD_NODES).await.unwrap();
        let _second = budget.values(MAX_POD_NODES).await.unwrap();
        assert!(matches!(budget.values(1).await, Err(BodyError::Slow)));
        drop(first);
        budget.values(1).await.unwrap();
    }
}
