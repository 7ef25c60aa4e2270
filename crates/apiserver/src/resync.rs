/*!
A slow resync: every watch begins anew with a list now and then.

A watch reports every change, unless a proxy, an API server or a cache between has a bug, and then
the change stays unknown for ever. The list heals that. It costs one paged read per kind; the
reconciliations after it compare the objects and write only where something differs.
*/

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};

/// Time between two lists, and how much longer it may be by chance: processes start together, and
/// their lists must not come together.
const EVERY: Duration = Duration::from_mins(20);
const SPREAD_SECONDS: u64 = 10 * 60;

/// The items of one watch after another, each made by `watch`. The next one begins when it is time,
/// or when the one before ended.
pub fn resynced<S, W>(watch: W) -> impl Stream<Item = S::Item>
where
    S: Stream,
    W: Fn() -> S,
{
    let watches = stream::unfold(watch, |watch| async move {
        let chance = RandomState::new().hash_one(0_u8) % SPREAD_SECONDS;
        let end = tokio::time::sleep(EVERY + Duration::from_secs(chance));
        Some((watch().take_until(end), watch))
    });
    watches.flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// An object whose last event was lost was never looked at again.
    #[tokio::test(start_paused = true)]
    async fn f14_a_watch_that_tells_nothing_begins_anew() {
        let made = AtomicU32::new(0);
        let watch = || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            stream::iter([number]).chain(stream::pending())
        };
        let mut items = std::pin::pin!(resynced(watch));
        let begin = Instant::now();
        assert_eq!(items.next().await, Some(0));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for number in 1..4 {
            let before = Instant::now();
            assert_eq!(items.next().await, Some(number));
            let waited = before.elapsed();
            let longest = EVERY + Duration::from_secs(SPREAD_SECONDS);
            assert!((EVERY..=longest).contains(&waited), "{waited:?}");
        }
    }
}
