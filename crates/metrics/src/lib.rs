/*!
The metrics of all programs.

[`catalogue`] lists them with their labels and their meaning, and is the source of both the help
texts and `docs/metrics.md`. [`Metrics`] registers and encodes them. The code that measures is in
the programs.
*/

#![forbid(unsafe_code)]

pub mod catalogue;
mod differences;
mod registry;

pub use differences::differences;
pub use registry::{CONTENT_TYPE, Labels, Metrics};

use prometheus_client::metrics::MetricType;

/// Prefix of the names of all metrics.
pub const PREFIX: &str = "stoppablecontainer";

/// What is known of a metric before it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name without [`PREFIX`] and without the `_total` of counters.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Names of the labels, each with its values.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it measures, as sentences.
    pub help: &'static str,
}

// === impl Metric ===

impl Metric {
    /// The name that scrapers see.
    pub fn exported_name(&self) -> String {
        let suffix = if matches!(self.kind, MetricType::Counter) {
            "_total"
        } else {
            ""
        };
        format!("{PREFIX}_{}{suffix}", self.name)
    }
}
