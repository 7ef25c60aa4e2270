//! What was measured, in the form in which it is written.

use std::collections::BTreeMap;

use scale_load::metrics::{Sample, label};
use scale_load::number;
use serde::Serialize;

use crate::churn::Asked;
use crate::objects::Applies;

/// Everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) objects: usize,
    pub(crate) nodes: usize,
    pub(crate) foreign: usize,
    pub(crate) rate: u32,
    /// Resident memory in bytes.
    pub(crate) rss_empty: u64,
    pub(crate) rss_created_peak: u64,
    pub(crate) rss_idle: u64,
    pub(crate) rss_churn_peak: u64,
    pub(crate) applies: Applies,
    /// Until all new objects run.
    pub(crate) create_seconds: f64,
    /// Writes of a creation by verb and resource, until the new object has settled.
    pub(crate) creation_writes: BTreeMap<String, f64>,
    /// From the start of the operator until it has looked at all objects.
    pub(crate) restart_seconds: f64,
    pub(crate) restart_writes: f64,
    pub(crate) idle_seconds: u64,
    pub(crate) idle_writes: f64,
    /// Reconciliations during the stops and starts.
    pub(crate) reconcile: Quantiles,
    /// Share of the operator's writes during the stops and starts.
    pub(crate) conflict_share: f64,
    /// Writes that the API server counted during the stops and starts, of all clients.
    pub(crate) server_writes: BTreeMap<String, f64>,
    pub(crate) churn: Vec<Churn>,
}

/// Upper bounds in seconds: of the bucket of a histogram, or of samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Stops or starts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Churn {
    pub(crate) what: String,
    pub(crate) count: usize,
    pub(crate) per_second: f64,
    /// From the user's request to the status that shows it.
    pub(crate) seconds: Quantiles,
    pub(crate) writes_each: f64,
    /// The same by verb and resource.
    pub(crate) writes: BTreeMap<String, f64>,
}

// === impl Churn ===

impl Churn {
    pub(crate) fn of(what: &str, asked: &Asked, from: &Sample, to: &Sample) -> Self {
        let count = asked.seconds.len();
        let added = to.since(from);
        Self {
            what: what.to_owned(),
            count,
            per_second: number(count) / asked.total,
            seconds: Quantiles {
                p50: rank(&asked.seconds, 50),
                p99: rank(&asked.seconds, 99),
            },
            writes_each: added.writes() / number(count),
            writes: each(&added, count),
        }
    }
}

/// Writes by verb and resource, for each of `count` objects.
pub(crate) fn each(added: &Sample, count: usize) -> BTreeMap<String, f64> {
    let each = |(what, writes): (String, f64)| (what, writes / number(count));
    added.writes_by().into_iter().map(each).collect()
}

/// The quantiles of the reconciliations.
pub(crate) fn quantiles(sample: &Sample) -> Quantiles {
    let of = |quantile| sample.quantile("reconciliation_seconds", quantile);
    Quantiles {
        p50: of(0.5),
        p99: of(0.99),
    }
}

/// Writes that the API server counted between two samples, by verb and resource.
pub(crate) fn server_writes(before: &Sample, after: &Sample) -> BTreeMap<String, f64> {
    let mut writes = BTreeMap::new();
    let added = after.since(before);
    for (name, value) in added.of("apiserver_request_total", &[]) {
        let verb = label(name, "verb");
        if ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb) && value > 0.0 {
            let of = [label(name, "resource"), label(name, "subresource")].map(str::to_owned);
            let [resource, subresource] = of;
            let key = format!("{verb} {resource}/{subresource}");
            *writes.entry(key.trim_end_matches('/').to_owned()).or_default() += value;
        }
    }
    writes
}

fn rank(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}
