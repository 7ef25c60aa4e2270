//! What takes the time in a burst: the steps of its objects next to those of plain pods, and what
//! the programs of the product did.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use crate::journal::{Role, State};
use crate::measured::{Burst, Report, Spent, Step, Work, quantile, text};
use crate::meters::{METERS, PUBLISH, UNPUBLISH};
use crate::rounds::series;

/// Columns of the tables of steps: their headings, and the names of the series.
const STARTS: &[(&str, &str)] = &[
    ("plain pods", series::BURST_PLAIN_START),
    ("first starts", series::BURST_FIRST),
    ("starts again", series::BURST_AGAIN),
];
const STOPS: &[(&str, &str)] = &[
    ("plain pods, deleted", series::BURST_PLAIN_STOP),
    ("stops", series::BURST_STOP),
];
/// Columns of the table of work.
const WORK: &[(&str, &str)] = &[
    ("first start", series::BURST_FIRST),
    ("start again", series::BURST_AGAIN),
    ("stop", series::BURST_STOP),
];
/// A step of every object of an operation. Another watch shows its end, so that may come first, and
/// then the step is not seen.
const STEPS: &[(&str, Role, State)] = &[
    (series::BURST_PLAIN_START, Role::PlainPod, State::Scheduled),
    (series::BURST_PLAIN_STOP, Role::PlainPod, State::Deleting),
    (series::BURST_FIRST, Role::Consumer, State::Ready),
    (series::BURST_AGAIN, Role::Consumer, State::Ready),
    (series::BURST_STOP, Role::Consumer, State::Deleting),
];
/// What every object of an operation needs.
const NEEDED: &[(&str, &str)] = &[
    (series::BURST_FIRST, PUBLISH),
    (series::BURST_AGAIN, PUBLISH),
    (series::BURST_STOP, UNPUBLISH),
];

/// Fails if the report has bursts, and lacks a step of most objects or the work for one.
pub(crate) fn check(report: &Report) -> Result<()> {
    for (name, role, state) in STEPS {
        let Some(samples) = report.series(name).map(|series| series.samples.len()) else {
            continue;
        };
        let what = text(*role, *state);
        let found = report.burst(name).and_then(|burst| step(burst, &what));
        let found = found.map_or(0, |step| step.samples.len());
        ensure!(
            2 * found >= samples,
            "{name}: {samples} objects, and \"{what}\" of {found}"
        );
    }
    for (name, what) in NEEDED {
        if report.series(name).is_none() {
            continue;
        }
        let work = work(report, name).with_context(|| format!("{name}: the report has no work"))?;
        let count = work.spent.get(*what).map_or(0.0, |spent| spent.count);
        ensure!(
            count >= f64::from(work.objects),
            "{name}: {} objects, and {count} times \"{what}\"",
            work.objects
        );
    }
    Ok(())
}

/// The tables, in Markdown. Empty without bursts.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = String::new();
    for (title, columns) in [("Starts", STARTS), ("Stops and deletions", STOPS)] {
        let rows = rows(report, columns);
        if !rows.is_empty() {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "\n{title} in a burst of {}, by step: p50 and p90 since its request.\n",
                report.burst
            );
            table(&mut text, "step", columns, &rows);
        }
    }
    let rows = rows_of_work(report);
    if !rows.is_empty() {
        let _ = writeln!(
            text,
            "\nWhat the product's programs did in these bursts, per object: how often, and the mean time.\n"
        );
        table(&mut text, "program", WORK, &rows);
    }
    text
}

