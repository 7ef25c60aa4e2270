//! The tables of a report, and the page that has them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::measured::{Report, Series, quantile};
use crate::rounds::{counts, series};
use crate::{breakdown, plot, section};

/// The line before what this program writes.
const BEGIN: &str = "<!-- begin: written by cargo xtask bench report -->";

/// Highest ratios of medians to those of plain pods.
const GOALS: &[(&str, f64)] = &[
    (series::FIRST, 1.5),
    (series::FIRST_QUICK, 1.5),
    (series::AGAIN, 1.1),
    (series::STOP, 1.1),
    (series::BURST_AGAIN, 1.15),
    (series::BURST_STOP, 1.15),
];
/// Highest numbers that an operation needs.
const LIMITS: &[(&str, u32)] = &[(counts::PODS, 1), (counts::START, 8), (counts::STOP, 10)];
/// What a start again is compared with, and the goals for how much longer its median may be, in
/// seconds.
const REFERENCES: &[(&str, f64)] = &[(series::PLAIN_START, 0.4), (series::VOLUME_START, 0.1)];
/// A reference whose p90 is this many times its p10 does not allow a verdict.
const NOISE: f64 = 1.5;

/// Plots: names of their files, titles, and the series in them.
const PLOTS: &[(&str, &str, &[&str])] = &[
    (
        "starts",
        "Starts",
        &[series::PLAIN_START, series::AGAIN, series::FIRST],
    ),
    ("stops", "Stops", &[series::PLAIN_STOP, series::STOP]),
    (
        "bursts",
        "Starts in a burst",
        &[
            series::BURST_PLAIN_START,
            series::BURST_AGAIN,
            series::BURST_FIRST,
        ],
    ),
];

/// Fails if an operation needed more of something than allowed, or if something was not counted or
/// not measured.
pub(crate) fn check(report: &Report) -> Result<()> {
    for (what, limit) in LIMITS {
        let found = report.counts.get(*what);
        let found = found.with_context(|| format!("the report does not count {what}"))?;
        ensure!(found <= limit, "{what}: {found}, and not at most {limit}");
    }
    for (reference, _) in REFERENCES {
        let series = report.series(reference);
        series.with_context(|| format!("the report does not have \"{reference}\""))?;
    }
    breakdown::check(report)
}

/// The tables, in Markdown.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = String::from(
        "| operation | n | p50 | p90 | p99 | p50 / plain pod | goal |\n|---|---|---|---|---|---|---|\n",
    );
    for series in &report.series {
        let (ratio, goal) = verdict(report, series);
        let [p50, p90, p99] = [50, 90, 99].map(|percent| quantile(&series.samples, percent));
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {p50:.2} s | {p90:.2} s | {p99:.2} s | {ratio} | {goal} |",
            series.name,
            series.samples.len()
        );
    }
    text.push_str(&differences(report));
    text.push_str(
        "\nA first start, with the times since the request:\n\n| step | p50 | p90 |\n|---|---|---|\n",
    );
    for step in &report.first_start {
        let [p50, p90] = [50, 90].map(|percent| quantile(&step.samples, percent));
        let _ = writeln!(text, "| {} | {p50:.2} s | {p90:.2} s |", step.what);
    }
    text.push_str(&breakdown::tables(report));
    text.push_str("\n| the most that one operation needed | | limit |\n|---|---|---|\n");
    for (what, limit) in LIMITS {
        let found = report.counts.get(*what).copied().unwrap_or_default();
        let _ = writeln!(text, "| {what} | {found} | {limit} |");
    }
    text
}

/// How much longer a start again takes than the start of each reference. Earlier reports do not
/// have all of them.
fn differences(report: &Report) -> String {
    let references = REFERENCES
        .iter()
        .filter_map(|(name, goal)| Some((report.series(name)?, *goal)));
    let references: Vec<_> = references.collect();
    let Some(again) = report.series(series::AGAIN) else {
        return String::new();
    };
    if references.len() < REFERENCES.len() {
        return String::new();
    }
    let mut text = format!("\n| {}, p50 | more | goal |\n|---|---|---|\n", series::AGAIN);
    for (reference, goal) in references {
        let more = quantile(&again.samples, 50) - quantile(&reference.samples, 50);
        let goal = judged(reference, more <= goal, &format!("≤ {goal} s"));
        let _ = writeln!(text, "| than {} | {more:.2} s | {goal} |", reference.name);
    }
    text
}

