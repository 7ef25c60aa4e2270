/*!
The ids of invariants, faults and hostile inputs (I1, F1, H1). `docs/invariants.md` must list each
id in use, and a test must have it in its name.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The document that explains the ids.
pub(crate) const DOCUMENT: &str = "docs/invariants.md";
/// Files whose ids do not count as uses: the document itself, and this file with the examples in
/// its tests.
const NO_USES: [&str; 2] = [DOCUMENT, "xtask/src/lint/ids.rs"];
/// Section of the document with the ids without tests.
const NOT_PROVEN: &str = "## Not proven yet";
/// Extensions of files that are searched for ids.
const EXTENSIONS: [&str; 4] = ["rs", "md", "tpl", "yaml"];

/// An id, in numeric order: I2 before I10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    kind: char,
    number: u8,
}

/// The ids that the repository uses, and the places of their tests.
#[derive(Debug, Default)]
struct Found {
    /// Each id with a file that uses it.
    used: BTreeMap<Id, String>,
    /// Each id with the places of the tests that carry it.
    proven: BTreeMap<Id, BTreeSet<String>>,
}

/// The ids of the document.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    proven: BTreeSet<Id>,
    not_proven: BTreeSet<Id>,
}

/// Compares the ids in use with the document.
///
/// # Errors
/// With every id that is missing in the document or in the names of tests.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let problems = problems(&Found::in_sources(workspace)?, &Listed::parse(&text(workspace)?));
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// The document with an updated last column, the places of the tests of each id.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn document(workspace: &Workspace) -> Result<String> {
    Ok(with_places(&text(workspace)?, &Found::in_sources(workspace)?))
}

fn text(workspace: &Workspace) -> Result<String> {
    std::fs::read_to_string(workspace.join(DOCUMENT)).with_context(|| format!("reading {DOCUMENT}"))
}

fn problems(found: &Found, listed: &Listed) -> Vec<String> {
    let mut problems = Vec::new();
    for (id, file) in &found.used {
        if !listed.proven.contains(id) && !listed.not_proven.contains(id) {
            problems.push(format!("{id} is used in {file} and is not in {DOCUMENT}"));
        }
    }
    for id in &listed.proven {
        if !found.proven.contains_key(id) {
            problems.push(format!("{id} is in {DOCUMENT} and in the name of no test"));
        }
    }
    for id in &listed.not_proven {
        if found.proven.contains_key(id) {
            problems.push(format!(
                "{id} has a test and is still under {NOT_PROVEN:?} in {DOCUMENT}"
            ));
        }
    }
    problems
}

fn with_places(text: &str, found: &Found) -> String {
    let mut lines = String::new();
    let mut generated = true;
    for line in text.lines() {
        if line.starts_with("## ") {
            generated = line != NOT_PROVEN;
        }
        match row(line).filter(|_| generated) {
            Some((id, cells)) => {
                let places = found.proven.get(&id).into_iter().flatten();
                let places: Vec<_> = places.map(String::as_str).collect();
                let kept = cells.get(..3).unwrap_or(&cells).join(" | ");
                _ = write!(lines, "| {kept} | {} |", places.join(", "));
            }
            None => lines.push_str(line),
        }
        lines.push('\n');
    }
    lines
}

/// The id and the cells of a table row that starts with an id.
fn row(line: &str) -> Option<(Id, Vec<&str>)> {
    let cells: Vec<_> = line
        .strip_prefix('|')?
        .trim_end()
        .strip_suffix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    Some((Id::parse(cells.first()?)?, cells))
}

/// The place of a test by the path of its file: `e2e` for `tests/e2e/stop.rs`, `rootfs` for
/// `crates/rootfs/src/sys.rs`.
fn place(path: &Path) -> Option<String> {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    match parts.next()? {
        "tests" => Some(format!("tests/{}", parts.next()?.trim_end_matches(".rs"))),
        "crates" => parts.next().map(str::to_owned),
        "src" => Some("operator".to_owned()),
        other => Some(other.to_owned()),
    }
}

/// Whether a character may be part of a name.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The ids at the start of function names.
fn ids_of_tests(text: &str) -> BTreeSet<Id> {
    let names = text
        .split(|c: char| c.is_whitespace() || c == '(')
        .collect::<Vec<_>>();
    names
        .windows(2)
        .filter(|pair| pair[0] == "fn")
        .flat_map(|pair| pair[1].split('_').map_while(Id::of_test))
        .collect()
}

// === impl Id ===

impl Id {
    fn parse(word: &str) -> Option<Self> {
        let kind = word.chars().next().filter(|kind| "IFH".contains(*kind))?;
        let digits = word.get(1..)?;
        let plain = matches!(digits.len(), 1 | 2) && digits.bytes().all(|digit| digit.is_ascii_digit());
        Some(Self {
            kind,
            number: digits.parse().ok().filter(|_| plain)?,
        })
    }

    /// The id in a part of a test's name: `i1` for I1.
    fn of_test(part: &str) -> Option<Self> {
        let lower = part.starts_with(['i', 'f', 'h']);
        Self::parse(&part.to_ascii_uppercase()).filter(|_| lower)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, self.number)
    }
}

// === impl Found ===

impl Found {
    fn in_sources(workspace: &Workspace) -> Result<Self> {
        let mut found = Self::default();
        for path in workspace.sources(&EXTENSIONS)? {
            if NO_USES.iter().any(|other| path == Path::new(other)) {
                continue;
            }
            let text = std::fs::read_to_string(workspace.join(&path))
                .with_context(|| format!("reading {}", path.display()))?;
            found.add(&path, &text);
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path, text: &str) {
        let file = path.display().to_string();
        for id in text.split(|c| !in_word(c)).filter_map(Id::parse) {
            self.used.entry(id).or_insert_with(|| file.clone());
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            return;
        }
        for id in ids_of_tests(text) {
            self.used.entry(id).or_insert_with(|| file.clone());
            self.proven.entry(id).or_default().extend(place(path));
        }
    }
}

// === impl Listed ===

impl Listed {
    fn parse(text: &str) -> Self {
        let mut listed = Self::default();
        let mut proven = true;
        for line in text.lines() {
            if line.starts_with("## ") {
                proven = line != NOT_PROVEN;
            }
            let ids = if proven {
                &mut listed.proven
            } else {
                &mut listed.not_proven
            };
            ids.extend(row(line).map(|(id, _)| id));
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "## Invariants\n| I1 | a | b | |\n| I2 | c | d | old |\n## Not proven yet\n| F15 | e | f |\n";

    fn found(files: &[(&str, &str)]) -> Found {
        let mut found = Found::default();
        for (path, text) in files {
            found.add(Path::new(path), text);
        }
        found
    }

    #[test]
    fn what_is_missing_on_either_side_is_named() {
        let tests = "async fn i1_f15_a_test() {}\n// (invariant I3), but not I123, XI4 or I5_x.";
        let problems = problems(&found(&[("tests/e2e/a.rs", tests)]), &Listed::parse(TEXT));
        assert_eq!(
            problems,
            [
                "I3 is used in tests/e2e/a.rs and is not in docs/invariants.md",
                "I2 is in docs/invariants.md and in the name of no test",
                "F15 has a test and is still under \"## Not proven yet\" in docs/invariants.md",
            ]
        );
    }

    #[test]
    fn the_last_column_names_the_places_of_the_tests() {
        let found = found(&[
            ("tests/rootfs.rs", "fn i2_a()"),
            ("crates/rootfs/src/sys.rs", "fn i1_i2_b()"),
            ("src/lib.rs", "fn i2_c() fn other_i1_d()"),
            ("README.md", "fn i1_e()"),
        ]);
        let expected = "## Invariants\n| I1 | a | b | rootfs |\n| I2 | c | d | operator, rootfs, tests/rootfs |\n\
                        ## Not proven yet\n| F15 | e | f |\n";
        assert_eq!(with_places(TEXT, &found), expected);
        assert_eq!(with_places(expected, &found), expected);
    }
}
