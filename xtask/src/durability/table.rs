//! The table of what was lost, as Markdown.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{Row, Trial};
use crate::target::Target;
use crate::workspace::Workspace;

/// The table.
pub(super) struct Table {
    pub(super) text: String,
    /// Whether every row has been measured.
    pub(super) complete: bool,
    /// Number of lost synced files in all rows.
    pub(super) lost: u32,
}

/// Renders the rows with their trials.
pub(super) fn render(rows: &[Row], trials: &dyn Fn(&Row) -> Result<Vec<Trial>>) -> Result<Table> {
    let mut table = Table {
        text: "| what happens while it writes | trials | fsynced files lost | other files lost | running again after, median (longest) |\n\
               |---|---|---|---|---|\n"
            .to_owned(),
        complete: true,
        lost: 0,
    };
    for row in rows {
        let trials = trials(row)?;
        if trials.is_empty() {
            table.complete = false;
            writeln!(table.text, "| {} | 0 | not measured | | |", row.event)?;
            continue;
        }
        let sum = |of: fn(&Trial) -> u32| trials.iter().map(of).sum::<u32>();
        let lost = sum(|trial| trial.lost);
        table.lost += lost;
        writeln!(
            table.text,
            "| {} | {} | **{lost}** of {} | {} of {} | {} |",
            row.event,
            trials.len(),
            sum(|trial| trial.synced),
            sum(|trial| trial.unsynced_lost),
            sum(|trial| trial.unsynced),
            time(&trials)
        )?;
    }
    Ok(table)
}

/// The versions and the node of the measurement.
pub(super) fn machine(target: &Target<'_>) -> Result<String> {
    let field = |path: &str| {
        let path = format!("jsonpath={{.items[0].status.{path}}}");
        target.kubectl_output(&["get", "nodes", "-o", &path])
    };
    let memory = field("capacity.memory")?;
    let kibibytes: f64 = memory
        .trim_end_matches("Ki")
        .parse()
        .context("reading the node's memory")?;
    Ok(format!(
        "StoppableContainer {}, Kubernetes {}, {}, Linux {};\n\
         a node with {} processors and {:.0} GiB of memory.\n",
        Workspace::version(),
        field("nodeInfo.kubeletVersion")?,
        field("nodeInfo.containerRuntimeVersion")?.replace("://", " "),
        field("nodeInfo.kernelVersion")?,
        field("capacity.cpu")?,
        kibibytes / 1024.0 / 1024.0
    ))
}

fn time(trials: &[Trial]) -> String {
    let mut seconds: Vec<_> = trials.iter().filter_map(|trial| trial.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    match (seconds.get(seconds.len() / 2), seconds.last()) {
        (Some(median), Some(longest)) => format!("{median:.1} s ({longest:.1} s)"),
        _ => "never stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(lost: u32, seconds: Option<f64>) -> Trial {
        Trial {
            synced: 100,
            lost,
            unsynced: 30,
            unsynced_lost: 2,
            seconds,
        }
    }

    #[test]
    fn rows_are_sums_and_losses_are_counted() {
        let rows = [Row {
            name: "row",
            test: "test",
            event: "event",
        }];
        let three = [(0, 3.0), (1, 1.0), (0, 2.0)].map(|(lost, seconds)| trial(lost, Some(seconds)));
        let table = render(&rows, &|_| Ok(three.to_vec())).unwrap();
        assert!(table.complete);
        assert_eq!(table.lost, 1);
        let line = table.text.lines().last().unwrap();
        assert_eq!(line, "| event | 3 | **1** of 300 | 6 of 90 | 2.0 s (3.0 s) |");
    }

    #[test]
    fn a_row_without_trials_is_no_zero() {
        let rows = [Row {
            name: "row",
            test: "test",
            event: "event",
        }];
        let table = render(&rows, &|_| Ok(Vec::new())).unwrap();
        assert!(!table.complete);
        assert!(table.text.ends_with("| event | 0 | not measured | | |\n"));
    }
}