/// The ratio of the medians, and whether the goal is met.
fn verdict(report: &Report, of: &Series) -> (String, String) {
    let reference = of.reference.as_deref().and_then(|name| report.series(name));
    let Some(reference) = reference else {
        return (String::new(), String::new());
    };
    let ratio = quantile(&of.samples, 50) / quantile(&reference.samples, 50);
    let goal = GOALS
        .iter()
        .find(|(name, _)| *name == of.name)
        .map(|(_, goal)| goal);
    let goal = goal.map_or(String::new(), |goal| {
        judged(reference, ratio <= *goal, &format!("≤ {goal}"))
    });
    (format!("{ratio:.2}"), goal)
}

/// A goal with its verdict, if the times of the reference allow one.
fn judged(reference: &Series, is_met: bool, goal: &str) -> String {
    let spread = quantile(&reference.samples, 90) / quantile(&reference.samples, 10);
    // The spread of a burst is that of its queue.
    if spread > NOISE && !reference.name.starts_with(series::BURST) {
        format!("{goal}: too noisy to judge, plain pods vary by {spread:.1}")
    } else if is_met {
        goal.to_owned()
    } else {
        format!("{goal} **MISSED**")
    }
}

/// Writes the plots into a directory, and the tables into the page.
///
/// # Errors
/// If the page lacks the lines that enclose the tables, or a file cannot be written.
pub(crate) fn write(report: &Report, page: &Path, plots: &Path) -> Result<()> {
    fs::create_dir_all(plots).with_context(|| format!("making {}", plots.display()))?;
    let directory = plots.file_name().unwrap_or_default().to_string_lossy();
    let mut written = format!(
        "Measured on {} with bursts of {} objects:\n\n",
        report.date, report.burst
    );
    for (name, value) in &report.cluster {
        let _ = writeln!(written, "- {name}: {value}");
    }
    written.push('\n');
    for (name, title, names) in PLOTS {
        let series: Vec<_> = names.iter().filter_map(|name| report.series(name)).collect();
        if series.is_empty() {
            continue;
        }
        plot::write(&plots.join(format!("{name}.svg")), title, &series)?;
        let _ = writeln!(
            written,
            "![{title}: shares of all samples by time]({directory}/{name}.svg)\n"
        );
    }
    written.push_str(&tables(report));
    section::write(page, BEGIN, &written)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::measured::Recorder;

    fn report(plain: &[f64], again: f64) -> Report {
        let mut recorder = Recorder::default();
        for seconds in plain {
            recorder.add(series::PLAIN_START, None, *seconds);
        }
        recorder.add(series::AGAIN, Some(series::PLAIN_START), again);
        for (what, limit) in LIMITS {
            recorder.count(what, *limit);
        }
        recorder.report(BTreeMap::new(), "2026-01-31".to_owned(), 2)
    }

    fn row(report: &Report) -> String {
        let tables = tables(report);
        let row = tables.lines().find(|line| line.contains(series::AGAIN));
        row.unwrap().to_owned()
    }

    #[test]
    fn a_goal_is_met_or_missed() {
        assert!(row(&report(&[1.0], 1.1)).ends_with("| 1.10 | ≤ 1.1 |"));
        assert!(row(&report(&[1.0], 1.2)).ends_with("| 1.20 | ≤ 1.1 **MISSED** |"));
    }

    #[test]
    fn a_noisy_reference_allows_no_verdict() {
        assert!(row(&report(&[1.0, 2.0], 9.0)).contains("too noisy to judge, plain pods vary by 2.0"));
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        let mut report = report(&[1.0], 1.0);
        assert!(
            check(&report)
                .unwrap_err()
                .to_string()
                .contains(series::VOLUME_START)
        );
        report.series.push(Series {
            name: series::VOLUME_START.to_owned(),
            reference: None,
            samples: vec![0.95],
        });
        let tables = tables(&report);
        assert!(
            tables.contains("| than plain pod: start | 0.00 s | ≤ 0.4 s |"),
            "{tables}"
        );
        check(&report).unwrap();
        let (what, limit) = LIMITS[0];
        report.counts.insert(what.to_owned(), limit + 1);
        assert!(check(&report).unwrap_err().to_string().contains(what));
        report.counts.clear();
        assert!(check(&report).is_err());
    }

    #[test]
    fn the_page_has_the_tables_and_the_plots() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        fs::write(&page, format!("before\n{BEGIN}\nold\n<!-- end -->\nafter\n")).unwrap();
        let plots = directory.path().join("plots");
        write(&report(&[1.0, 1.1], 1.0), &page, &plots).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n") && !text.contains("old"));
        assert!(text.contains("(plots/starts.svg)") && !text.contains("bursts.svg"));
        let plot = fs::read_to_string(plots.join("starts.svg")).unwrap();
        assert!(plot.contains(series::AGAIN), "{plot}");
    }
}
