/*!
Reasons of conditions and events are constants in `crates/api/src/conditions.rs`. Other code must
not contain them as literals.
*/

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// The file with the reasons, after the line [`REASONS`].
const DEFINITIONS: &str = "crates/api/src/conditions.rs";
const REASONS: &str = "pub mod reason {";
/// Sources that write conditions and events.
const WRITERS: [&str; 2] = ["src", "crates/node-agent/src"];
/// Names of files with only tests.
const TESTS: [&str; 2] = ["tests.rs", "fixtures.rs"];
/// Start of the tests at the end of a file.
const TEST_MODULE: &str = "#[cfg(test)]\nmod tests {";

/// Searches for literals that equal reasons.
///
/// # Errors
/// With every such literal.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read_to_string(workspace.join(path)).with_context(|| format!("reading {}", path.display()))
    };
    let definitions = read(Path::new(DEFINITIONS))?;
    let reasons = reasons(&definitions);
    ensure!(!reasons.is_empty(), "no reason found in {DEFINITIONS}");
    let mut found = Vec::new();
    for path in workspace.sources(&["rs"])? {
        if written_here(&path) {
            let literals = literals(&read(&path)?, &reasons);
            found.extend(literals.into_iter().map(|(line, reason)| {
                format!(
                    "{}:{line}: {reason:?} is a constant of {DEFINITIONS}",
                    path.display()
                )
            }));
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Whether a file is part of a program that writes conditions.
fn written_here(path: &Path) -> bool {
    let writes = WRITERS.iter().any(|dir| path.starts_with(dir));
    let tests = path.iter().any(|part| part == "tests")
        || TESTS
            .iter()
            .any(|name| path.file_name().is_some_and(|file| file == *name));
    writes && !tests
}

/// The values of the constants.
fn reasons(definitions: &str) -> BTreeSet<&str> {
    let (_, reasons) = definitions.split_once(REASONS).unwrap_or_default();
    let values = reasons.lines().filter_map(|line| {
        let (name, value) = line.split_once(" = \"")?;
        let name = name
            .trim()
            .trim_start_matches("pub const ")
            .trim_end_matches(": &str");
        let constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        value.split('"').next().filter(|_| constant)
    });
    values.collect()
}

/// Literals that equal reasons, with their lines.
fn literals<'a>(text: &str, reasons: &'a BTreeSet<&str>) -> Vec<(usize, &'a str)> {
    let program = text.split(TEST_MODULE).next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, line) in program.lines().enumerate() {
        if !line.trim_start().starts_with("//") {
            let is_there = |reason: &&&str| line.contains(&format!("\"{reason}\""));
            found.extend(reasons.iter().filter(is_there).map(|reason| (at + 1, *reason)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINED: &str = "READY = \"Ready\";\npub mod reason {\n    STOPPED = \"Stopped\" in [READY];\n    \
                           pub const PASS_FAILED: &str = \"PassFailed\";\n    let x = \"Other\";\n}\n";

    #[test]
    fn the_constants_are_the_reasons() {
        assert_eq!(reasons(DEFINED), BTreeSet::from(["PassFailed", "Stopped"]));
    }

    #[test]
    fn literals_are_found_outside_of_tests() {
        let text = "// \"Stopped\"\nx(\"Stopped\");\ny(\"StoppedNot\");\n#[cfg(test)]\nmod tests {\n\"Stopped\"\n}\n";
        let reasons = reasons(DEFINED);
        let found = literals(text, &reasons);
        assert_eq!(found, [(2, "Stopped")]);
        assert!(written_here(Path::new(
            "crates/node-agent/src/filesystem/data.rs"
        )));
        for other in [
            "crates/api/src/conditions.rs",
            "src/reconcile/instance/plan/tests.rs",
            "src/rewrite/tests/x.rs",
        ] {
            assert!(!written_here(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn the_programs_have_none() {
        check(&Workspace::current()).unwrap();
    }
}
