/*!
Which tests of a process run at the same time: up to `E2E_CONCURRENT` (default 4) that share the
cluster, or one that has it for itself.

Tests that share the cluster come first. With more test threads than tests, all of them run at full
concurrency, and those that need the cluster for themselves run one after the other at the end,
instead of making the others wait for each of them.
*/

use std::sync::LazyLock;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Tests that share the cluster, at the same time. They mostly wait.
const CONCURRENT: u32 = 4;

static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let number = std::env::var("E2E_CONCURRENT").ok();
    Turns::new(
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or(CONCURRENT),
    )
});

struct Turns {
    slots: Semaphore,
    number: u32,
    /// Tests that share the cluster and have not ended.
    sharing: watch::Sender<usize>,
}

/// The turn of a test, until it is dropped.
pub(crate) struct Turn<'a> {
    _slots: SemaphorePermit<'a>,
    _sharing: Option<Sharing<'a>>,
}

struct Sharing<'a>(&'a watch::Sender<usize>);

/// Waits for the turn of a test that shares the cluster.
pub(crate) async fn share() -> Turn<'static> {
    TURNS.share().await
}

/// Waits for the turn of a test that has the cluster for itself. Makes the file that `E2E_ALONE`
/// names, if it names one: from then on the machine has time for something else.
pub(crate) async fn have() -> Turn<'static> {
    let turn = TURNS.have().await;
    if let Some(path) = std::env::var_os("E2E_ALONE")
        && let Err(error) = std::fs::File::create(path)
    {
        eprintln!("the file of E2E_ALONE cannot be made: {error}");
    }
    turn
}

// === impl Turns ===

impl Turns {
    fn new(number: u32) -> Self {
        let number = number.max(1);
        Self {
            slots: Semaphore::new(usize::try_from(number).unwrap_or(1)),
            number,
            sharing: watch::Sender::new(0),
        }
    }

    async fn share(&self) -> Turn<'_> {
        self.sharing.send_modify(|tests| *tests += 1);
        let sharing = Sharing(&self.sharing);
        let slots = self.slots.acquire().await.expect("the semaphore is never closed");
        Turn {
            _slots: slots,
            _sharing: Some(sharing),
        }
    }

    async fn have(&self) -> Turn<'_> {
        // The sender is in `self`.
        let _ = self.sharing.subscribe().wait_for(|tests| *tests == 0).await;
        let slots = self.slots.acquire_many(self.number).await;
        Turn {
            _slots: slots.expect("the semaphore is never closed"),
            _sharing: None,
        }
    }
}

// === impl Sharing ===

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|tests| *tests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn is_ready<T>(turn: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        turn.now_or_never()
    }

    #[test]
    fn some_share_the_cluster_at_the_same_time() {
        let turns = Turns::new(2);
        let first = turns.share().now_or_never().unwrap();
        let _second = turns.share().now_or_never().unwrap();
        let mut third = pin!(turns.share());
        assert!(is_ready(&mut third).is_none());
        drop(first);
        assert!(is_ready(&mut third).is_some());
    }

    #[test]
    fn one_has_the_cluster_for_itself_after_those_that_share_it() {
        let turns = Turns::new(2);
        let first = turns.share().now_or_never().unwrap();
        let mut alone = pin!(turns.have());
        assert!(is_ready(&mut alone).is_none());
        // A test that shares the cluster does not wait for one that wants it for itself.
        let second = turns.share().now_or_never().unwrap();
        drop(first);
        assert!(is_ready(&mut alone).is_none());
        drop(second);
        let alone = is_ready(&mut alone).unwrap();
        let (mut other, mut shared) = (pin!(turns.have()), pin!(turns.share()));
        assert!(is_ready(&mut shared).is_none());
        assert!(is_ready(&mut other).is_none());
        drop(alone);
        assert!(is_ready(&mut other).is_none(), "the one that shares comes first");
        drop(is_ready(&mut shared).unwrap());
        assert!(is_ready(&mut other).is_some());
    }
}
