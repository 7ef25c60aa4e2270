//! What was measured, as JSON. Times are in seconds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::journal::{Role, State};

/// Samples of one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    /// The operation.
    pub(crate) name: String,
    /// The operation of plain pods that it is compared with.
    pub(crate) reference: Option<String>,
    /// In the order of the rounds.
    pub(crate) samples: Vec<f64>,
}

/// A step of first starts, and when each of them reached it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The object and its state.
    pub(crate) what: String,
    /// Seconds since the request.
    pub(crate) samples: Vec<f64>,
}

/// Collects samples.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// In the order in which they were first recorded.
    series: Vec<Series>,
    steps: BTreeMap<(Role, State), Vec<f64>>,
    counts: BTreeMap<String, u32>,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Names and values of what the cluster is.
    pub(crate) cluster: BTreeMap<String, String>,
    /// Day of the run in UTC, as in 2026-01-31.
    pub(crate) date: String,
    /// Number of objects of a burst.
    pub(crate) burst: u32,
    /// One for each operation.
    pub(crate) series: Vec<Series>,
    /// In the order of their medians.
    pub(crate) first_start: Vec<Step>,
    /// The highest number of each kind of thing that one operation needed.
    pub(crate) counts: BTreeMap<String, u32>,
}

// === impl Recorder ===

impl Recorder {
    /// Adds a sample.
    pub(crate) fn add(&mut self, name: &str, reference: Option<&str>, seconds: f64) {
        if let Some(series) = self.series.iter_mut().find(|series| series.name == name) {
            series.samples.push(seconds);
            return;
        }
        self.series.push(Series {
            name: name.to_owned(),
            reference: reference.map(str::to_owned),
            samples: vec![seconds],
        });
    }

    /// Adds the steps of a first start.
    pub(crate) fn add_steps(&mut self, steps: BTreeMap<(Role, State), f64>) {
        for (step, seconds) in steps {
            self.steps.entry(step).or_default().push(seconds);
        }
    }

    /// Adds how many of something an operation needed.
    pub(crate) fn count(&mut self, what: &str, number: u32) {
        let most = self.counts.entry(what.to_owned()).or_default();
        *most = number.max(*most);
    }

    /// The report.
    pub(crate) fn report(self, cluster: BTreeMap<String, String>, date: String, burst: u32) -> Report {
        let steps = self.steps.into_iter().map(|((role, state), samples)| Step {
            what: text(role, state),
            samples,
        });
        let mut first_start: Vec<_> = steps.collect();
        first_start.sort_by(|a, b| quantile(&a.samples, 50).total_cmp(&quantile(&b.samples, 50)));
        Report {
            cluster,
            date,
            burst,
            series: self.series,
            first_start,
            counts: self.counts,
        }
    }
}

// === impl Report ===

impl Report {
    /// Reads a report.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
    }

    /// Writes the report.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// The series of an operation.
    pub(crate) fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }
}

/// A quantile in percent: the smallest sample that is not below this share of all samples. 0
/// without samples.
pub(crate) fn quantile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

fn text(role: Role, state: State) -> String {
    let role = match role {
        Role::PlainPod => "plain pod",
        Role::Placeholder => "placeholder pod",
        Role::Provider => "provider pod",
        Role::Consumer => "consumer pod",
        Role::Instance => "instance",
        Role::Object => "StoppableContainer",
    };
    let state = match state {
        State::Created => "created",
        State::Scheduled => "scheduled",
        State::Running => "running",
        State::Ready => "ready",
        State::FilesystemReady => "has its filesystem",
        State::Settled => "as requested, with its provider",
        State::Stopped => "stopped",
        State::Gone => "deleted",
    };
    format!("{role} {state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_the_order_of_their_medians() {
        let mut recorder = Recorder::default();
        for ready in [9.0, 0.1, 8.0] {
            recorder.add_steps(BTreeMap::from([
                ((Role::Provider, State::Ready), ready),
                ((Role::Consumer, State::Created), 2.0),
            ]));
        }
        let report = recorder.report(BTreeMap::new(), String::new(), 0);
        let steps: Vec<_> = report.first_start.iter().map(|step| step.what.as_str()).collect();
        assert_eq!(steps, ["consumer pod created", "provider pod ready"]);
    }

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        let found: Vec<_> = [1, 50, 75, 99, 100]
            .map(|percent| quantile(&samples, percent))
            .into();
        assert_eq!(found, [1.0, 2.0, 3.0, 4.0, 4.0]);
        assert!(quantile(&[], 50).abs() < f64::EPSILON);
    }
}
