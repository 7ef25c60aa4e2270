//! The table of the measurements with its goals, and the document that has it.

use std::collections::BTreeMap;
use std::iter;
use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

use super::page::{self, Circumstances};

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Numbers of objects that the document has.
const SIZES: [u32; 2] = [1000, 5000];

const MEGABYTE: f64 = 1e6;

/// What `scale-load` measured. Times are in seconds, memory in bytes. A quantile above the largest
/// bucket of its histogram is null.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    objects: u32,
    nodes: u32,
    foreign: u32,
    rate: u32,
    rss_empty: f64,
    rss_created_peak: f64,
    rss_idle: f64,
    rss_churn_peak: f64,
    applies: Applies,
    create_seconds: f64,
    creation_writes: BTreeMap<String, f64>,
    restart_seconds: f64,
    idle_seconds: u32,
    idle_writes: f64,
    reconcile: Quantiles,
    conflict_share: f64,
    churn: Vec<Churn>,
    circumstances: Circumstances,
}

/// Per second.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Applies {
    ours: f64,
    pods: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Churn {
    what: String,
    per_second: f64,
    seconds: Quantiles,
    writes_each: f64,
    writes: BTreeMap<String, f64>,
}

/// A row: what is measured, its goal, how it is written, and its value.
struct Row {
    what: String,
    goal: Option<Goal>,
    unit: &'static str,
    digits: usize,
    value: fn(&Measured) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// The table, with a column for each run, and below it what the writes of a start and a stop are.
pub(super) fn render(runs: &[&Measured]) -> String {
    let sizes = runs.iter().map(|run| format!(" {} objects |", run.objects));
    let mut lines = vec![
        format!("| measured | goal |{}", sizes.collect::<String>()),
        format!("|---|---|{}", "---|".repeat(runs.len())),
    ];
    for row in rows() {
        let goal = row.goal.map(|goal| goal.text(row.unit)).unwrap_or_default();
        let cells = runs.iter().map(|run| format!(" {} |", row.cell(run)));
        lines.push(format!("| {} | {goal} |{}", row.what, cells.collect::<String>()));
    }
    for run in runs {
        lines.push(String::new());
        lines.push(format!(
            "{} objects: {} nodes, {} foreign pods and as many claims, {} stops or starts per second,",
            run.objects, run.nodes, run.foreign, run.rate
        ));
        lines.push(format!("idle for {} s.", run.idle_seconds));
        lines.push(run.circumstances.text());
        let creations = ("creations", &run.creation_writes);
        let churn = run.churn.iter().map(|churn| (churn.what.as_str(), &churn.writes));
        for (what, writes) in iter::once(creations).chain(churn) {
            let writes = writes.iter().map(|(what, each)| format!("{what} {each:.1}"));
            lines.push(format!("\nWrites of the {what}:\n"));
            lines.extend(writes.map(|write| format!("- {write}")));
        }
    }
    lines.join("\n") + "\n"
}

/// Writes the document with the sizes that have been measured, and names the others.
pub(super) fn document(
    workspace: &Workspace,
    progress: &Progress,
    file: impl Fn(u32) -> PathBuf,
) -> Result<()> {
    let (measured, missing): (Vec<_>, Vec<_>) = SIZES.into_iter().partition(|size| file(*size).is_file());
    if measured.is_empty() {
        progress.say(format!(
            "{} is unchanged: no run has been recorded",
            page::DOCUMENT
        ));
        return Ok(());
    }
    let runs = measured
        .into_iter()
        .map(|size| page::read(&file(size)))
        .collect::<Result<Vec<_>>>()?;
    let table = render(&runs.iter().collect::<Vec<_>>()) + &not_measured(&missing);
    page::write(workspace, progress, "bench scale", &table)
}

/// Says which sizes have no column.
fn not_measured(sizes: &[u32]) -> String {
    let lines = sizes
        .iter()
        .map(|size| format!("\nNo run with {size} objects has been recorded: **MISSED**.\n"));
    lines.collect()
}

fn rows() -> Vec<Row> {
    let row = |what: &str, goal, unit, digits, value| Row {
        what: what.to_owned(),
        goal,
        unit,
        digits,
        value,
    };
    vec![
        row("memory without objects", None, " MB", 0, |run| {
            Some(run.rss_empty / MEGABYTE)
        }),
        row("memory, idle", Some(Goal::AtMost(80.0)), " MB", 0, |run| {
            Some(run.rss_idle / MEGABYTE)
        }),
        row(
            "memory, peak during stops and starts",
            Some(Goal::AtMost(120.0)),
            " MB",
            0,
            |run| Some(run.rss_churn_peak / MEGABYTE),
        ),
        row(
            "memory, peak while all objects are created",
            None,
            " MB",
            0,
            |run| Some(run.rss_created_peak / MEGABYTE),
        ),
        row("writes per start", Some(Goal::AtMost(6.0)), "", 1, |run| {
            run.churn("starts").map(|churn| churn.writes_each)
        }),
        row("writes per stop", Some(Goal::AtMost(6.0)), "", 1, |run| {
            run.churn("stops").map(|churn| churn.writes_each)
        }),
        row("writes per creation", None, "", 1, |run| {
            Some(run.creation_writes.values().sum())
        }),
        row("writes while idle", Some(Goal::AtMost(0.0)), "", 0, |run| {
            Some(run.idle_writes)
        }),
        row("share of conflicts", Some(Goal::AtMost(1.0)), " %", 1, |run| {
            Some(run.conflict_share * 100.0)
        }),
        row("reconciliation, p50", None, " s", 3, |run| run.reconcile.p50),
        row("reconciliation, p99", Some(Goal::AtMost(1.0)), " s", 3, |run| {
            run.reconcile.p99
        }),
        row("start, p50", None, " s", 1, |run| {
            run.churn("starts")?.seconds.p50
        }),
        row("start, p99", None, " s", 1, |run| {
            run.churn("starts")?.seconds.p99
        }),
        row(
            "starts per second",
            Some(Goal::AtLeast(45.0 * 0.9)),
            "",
            1,
            |run| Some(run.churn("starts")?.per_second),
        ),
        row(
            "new operator until it has seen all objects",
            Some(Goal::AtMost(60.0)),
            " s",
            1,
            |run| Some(run.restart_seconds),
        ),
        row(
            "applies of StoppableContainers per second, as dry runs",
            Some(Goal::AtLeast(50.0)),
            "",
            0,
            |run| Some(run.applies.ours),
        ),
        row(
            "applies of pods with the same template, as dry runs",
            None,
            "",
            0,
            |run| Some(run.applies.pods),
        ),
        row("all objects created until all run", None, " s", 0, |run| {
            Some(run.create_seconds)
        }),
    ]
}

// === impl Measured ===

impl Measured {
    fn churn(&self, what: &str) -> Option<&Churn> {
        self.churn.iter().find(|churn| churn.what == what)
    }
}

// === impl Row ===

impl Row {
    fn cell(&self, run: &Measured) -> String {
        let Some(value) = (self.value)(run) else {
            return "**MISSED**: above the largest bucket".to_owned();
        };
        // A difference of nothing may be -0.
        let text = format!("{:.*}{}", self.digits, value + 0.0, self.unit);
        match self.goal {
            Some(goal) if !goal.is_met(value) => format!("{text} **MISSED**"),
            _ => text,
        }
    }
}

// === impl Goal ===

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}{unit}"),
            Self::AtLeast(least) => format!("≥ {least}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(change: impl FnOnce(&mut serde_json::Value)) -> Measured {
        let quantiles = json!({ "p50": 0.01, "p99": 0.5 });
        let churn = |what| json!({ "what": what, "perSecond": 44.0, "seconds": quantiles, "writesEach": 6.0, "writes": { "create pods": 1.0 } });
        let mut value = json!({
            "objects": 1000, "nodes": 100, "foreign": 10000, "rate": 45, "rssEmpty": 1e7, "rssCreatedPeak": 1e8,
            "rssIdle": 8e7, "applies": { "ours": 90.0, "pods": 200.0 }, "rssChurnPeak": 9e7, "createSeconds": 9.0, "creationWrites": { "create pods": 3.0 },
            "restartSeconds": 9.0, "idleSeconds": 60, "idleWrites": 0.0, "reconcile": quantiles,
            "conflictShare": 0.001, "churn": [churn("stops"), churn("starts")],
            "circumstances": { "date": "2026-12-01", "kubernetes": "v1.36.3", "kernel": "6.12", "processors": 2 },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn line(run: &Measured, begin: &str) -> String {
        let table = render(&[run]);
        table
            .lines()
            .find(|line| line.starts_with(begin))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_goal_that_is_met_is_not_marked() {
        assert!(!render(&[&measured(|_| ())]).contains("MISSED"));
    }

    #[test]
    fn a_size_that_was_not_measured_is_named() {
        assert_eq!(not_measured(&[]), "");
        assert!(not_measured(&[5000]).contains("No run with 5000 objects"));
    }

    #[test]
    fn a_goal_that_is_missed_is_marked() {
        let run = measured(|value| {
            value["idleWrites"] = json!(1.0);
            value["churn"][1]["perSecond"] = json!(3.0);
            value["reconcile"]["p99"] = json!(null);
        });
        assert_eq!(
            line(&run, "| writes while idle"),
            "| writes while idle | ≤ 0 | 1 **MISSED** |"
        );
        assert!(line(&run, "| starts per second").ends_with("3.0 **MISSED** |"));
        assert!(line(&run, "| reconciliation, p99").contains("MISSED"));
    }
}
