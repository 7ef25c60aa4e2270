//! Prints `docs/troubleshooting.md` for `cargo xtask codegen`. Names, conditions and meanings of
//! reasons come from the constants of this crate, what to do from `troubleshooting.md` in this
//! directory. It fails if a reason does not have a section, or a section does not have a reason.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;

use stoppablecontainer_api::conditions::{Reason, reason};

const TEMPLATE: &str = include_str!("troubleshooting.md");
/// Prefix of lines with reasons that need no action. Each becomes a row of a table.
const NORMAL: &str = "@@ normal ";
/// Prefix of the headings that are reasons.
const HEADING: &str = "### ";
/// Maximum number of columns of a line of text.
const WIDTH: usize = 100;

fn main() -> Result<(), String> {
    let mut left: BTreeMap<_, _> = reason::ALL.iter().map(|reason| (reason.name, reason)).collect();
    let mut take = |name: &str| {
        let missing = || format!("{name}: not a reason, or in the template twice");
        left.remove(name).ok_or_else(missing)
    };
    let mut document = String::new();
    for line in TEMPLATE.lines() {
        if let Some(names) = line.strip_prefix(NORMAL) {
            for name in names.split(' ') {
                let reason = take(name)?;
                let meaning = words(reason.meaning).replace('|', "\\|");
                _ = writeln!(document, "| `{name}` | {} | {meaning} |", conditions(reason));
            }
        } else if let Some(name) = line.strip_prefix(HEADING) {
            let reason = take(name)?;
            let place = conditions(reason);
            let text = format!("{} Set in: {place}.", words(reason.meaning));
            _ = writeln!(document, "{line}\n\n{}", wrapped(&text));
        } else {
            _ = writeln!(document, "{line}");
        }
    }
    if let Some(name) = left.keys().next() {
        return Err(format!(
            "{name}: crates/api/examples/troubleshooting.md does not have a section"
        ));
    }
    print!("{document}");
    Ok(())
}

/// Where a reason is set.
fn conditions(reason: &Reason) -> String {
    if reason.conditions.is_empty() {
        return "events".to_owned();
    }
    let quoted = reason.conditions.iter().map(|name| format!("`{name}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text in lines of at most [`WIDTH`] columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.len() + word.len() < WIDTH) {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => _ = write!(line, " {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
