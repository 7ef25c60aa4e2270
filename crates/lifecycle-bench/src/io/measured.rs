//! What was measured, as JSON. Times are nanoseconds of one operation.

use std::collections::BTreeMap;

use io_load::Case;
use serde::{Deserialize, Serialize};

/// A case with a number of layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Name of the case.
    pub(crate) case: String,
    /// Number of layers of the image.
    pub(crate) layers: u32,
    /// In the plain pod, by round.
    pub(crate) plain: Vec<f64>,
    /// In the StoppableContainer, by round.
    pub(crate) ours: Vec<f64>,
}

/// What a process of the product takes while the container runs and the product has nothing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Idle {
    /// The process.
    pub(crate) what: String,
    /// Its working set in bytes.
    pub(crate) memory: Option<u64>,
    /// Nanoseconds of a processor in a second.
    pub(crate) nano_cores: Option<u64>,
}

/// Collects times.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    rows: Vec<Row>,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IoReport {
    /// Names and values of what the cluster is.
    pub(crate) cluster: BTreeMap<String, String>,
    /// Day of the run in UTC, as in 2026-01-31.
    pub(crate) date: String,
    /// In the order of the cases.
    pub(crate) rows: Vec<Row>,
    /// Empty if the kubelet did not report it.
    pub(crate) idle: Vec<Idle>,
}

// === impl Recorder ===

impl Recorder {
    /// Adds the times of a round.
    pub(crate) fn add(&mut self, case: Case, layers: u32, plain: f64, ours: f64) {
        let mut rows = self.rows.iter_mut();
        let found = rows.find(|row| row.case == case.name() && row.layers == layers);
        if let Some(row) = found {
            row.plain.push(plain);
            row.ours.push(ours);
            return;
        }
        self.rows.push(Row {
            case: case.name().to_owned(),
            layers,
            plain: vec![plain],
            ours: vec![ours],
        });
    }

    /// The report.
    pub(crate) fn report(self, cluster: BTreeMap<String, String>, date: String, idle: Vec<Idle>) -> IoReport {
        let mut rows = self.rows;
        let place = |row: &Row| Case::ALL.iter().position(|case| case.name() == row.case);
        rows.sort_by_key(|row| (place(row), row.layers));
        IoReport {
            cluster,
            date,
            rows,
            idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_cases_and_layers() {
        let mut recorder = Recorder::default();
        for (case, layers) in [
            (Case::Stat, 1),
            (Case::Getpid, 60),
            (Case::Getpid, 10),
            (Case::Stat, 1),
        ] {
            recorder.add(case, layers, 1.0, 2.0);
        }
        let report = recorder.report(BTreeMap::new(), String::new(), Vec::new());
        let rows = report.rows.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.case.as_str(), row.layers, row.ours.len()))
            .collect();
        assert_eq!(rows, [("getpid", 10, 1), ("getpid", 60, 1), ("stat", 1, 2)]);
    }
}
