//! What the operator counts, in one registry that is passed down (nothing global).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds. A decision from the cache takes microseconds; one that waits for it up
/// to a second.
const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 0.5, 1.0, 3.0];

/// The registry, shared by the code that registers metrics and the admin server.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

/// Counters of the webhook.
#[derive(Clone)]
pub struct AdmissionMetrics {
    reviews: Family<Review, Counter>,
    seconds: Family<Review, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Review {
    path: &'static str,
    outcome: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers what the webhook counts.
    pub fn admission(&self) -> AdmissionMetrics {
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let metrics = AdmissionMetrics {
            reviews: Family::default(),
            seconds,
        };
        self.register(|registry| {
            let reviews = metrics.reviews.clone();
            registry.register(
                "admission_reviews",
                "Admission reviews by path and outcome",
                reviews,
            );
            let seconds = metrics.seconds.clone();
            registry.register(
                "admission_review_seconds",
                "Time from the first byte of an admission review to its answer",
                seconds,
            );
        });
        metrics
    }

    /// Lets a part of the operator register its metrics; their names get the prefix
    /// `stoppablecontainer_`.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix("stoppablecontainer"));
    }

    /// The text format of Prometheus (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

// === impl AdmissionMetrics ===

impl AdmissionMetrics {
    /// Counts one answer.
    pub fn observe(&self, path: &'static str, outcome: &'static str, took: Duration) {
        let labels = Review { path, outcome };
        self.reviews.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
