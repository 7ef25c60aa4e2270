/*!
What the agent counts and measures while it works. Names, labels and meaning are in the catalogue of
the crate `metrics`.

Metrics that are read at a scrape (usage, disks, volumes) are in `metrics`.
*/

use std::time::Duration;

use ::metrics::{Metrics, catalogue};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tonic::Code;

/// Upper bounds in seconds. A call is local, a sync takes as long as the disk needs.
const BUCKETS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Counters and histograms of the agent. Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    csi_calls: Family<Called, Counter>,
    csi_call_seconds: Family<Method, Histogram, fn() -> Histogram>,
    preparations: Family<Outcome, Counter>,
    moves: Family<Outcome, Counter>,
    move_seconds: Histogram,
    syncs: Family<Outcome, Counter>,
    sync_seconds: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Called {
    method: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

const DONE: &str = "done";
const FAILED: &str = "failed";

// === impl Counters ===

impl Counters {
    /// Registers the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS);
        let counters = Self {
            csi_calls: Family::default(),
            csi_call_seconds: Family::new_with_constructor(constructor),
            preparations: Family::default(),
            moves: Family::default(),
            move_seconds: constructor(),
            syncs: Family::default(),
            sync_seconds: constructor(),
        };
        // `increase()` of Prometheus sees the first failure only if the counter was there before.
        for failures in [&counters.moves, &counters.syncs] {
            drop(failures.get_or_create(&Outcome { result: FAILED }));
        }
        metrics.register(&catalogue::CSI_CALLS, counters.csi_calls.clone());
        metrics.register(&catalogue::CSI_CALL_SECONDS, counters.csi_call_seconds.clone());
        metrics.register(&catalogue::PREPARATIONS, counters.preparations.clone());
        metrics.register(&catalogue::MOVES, counters.moves.clone());
        metrics.register(&catalogue::MOVE_SECONDS, counters.move_seconds.clone());
        metrics.register(&catalogue::SYNCS, counters.syncs.clone());
        metrics.register(&catalogue::SYNC_SECONDS, counters.sync_seconds.clone());
        counters
    }

    /// Counts a call of the kubelet.
    pub(crate) fn csi_call(&self, method: &'static str, code: Code, took: Duration) {
        let code = format!("{code:?}");
        self.csi_calls.get_or_create(&Called { method, code }).inc();
        let seconds = took.as_secs_f64();
        self.csi_call_seconds
            .get_or_create(&Method { method })
            .observe(seconds);
    }

    /// Counts an attempt to prepare a filesystem.
    pub(crate) fn prepared(&self, result: &'static str) {
        self.preparations.get_or_create(&Outcome { result }).inc();
    }

    /// Counts a container that was moved.
    pub(crate) fn moved(&self, took: Duration) {
        self.moves.get_or_create(&Outcome { result: DONE }).inc();
        self.move_seconds.observe(took.as_secs_f64());
    }

    /// Counts a container that could not be moved.
    pub(crate) fn not_moved(&self) {
        self.moves.get_or_create(&Outcome { result: FAILED }).inc();
    }

    /// Counts the sync of a filesystem.
    pub(crate) fn synced(&self, is_durable: bool, took: Duration) {
        let result = if is_durable { DONE } else { FAILED };
        self.syncs.get_or_create(&Outcome { result }).inc();
        self.sync_seconds.observe(took.as_secs_f64());
    }
}
