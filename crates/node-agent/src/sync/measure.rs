/*!
Measures the kept filesystems of running consumers.

One at a time and at the lowest priority, each with pauses that grow with its own work: measuring
one takes no more than a small share of one processor, and one that takes long keeps the others
waiting for no longer than it takes.
*/

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::filesystem::usage::{self, Moment};
use crate::filesystem::{Filesystems, disk_low};

/// Shortest pause of a filesystem; the kubelet looks at the limits of other containers as often.
const PAUSE: Duration = Duration::from_secs(10);
/// A pause is at least this many times as long as the measurement before it: up to [`PAUSE`] before
/// the next filesystem, and up to [`LONGEST`] before the same one again.
const SHARE: u32 = 20;
/// Longest pause of a filesystem.
const LONGEST: Duration = Duration::from_mins(10);
/// Measures in rounds.
pub(crate) async fn follow(filesystems: Arc<Filesystems>) {
    let mut due = HashMap::<String, Instant>::new();
    loop {
        let round = Instant::now();
        let running = usage::running(&filesystems.volumes);
        due.retain(|uid, _| running.contains_key(uid));
        for (uid, record) in running {
            let began = Instant::now();
            if due.get(&uid).is_some_and(|due| began < *due) {
                continue;
            }
            usage::measure_and_report(&filesystems, &record, Moment::Running).await;
            let work = began.elapsed() * SHARE;
            due.insert(uid, Instant::now() + work.clamp(PAUSE, LONGEST));
            tokio::time::sleep(work.min(PAUSE)).await;
        }
        disk_low::warn(&filesystems).await;
        tokio::time::sleep_until(round + PAUSE).await;
    }
}
