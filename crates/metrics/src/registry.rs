//! Registers metrics as the catalogue names them, and encodes them for scrapers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::{Metric, PREFIX, catalogue};

/// Media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry, shared by the code that registers metrics and the server of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

/// Names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

struct Computed {
    metric: Metric,
    values: Box<dyn Fn() -> Vec<(Labels, i64)> + Send + Sync>,
}

// === impl Metrics ===

impl Metrics {
    /// A registry with [`catalogue::BUILD_INFO`] of this version.
    pub fn new(version: &str) -> Self {
        let metrics = Self(Arc::new(Mutex::new(Registry::with_prefix(PREFIX))));
        let version = version.to_owned();
        metrics.register_computed(&catalogue::BUILD_INFO, move || {
            vec![(vec![("version", version.clone())], 1)]
        });
        metrics
    }

    /// Registers a metric under its name in the catalogue, with its help text.
    pub fn register(&self, metric: &Metric, measured: impl prometheus_client::registry::Metric) {
        // The registry puts a full stop at the end of help texts.
        let help = metric.help.trim().trim_end_matches('.');
        self.lock().register(metric.name, help, measured);
    }

    /// Registers a gauge whose values are computed at each scrape: a number for each set of labels.
    pub fn register_computed(
        &self,
        metric: &Metric,
        values: impl Fn() -> Vec<(Labels, i64)> + Send + Sync + 'static,
    ) {
        let computed = Computed {
            metric: *metric,
            values: Box::new(values),
        };
        self.lock().register_collector(Box::new(computed));
    }

    /// The text format of OpenMetrics 1.0.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.lock())?;
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Computed ===

impl Collector for Computed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let values = (self.values)();
        if values.is_empty() {
            return Ok(());
        }
        let Metric { name, kind, help, .. } = self.metric;
        let mut metric = encoder.encode_descriptor(name, help.trim(), None, kind)?;
        for (labels, value) in values {
            let value = ConstGauge::new(value);
            if labels.is_empty() {
                value.encode(metric)?;
                return Ok(());
            }
            value.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computed")
            .field("metric", &self.metric)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_computed_at_each_scrape() {
        let metrics = Metrics::new("1.2.3");
        let length = Arc::new(Mutex::new(0));
        let shared = Arc::clone(&length);
        metrics.register_computed(&catalogue::QUEUE_LENGTH, move || {
            let length = *shared.lock().unwrap();
            (0..length)
                .map(|n| (vec![("kind", format!("k{n}"))], n))
                .collect()
        });
        metrics.register_computed(&catalogue::LEADER, || vec![(Vec::new(), 1)]);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("stoppablecontainer_build_info{version=\"1.2.3\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("stoppablecontainer_leader 1\n"), "{text}");
        assert!(!text.contains("queue_length"), "{text}");
        *length.lock().unwrap() = 2;
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("stoppablecontainer_queue_length{kind=\"k1\"} 1\n"),
            "{text}"
        );
        let help = "# HELP stoppablecontainer_queue_length Objects that wait for a reconciliation, after an event.\n";
        assert!(text.contains(help), "{text}");
    }
}
