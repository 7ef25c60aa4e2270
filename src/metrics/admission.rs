//! Answers of the webhook.

use std::time::Duration;

use metrics::{Metrics, catalogue};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds. A decision from the cache takes microseconds; one that waits for it up
/// to a second.
const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 0.5, 1.0, 3.0];

/// Counters of the webhook.
#[derive(Clone)]
pub struct AdmissionMetrics {
    reviews: Family<Review, Counter>,
    seconds: Family<Review, Histogram, fn() -> Histogram>,
    denials: Family<Denial, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Review {
    path: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Denial {
    path: &'static str,
    reason: &'static str,
}

// === impl AdmissionMetrics ===

impl AdmissionMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS);
        let admission = Self {
            reviews: Family::default(),
            seconds: Family::new_with_constructor(constructor),
            denials: Family::default(),
        };
        metrics.register(&catalogue::ADMISSION_REVIEWS, admission.reviews.clone());
        metrics.register(&catalogue::ADMISSION_REVIEW_SECONDS, admission.seconds.clone());
        metrics.register(&catalogue::ADMISSION_DENIALS, admission.denials.clone());
        admission
    }

    /// Counts one answer.
    pub fn observe(&self, path: &'static str, outcome: &'static str, took: Duration) {
        let labels = Review { path, outcome };
        self.reviews.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts one denial.
    pub fn denied(&self, path: &'static str, reason: &'static str) {
        self.denials.get_or_create(&Denial { path, reason }).inc();
    }
}
