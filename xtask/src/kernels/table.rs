//! The section of `docs/portability.md` about kernels.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Series;
use crate::results;
use crate::test::Counts;
use crate::workspace::Workspace;

/// Name of the recorded values.
const NAME: &str = "kernels";
/// How the section names the command that writes it.
const COMMAND: &str = "cargo xtask test rootfs --kernel";

/// The last complete run under a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// The kernel's exact version, as `uname -r` prints it.
    pub release: String,
    /// Whether every test that ran passed, and the virtual machine came to its end.
    pub passed: bool,
    /// How many tests.
    pub counts: Counts,
    /// The day, as in 2026-01-31.
    pub date: String,
    /// What the tests said about the kernel.
    pub facts: Vec<String>,
}

/// Outcomes by series. A run of some of the kernels keeps those of the others.
type Outcomes = BTreeMap<String, Outcome>;

/// Records an outcome.
pub(super) fn record(workspace: &Workspace, series: Series, outcome: Outcome) -> Result<()> {
    let insert = |outcomes: &mut Outcomes| {
        outcomes.insert(series.to_string(), outcome);
    };
    results::update(workspace.root(), NAME, COMMAND, insert, render)
}

fn render(outcomes: &Outcomes) -> String {
    let mut text = String::from(
        "| series | kernel | last result | passed | failed | skipped | date (UTC) |\n|---|---|---|---|---|---|---|\n",
    );
    for series in Series::ALL {
        let Some(outcome) = outcomes.get(series.number()) else {
            let _ = writeln!(text, "| {series} | | not recorded | | | | |");
            continue;
        };
        let Counts {
            passed,
            failed,
            skipped,
        } = outcome.counts;
        let result = match (outcome.passed, failed) {
            (true, _) => "passed",
            (false, 0) => "**did not end**",
            (false, _) => "**failed**",
        };
        let _ = writeln!(
            text,
            "| {series} | {} | {result} | {passed} | {failed} | {skipped} | {} |",
            outcome.release, outcome.date
        );
    }
    let facts = Series::ALL.iter().flat_map(|series| {
        let outcome = outcomes.get(series.number());
        let facts = outcome.into_iter().flat_map(|outcome| &outcome.facts);
        facts.map(move |fact| (series, fact.replace('|', "\\|")))
    });
    for (at, (series, fact)) in facts.enumerate() {
        if at == 0 {
            text.push_str("\n| series | what the tests said about the kernel |\n|---|---|\n");
        }
        let _ = writeln!(text, "| {series} | {fact} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_has_the_recorded_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let document = fs::read_to_string(root.join(results::DOCUMENT)).unwrap();
        let text = render(&results::read(root, NAME).unwrap());
        assert!(
            document.contains(&text),
            "{} does not have this table:\n{text}",
            results::DOCUMENT
        );
    }

    #[test]
    fn rows_say_what_happened_or_that_nothing_is_recorded() {
        let outcome = |passed: bool, failed: u32| Outcome {
            release: "6.1.0-1-amd64".to_owned(),
            passed,
            counts: Counts {
                passed: 5,
                failed,
                skipped: 1,
            },
            date: "2026-01-31".to_owned(),
            facts: vec!["a socket: known".to_owned()],
        };
        let outcomes = [
            ("5.10", outcome(true, 0)),
            ("6.1", outcome(false, 2)),
            ("6.12", outcome(false, 0)),
        ];
        let text = render(
            &outcomes
                .map(|(series, outcome)| (series.to_owned(), outcome))
                .into(),
        );
        for expected in [
            "| 5.10 | 6.1.0-1-amd64 | passed | 5 | 0 | 1 | 2026-01-31 |\n",
            "| 6.1 | 6.1.0-1-amd64 | **failed** | 5 | 2 | 1 | 2026-01-31 |\n",
            "| 6.12 | 6.1.0-1-amd64 | **did not end** | 5 | 0 | 1 | 2026-01-31 |\n",
            "| 7.2 | | not recorded | | | | |\n",
            "\n| series | what the tests said about the kernel |\n|---|---|\n| 5.10 | a socket: known |\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
