//! The section of `docs/portability.md` about a virtual machine.

use std::fmt::Write as _;

use anyhow::Result;

use super::{ROWS, Results};
use crate::results;
use crate::tools::Lsm;
use crate::workspace::Workspace;

/// Facts that a line of the section names, in their order: the fact, and what to print before it.
const VERSIONS: &[(&str, &str)] = &[
    ("os", ""),
    ("kernel", "Linux "),
    ("systemd", "systemd "),
    ("kubelet", "Kubernetes "),
    ("containerd", "containerd "),
    ("runc", "runc "),
];

/// Records the results, and replaces the section of this security module.
pub(super) fn write(workspace: &Workspace, lsm: Lsm, known: &Results) -> Result<()> {
    let command = format!("cargo xtask test --vm={}", lsm.name());
    results::write(workspace, lsm.name(), known, (&command, &render(known)))
}

fn render(known: &Results) -> String {
    let fact = |name: &str| known.facts.get(name).map_or("unknown", String::as_str);
    let mut text = String::from("Versions:\n\n");
    let _ = writeln!(text, "- StoppableContainer {}", Workspace::version());
    for (name, before) in VERSIONS {
        let _ = writeln!(text, "- {before}{}", fact(name));
    }
    let modules = fact("lsm").replace(',', ", ");
    let confinement = [
        ("control groups", fact("cgroups")),
        ("security modules", modules.as_str()),
        ("SELinux", fact("selinux")),
        ("limits of containerd's open files, soft and hard", fact("files")),
    ];
    for (what, value) in confinement {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text.push_str("\n| test | last result | seconds | date (UTC) |\n|---|---|---|---|\n");
    for row in ROWS {
        let Some(outcome) = known.outcomes.get(row.what) else {
            let _ = writeln!(text, "| {} | not run | | |", row.what);
            continue;
        };
        let mut result = if outcome.passed { "passed" } else { "**failed**" }.to_owned();
        if !outcome.said.is_empty() {
            let _ = write!(result, ": {}", outcome.said.join("; "));
        }
        let _ = writeln!(
            text,
            "| {} | {result} | {} | {} |",
            row.what, outcome.seconds, outcome.date
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::Outcome;
    use super::*;

    #[test]
    fn the_document_has_the_recorded_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let document = fs::read_to_string(root.join(results::DOCUMENT)).unwrap();
        let mut recorded = 0;
        for lsm in [Lsm::AppArmor, Lsm::SeLinux] {
            let known: Results = results::read(root, lsm.name()).unwrap();
            if known.outcomes.is_empty() {
                continue;
            }
            let text = render(&known);
            assert!(
                document.contains(&text),
                "{} does not have this table:\n{text}",
                results::DOCUMENT
            );
            recorded += 1;
        }
        assert!(recorded > 0, "no results are recorded");
    }

    #[test]
    fn rows_say_what_happened_or_that_nothing_did() {
        let mut known = Results::default();
        known.facts.insert("kernel".to_owned(), "6.12.1".to_owned());
        let outcome = |passed: bool, said: &[&str]| Outcome {
            passed,
            seconds: 7,
            date: "2026-01-31".to_owned(),
            said: said.iter().map(|text| (*text).to_owned()).collect(),
        };
        known
            .outcomes
            .insert(ROWS[0].what.to_owned(), outcome(true, &["one", "two"]));
        known
            .outcomes
            .insert(ROWS[1].what.to_owned(), outcome(false, &[]));
        let text = render(&known);
        for expected in [
            "- Linux 6.12.1\n".to_owned(),
            "- systemd unknown\n".to_owned(),
            format!("| {} | passed: one; two | 7 | 2026-01-31 |\n", ROWS[0].what),
            format!("| {} | **failed** | 7 | 2026-01-31 |\n", ROWS[1].what),
            format!("| {} | not run | | |\n", ROWS[2].what),
        ] {
            assert!(text.contains(&expected), "{text}");
        }
    }
}
