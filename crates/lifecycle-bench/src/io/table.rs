//! The tables of a report of input and output, in Markdown.

use std::fmt::Write;

use io_load::Case;

use super::compare::{Comparison, GOAL, Verdict};
use super::measured::{Idle, IoReport, Row};
use crate::measured::quantile;

/// Highest memory, in bytes, and highest nanoseconds of a processor in a second, of the node agent.
const AGENT: (u64, u64) = (25_000_000, 1_000_000);

/// What the page has between its lines.
pub(super) fn page(report: Option<&IoReport>) -> String {
    let Some(report) = report else {
        return "The command has not recorded results yet.\n".to_owned();
    };
    let mut text = format!("Measured on {}:\n\n", report.date);
    for (name, value) in &report.cluster {
        // Writing to a String does not fail.
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push('\n');
    text + &tables(report)
}

/// The tables.
pub(super) fn tables(report: &IoReport) -> String {
    let mut text = String::from(
        "| operation | layers | n | plain pod | StoppableContainer | speed | 95 % interval | spread | verdict |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        text.push_str(&line(row));
    }
    text.push_str(&summary(report));
    if !report.idle.is_empty() {
        text.push_str(
            "\nMemory (working set) and processor time of the product while the container runs:\n\n\
             | process | memory | goal | processor | goal |\n|---|---|---|---|---|\n",
        );
        for idle in &report.idle {
            text.push_str(&idle_line(idle));
        }
    }
    text
}

fn line(row: &Row) -> String {
    let what = Case::named(&row.case).map_or_else(|| row.case.clone(), |case| case.what().to_owned());
    let compared = Comparison::of(&row.plain, &row.ours);
    let interval = compared
        .interval
        .map(|(low, high)| format!("{low:.2} to {high:.2}"))
        .unwrap_or_default();
    format!(
        "| {what} | {} | {} | {} | {} | {:.2} | {interval} | {:.0} % | {} |\n",
        row.layers,
        row.ours.len(),
        time(quantile(&row.plain, 50)),
        time(quantile(&row.ours, 50)),
        compared.speed,
        compared.spread * 100.0,
        match compared.verdict() {
            Verdict::Met => "ok",
            Verdict::Missed => "**MISSED**",
            Verdict::Noisy => "too noisy to judge",
            Verdict::Few => "too few rounds to judge",
        }
    )
}

/// How many rows have which verdict.
fn summary(report: &IoReport) -> String {
    let verdicts = report
        .rows
        .iter()
        .map(|row| Comparison::of(&row.plain, &row.ours).verdict());
    let verdicts: Vec<_> = verdicts.collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    format!(
        "\nGoal: a speed of {GOAL} of the plain pod's. Rows: {} meet it, {} miss it, and {} allow no verdict.\n",
        count(Verdict::Met),
        count(Verdict::Missed),
        count(Verdict::Noisy) + count(Verdict::Few)
    )
}

fn idle_line(idle: &Idle) -> String {
    let (memory, processor) = if idle.what == "node agent" {
        (Some(AGENT.0), Some(AGENT.1))
    } else {
        (None, None)
    };
    let megabytes = |bytes: u64| decimal(bytes, 1_000_000, 1) + " MB";
    let percent = |nanoseconds: u64| decimal(nanoseconds, 10_000_000, 2) + " %";
    let cells = |value: Option<u64>, goal: Option<u64>, text: &dyn Fn(u64) -> String| {
        let missed = value.zip(goal).is_some_and(|(value, goal)| value > goal);
        let mark = if missed { " **MISSED**" } else { "" };
        format!(
            "{} | {}{mark}",
            value.map_or_else(|| "not reported".to_owned(), text),
            goal.map(|goal| format!("≤ {}", text(goal))).unwrap_or_default()
        )
    };
    format!(
        "| {} | {} | {} |\n",
        idle.what,
        cells(idle.memory, memory, &megabytes),
        cells(idle.nano_cores, processor, &percent)
    )
}

/// A number in a larger unit, rounded down to this many decimals.
fn decimal(number: u64, unit: u64, decimals: u32) -> String {
    let scale = 10_u64.pow(decimals);
    let width = decimals as usize;
    let fraction = number % unit * scale / unit;
    format!("{}.{fraction:0width$}", number / unit)
}

/// Nanoseconds with three digits.
fn time(nanoseconds: f64) -> String {
    let (number, unit) = match nanoseconds {
        ..1e3 => (nanoseconds, "ns"),
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    let decimals = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(speeds: &[f64]) -> IoReport {
        let row = Row {
            case: "getpid".to_owned(),
            layers: 10,
            plain: vec![100.0; speeds.len()],
            ours: speeds.iter().map(|speed| 100.0 / speed).collect(),
        };
        IoReport {
            cluster: BTreeMap::from([("kernel".to_owned(), "6.18".to_owned())]),
            date: "2026-01-31".to_owned(),
            rows: vec![row],
            idle: Vec::new(),
        }
    }

    fn row(speeds: &[f64]) -> String {
        let tables = tables(&report(speeds));
        tables.lines().nth(2).unwrap().to_owned()
    }

    #[test]
    fn a_row_has_its_verdict() {
        assert_eq!(
            row(&[1.0; 6]),
            "| getpid | 10 | 6 | 100 ns | 100 ns | 1.00 | 1.00 to 1.00 | 0 % | ok |"
        );
        assert!(row(&[0.8; 6]).ends_with("| 0.80 | 0.80 to 0.80 | 0 % | **MISSED** |"));
        assert!(row(&[1.0, 0.9, 1.0, 1.0, 1.0, 1.0]).ends_with("| too noisy to judge |"));
        assert!(row(&[1.0]).ends_with("| 1.00 |  | 0 % | too few rounds to judge |"));
    }

    #[test]
    fn the_rows_are_counted() {
        let text = tables(&report(&[0.8; 6]));
        assert!(
            text.contains("0 meet it, 1 miss it, and 0 allow no verdict"),
            "{text}"
        );
    }

    #[test]
    fn a_page_without_measurements_says_so() {
        assert_eq!(page(None), "The command has not recorded results yet.\n");
        let text = page(Some(&report(&[1.0; 6])));
        assert!(
            text.contains("2026-01-31") && text.contains("- kernel: 6.18"),
            "{text}"
        );
        assert!(!text.contains("working set"), "{text}");
    }

    #[test]
    fn an_idle_agent_has_goals() {
        let line = |memory, nano_cores| {
            idle_line(&Idle {
                what: "node agent".to_owned(),
                memory,
                nano_cores,
            })
        };
        assert_eq!(
            line(Some(12_340_000), Some(500_000)),
            "| node agent | 12.3 MB | ≤ 25.0 MB | 0.05 % | ≤ 0.10 % |\n"
        );
        let missed = line(Some(25_000_001), None);
        assert!(missed.contains("≤ 25.0 MB **MISSED** | not reported"), "{missed}");
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [1.234, 123.4, 12_345.0, 2e6, 3.5e9].map(time);
        assert_eq!(texts, ["1.23 ns", "123 ns", "12.3 µs", "2.00 ms", "3.50 s"]);
    }
}