/// Writes a table with a column for the names of its rows.
fn table(text: &mut String, first: &str, columns: &[(&str, &str)], rows: &[(String, Vec<String>)]) {
    let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
    let _ = writeln!(text, "| {first} | {} |", headings.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
    for (name, cells) in rows {
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
}

/// Rows of a table of steps, in the order of their latest medians. A plain pod and a consumer pod
/// share their rows. A step that most objects do not have has no cell.
fn rows(report: &Report, columns: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let mut rows = BTreeMap::<String, (f64, Vec<String>)>::new();
    for (index, (_, name)) in columns.iter().enumerate() {
        let objects = report.series(name).map_or(0, |series| series.samples.len());
        let steps = report.burst(name).into_iter().flat_map(|burst| &burst.steps);
        for step in steps.filter(|step| 2 * step.samples.len() >= objects) {
            let [p50, p90] = [50, 90].map(|percent| quantile(&step.samples, percent));
            let empty = || (p50, vec![String::new(); columns.len()]);
            let (latest, cells) = rows.entry(row(&step.what)).or_insert_with(empty);
            *latest = latest.max(p50);
            cells[index] = format!("{p50:.2} s, {p90:.2} s");
        }
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b));
    rows.into_iter().map(|(what, (_, cells))| (what, cells)).collect()
}

/// The name of the row of a step.
fn row(what: &str) -> String {
    let plain = what.strip_prefix("plain pod ");
    let state = plain.or_else(|| what.strip_prefix("consumer pod "));
    state.map_or_else(
        || what.to_owned(),
        |state| format!("plain or consumer pod {state}"),
    )
}

/// Rows of the table of work. What no operation needed has none.
fn rows_of_work(report: &Report) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    for meter in METERS {
        let cells = WORK.iter().map(|(_, name)| {
            let work = work(report, name)?;
            per_object(*work.spent.get(meter.what)?, work.objects)
        });
        let cells: Vec<_> = cells.collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            rows.push((meter.what.to_owned(), cells.collect()));
        }
    }
    rows
}

/// How often an object needed something, and the mean time.
fn per_object(spent: Spent, objects: u32) -> Option<String> {
    if objects == 0 || spent.count <= 0.0 {
        return None;
    }
    let (often, mean) = (spent.count / f64::from(objects), spent.seconds / spent.count);
    let mean = if mean < 1.0 {
        format!("{:.1} ms", mean * 1000.0)
    } else {
        format!("{mean:.2} s")
    };
    Some(format!("{often:.1} × {mean}"))
}

fn step<'a>(burst: &'a Burst, what: &str) -> Option<&'a Step> {
    burst.steps.iter().find(|step| step.what == what)
}

fn work<'a>(report: &'a Report, series: &str) -> Option<&'a Work> {
    report.work.iter().find(|work| work.series == series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::Recorder;

    fn stops() -> Recorder {
        let mut recorder = Recorder::default();
        for (name, role, seconds) in [
            (series::BURST_PLAIN_STOP, Role::PlainPod, 1.0),
            (series::BURST_STOP, Role::Consumer, 2.0),
        ] {
            recorder.add(name, None, 3.0);
            let steps = [(State::Deleting, seconds), (State::Gone, 3.0)];
            let steps = steps.map(|(state, seconds)| ((role, state), seconds));
            recorder.add_burst_steps(name, steps.into());
        }
        recorder
    }

    fn report(recorder: Recorder) -> Report {
        recorder.report(BTreeMap::new(), String::new(), 1)
    }

    fn unpublished(count: f64) -> BTreeMap<String, Spent> {
        BTreeMap::from([(UNPUBLISH.to_owned(), Spent { count, seconds: 0.01 })])
    }

    #[test]
    fn plain_pods_are_next_to_consumers() {
        let mut recorder = stops();
        recorder.add_work(series::BURST_STOP, 2, unpublished(4.0));
        let tables = tables(&report(recorder));
        let rows: Vec<_> = tables.lines().filter(|line| line.starts_with("| ")).collect();
        let expected = [
            "| step | plain pods, deleted | stops |",
            "| plain or consumer pod asked to end | 1.00 s, 1.00 s | 2.00 s, 2.00 s |",
            "| plain or consumer pod deleted | 3.00 s, 3.00 s | 3.00 s, 3.00 s |",
            "| program | first start | start again | stop |",
            "| agent: NodeUnpublishVolume |  |  | 2.0 × 2.5 ms |",
        ];
        assert_eq!(rows, expected);
        assert!(super::tables(&report(Recorder::default())).is_empty());
    }

    #[test]
    fn most_objects_have_their_steps_and_each_needs_calls() {
        let without_work = check(&report(stops())).unwrap_err().to_string();
        assert!(without_work.contains("no work"), "{without_work}");
        let mut recorder = stops();
        recorder.add_work(series::BURST_STOP, 2, unpublished(1.0));
        let too_few = check(&report(recorder)).unwrap_err().to_string();
        assert!(too_few.contains("2 objects, and 1 times"), "{too_few}");
        let mut recorder = stops();
        recorder.add_work(series::BURST_STOP, 2, unpublished(2.0));
        check(&report(recorder)).unwrap();
        let mut recorder = Recorder::default();
        recorder.add(series::BURST_PLAIN_STOP, None, 3.0);
        let no_step = check(&report(recorder)).unwrap_err().to_string();
        assert!(no_step.contains("plain pod asked to end"), "{no_step}");
    }
}
