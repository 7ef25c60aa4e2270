//! The tables of the measurements, with their goals.

use std::fmt::Write;

use serde::Deserialize;

use crate::bench::page::Circumstances;

/// The most that the product's webhook may add to the p99 of a creation: a factor, or milliseconds.
const GOAL: (f64, f64) = (1.05, 5.0);

const MEGABYTE: f64 = 1e6;

/// What `admission-load` measured. Times are in milliseconds, memory in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    circumstances: Circumstances,
    rss_before: f64,
    rss_peak: f64,
    direct: Vec<Direct>,
    creations: Vec<Creations>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Direct {
    connections: usize,
    kept_alive: bool,
    #[serde(flatten)]
    times: Times,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Creations {
    clients: usize,
    mode: String,
    variant: String,
    #[serde(flatten)]
    times: Times,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    requests: usize,
    failures: usize,
    per_second: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// The tables of a run.
pub(super) fn render(run: &Measured) -> String {
    let mut text = format!(
        "{}\nResident memory of the operator: {:.0} MB before the load, {:.0} MB at most.\n\n",
        run.circumstances.text(),
        run.rss_before / MEGABYTE,
        run.rss_peak / MEGABYTE
    );
    text += "| connections to the webhook | reviews | failures | per second | p50 | p90 | p99 |\n";
    text += "|---|---|---|---|---|---|---|\n";
    for direct in &run.direct {
        let kind = if direct.kept_alive {
            "kept alive"
        } else {
            "one for each review"
        };
        let _ = writeln!(
            text,
            "| {}, {kind} | {} |",
            direct.connections,
            direct.times.cells()
        );
    }
    text += "\n| clients that create pods | webhook | pods | failures | per second | p50 | p90 | p99 | p99 to that \
             without |\n";
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for part in &run.creations {
        let without = run.creations.iter().find(|other| {
            (other.clients, other.mode.as_str(), other.variant.as_str())
                == (part.clients, part.mode.as_str(), "none")
        });
        let mode = if part.mode == "dryRun" {
            "dry run"
        } else {
            "stored"
        };
        let ratio = without.filter(|_| part.variant != "none");
        let ratio = ratio.map(|without| part.compared(without)).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {}, {mode} | {} | {} | {ratio} |",
            part.clients,
            part.variant,
            part.times.cells()
        );
    }
    text
}

// === impl Creations ===

impl Creations {
    /// The p99 in comparison, and whether it misses its goal, which only the product has.
    fn compared(&self, without: &Self) -> String {
        let (with, without) = (self.times.p99, without.times.p99);
        let is_met = with <= without * GOAL.0 || with <= without + GOAL.1;
        let mark = if self.variant == "product" && !is_met {
            " **MISSED**"
        } else {
            ""
        };
        format!("{:.2}{mark}", with / without)
    }
}

// === impl Times ===

impl Times {
    fn cells(&self) -> String {
        format!(
            "{} | {} | {:.0} | {:.2} ms | {:.2} ms | {:.2} ms",
            self.requests, self.failures, self.per_second, self.p50, self.p90, self.p99
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(product: f64) -> Measured {
        let times = |p99: f64| json!({ "requests": 10, "failures": 0, "perSecond": 5.0, "p50": 1.0, "p90": 2.0, "p99": p99 });
        let with = |mut value: Value, more: Value| {
            let fields = more.as_object().unwrap().clone();
            value.as_object_mut().unwrap().extend(fields);
            value
        };
        let part = |variant: &str, p99| {
            with(
                times(p99),
                json!({ "clients": 50, "mode": "dryRun", "variant": variant }),
            )
        };
        let value = json!({
            "circumstances": { "date": "2026-12-01", "kubernetes": "v1.34.1", "kernel": "6.12", "processors": 2 },
            "rssBefore": 1e7, "rssPeak": 2e7,
            "direct": [with(times(3.0), json!({ "connections": 10, "keptAlive": true }))],
            "creations": [part("none", 100.0), part("reference", 200.0), part("product", product)],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_the_product_has_a_goal() {
        for (p99, cell) in [
            (104.0, "| 1.04 |"),
            (105.0, "| 1.05 |"),
            (120.0, "| 1.20 **MISSED** |"),
        ] {
            let text = render(&run(p99));
            let of = |variant: &str| {
                let part = format!("| 50, dry run | {variant} |");
                text.lines()
                    .find(|line| line.starts_with(&part))
                    .unwrap()
                    .to_owned()
            };
            assert!(of("product").ends_with(cell), "{text}");
            assert!(of("reference").ends_with("| 2.00 |"), "{text}");
            assert!(of("none").ends_with("|  |"), "{text}");
        }
    }
}
