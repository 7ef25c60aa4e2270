/*!
What a run of tests says in its log: which tests failed and why, and how many passed.
*/

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::progress::Step;

/// How many tests did what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

/// Says which tests of a step's log failed and why, and how many passed.
pub(crate) fn report(step: &Step<'_>) {
    let log = std::fs::read_to_string(step.log()).unwrap_or_default();
    for line in failures(&log) {
        step.say(format!("      {line}"));
    }
    step.say(format!("      {}", counts(&log)));
}

/// Number of lines of a panic's message to print.
const PANIC_LINES: usize = 6;

/// The failed tests in a log: their names, and the beginning of each panic's message.
fn failures(log: &str) -> Vec<&str> {
    let lines: Vec<_> = log.lines().collect();
    let of_line = |(at, line): (usize, &&str)| {
        let count = if line.starts_with("test ") && line.ends_with("... FAILED") {
            1
        } else if line.starts_with("thread '") && line.contains("panicked at") {
            1 + PANIC_LINES
        } else {
            0
        };
        at..lines.len().min(at + count)
    };
    lines
        .iter()
        .enumerate()
        .flat_map(of_line)
        .map(|at| lines[at])
        .collect()
}

/// Adds up the summaries of the test programs in a log.
pub(crate) fn counts(log: &str) -> Counts {
    let results: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "))
        .collect();
    let sum = |what: &str| -> u32 {
        let counts = results.iter().filter_map(|line| {
            let before = line
                .split(what)
                .next()
                .filter(|before| before.len() < line.len())?;
            before.split_whitespace().last()?.parse::<u32>().ok()
        });
        counts.sum()
    };
    Counts {
        passed: sum(" passed"),
        failed: sum(" failed"),
        skipped: sum(" ignored"),
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::{counts, failures};

    #[test]
    fn failures_are_named_with_their_reasons() {
        let log = "test a ... ok\ntest b ... FAILED\nother\nthread 'b' panicked at b.rs:1:2:\nthe reason";
        let said = [
            "test b ... FAILED",
            "thread 'b' panicked at b.rs:1:2:",
            "the reason",
        ];
        assert_eq!(failures(log), said);
    }

    #[test]
    fn summaries_add_up() {
        let log = "test a ... ok\n\
                   test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                   test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(counts(log).to_string(), "5 passed, 1 failed, 1 skipped");
    }
}
