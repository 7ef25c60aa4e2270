//! What was measured, as JSON. Times are in seconds.

use std::collections::BTreeMap;

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

/// A step of an operation, and when each object reached it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The object and its state.
    pub(crate) what: String,
    /// Seconds since the request.
    pub(crate) samples: Vec<f64>,
}

/// The steps of an operation in bursts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Burst {
    /// The operation: the name of its series.
    pub(crate) series: String,
    /// In the order of their medians.
    pub(crate) steps: Vec<Step>,
}

/// What the programs of the product did in all bursts of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The operation: the name of its series.
    pub(crate) series: String,
    /// Number of objects of all its bursts.
    pub(crate) objects: u32,
    /// By the names of [`crate::meters`].
    pub(crate) spent: BTreeMap<String, Spent>,
}

/// How often a program did something, and how long all of that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) count: f64,
    pub(crate) seconds: f64,
}

/// When the objects of an operation reached its steps.
type Times = BTreeMap<(Role, State), Vec<f64>>;

/// Collects samples.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// In the order in which they were first recorded.
    series: Vec<Series>,
    steps: Times,
    bursts: Vec<(String, Times)>,
    work: Vec<Work>,
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
    /// One for each operation. Earlier reports do not have them.
    #[serde(default)]
    pub(crate) bursts: Vec<Burst>,
    /// One for each operation of StoppableContainers. Earlier reports do not have them.
    #[serde(default)]
    pub(crate) work: Vec<Work>,
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
        extend(&mut self.steps, steps);
    }

    /// Adds the steps of an object in a burst.
    pub(crate) fn add_burst_steps(&mut self, series: &str, steps: BTreeMap<(Role, State), f64>) {
        if let Some((_, times)) = self.bursts.iter_mut().find(|(name, _)| name == series) {
            extend(times, steps);
            return;
        }
        let mut times = Times::new();
        extend(&mut times, steps);
        self.bursts.push((series.to_owned(), times));
    }

    /// Adds what the programs of the product did in a burst.
    pub(crate) fn add_work(&mut self, series: &str, objects: u32, spent: BTreeMap<String, Spent>) {
        let Some(work) = self.work.iter_mut().find(|work| work.series == series) else {
            self.work.push(Work {
                series: series.to_owned(),
                objects,
                spent,
            });
            return;
        };
        work.objects += objects;
        for (what, more) in spent {
            let spent = work.spent.entry(what).or_default();
            spent.count += more.count;
            spent.seconds += more.seconds;
        }
    }

    /// Adds how many of something an operation needed.
    pub(crate) fn count(&mut self, what: &str, number: u32) {
        let most = self.counts.entry(what.to_owned()).or_default();
        *most = number.max(*most);
    }

    /// The report.
    pub(crate) fn report(self, cluster: BTreeMap<String, String>, date: String, burst: u32) -> Report {
        let bursts = self.bursts.into_iter();
        let bursts = bursts.map(|(series, times)| Burst {
            series,
            steps: in_order(times),
        });
        Report {
            cluster,
            date,
            burst,
            series: self.series,
            first_start: in_order(self.steps),
            bursts: bursts.collect(),
            work: self.work,
            counts: self.counts,
        }
    }
}

// === impl Report ===

impl Report {
    /// The series of an operation.
    pub(crate) fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// The steps of an operation in bursts.
    pub(crate) fn burst(&self, series: &str) -> Option<&Burst> {
        self.bursts.iter().find(|burst| burst.series == series)
    }
}

fn extend(times: &mut Times, steps: BTreeMap<(Role, State), f64>) {
    for (step, seconds) in steps {
        times.entry(step).or_default().push(seconds);
    }
}

/// The steps in the order of their medians.
fn in_order(times: Times) -> Vec<Step> {
    let steps = times.into_iter().map(|((role, state), samples)| Step {
        what: text(role, state),
        samples,
    });
    let mut steps: Vec<_> = steps.collect();
    steps.sort_by(|a, b| quantile(&a.samples, 50).total_cmp(&quantile(&b.samples, 50)));
    steps
}

/// A quantile in percent: the smallest sample that is not below this share of all samples. 0
/// without samples.
pub(crate) fn quantile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// The name of a step.
pub(crate) fn text(role: Role, state: State) -> String {
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
        State::RunRequested => "asked to run",
        State::StopRequested => "asked to stop",
        State::Deleting => "asked to end",
        State::Ended => "without running containers",
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
    fn bursts_of_an_operation_are_added_up() {
        let mut recorder = Recorder::default();
        for seconds in [1.0, 2.0] {
            recorder.add_burst_steps("stop", BTreeMap::from([((Role::Consumer, State::Gone), seconds)]));
            let spent = Spent { count: 3.0, seconds };
            recorder.add_work("stop", 2, BTreeMap::from([("sync".to_owned(), spent)]));
        }
        let report = recorder.report(BTreeMap::new(), String::new(), 2);
        assert_eq!(report.burst("stop").unwrap().steps[0].samples, [1.0, 2.0]);
        let [work] = report.work.as_slice() else {
            panic!("{:?}", report.work)
        };
        let expected = Spent {
            count: 6.0,
            seconds: 3.0,
        };
        assert_eq!((work.objects, work.spent["sync"]), (4, expected));
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
