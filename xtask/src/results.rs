/*!
Sections of documents that are written from measured values, and the committed values of tests that
depend on a version or a machine.

A section is between two comments. The first one names the command that writes it. Processes of the
same run write sections of one document: the tests of two local clusters end at any time. So a
process locks the document, reads the values, and writes both before it unlocks the document.
*/

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::shell;
use crate::workspace::Workspace;

/// The document.
pub(crate) const DOCUMENT: &str = "docs/portability.md";
/// Where the values are.
const DIRECTORY: &str = "xtask/machine-tests";
const END: &str = "<!-- end -->";
/// Set where a run must not change documents.
const CI: &str = "CI";

/// Whether a run of the tests with these names is recorded: of all tests, and not in CI.
pub(crate) fn is_recorded(names: &[String]) -> bool {
    names.is_empty() && std::env::var_os(CI).is_none()
}

/// Reads the values with this name. There are none before the first run.
pub(crate) fn read<T: DeserializeOwned + Default>(root: &Path, name: &str) -> Result<T> {
    let file = file(root, name);
    if !file.exists() {
        return Ok(T::default());
    }
    let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("reading {}, which can be removed", file.display()))
}

/// Changes the values with this name, and writes the section that `command` writes, as it is after
/// the change.
pub(crate) fn update<T: DeserializeOwned + Default + Serialize>(
    root: &Path,
    name: &str,
    command: &str,
    change: impl FnOnce(&mut T),
    render: impl FnOnce(&T) -> String,
) -> Result<()> {
    let path = root.join(DOCUMENT);
    let _locked = lock(&path)?;
    let mut values = read(root, name)?;
    change(&mut values);
    store(root, name, &values)?;
    replace_locked(&path, command, &render(&values))
}

/// Writes the values with this name, and the section that `command` writes.
pub(crate) fn write<T: Serialize>(
    workspace: &Workspace,
    name: &str,
    values: &T,
    (command, section): (&str, &str),
) -> Result<()> {
    store(workspace.root(), name, values)?;
    replace(workspace, DOCUMENT, command, section)
}

/// Replaces the section of a document that `command` writes.
pub(crate) fn replace(workspace: &Workspace, document: &str, command: &str, section: &str) -> Result<()> {
    let path = workspace.join(document);
    let _locked = lock(&path)?;
    replace_locked(&path, command, section)
}

/// Waits until no other process has the lock of a document. The file is written in place, so it
/// stays the locked one. The lock ends with the value.
fn lock(document: &Path) -> Result<File> {
    let file = File::open(document).with_context(|| format!("reading {}", document.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", document.display()))?;
    Ok(file)
}

fn replace_locked(document: &Path, command: &str, section: &str) -> Result<()> {
    let shown = document.display();
    let text = fs::read_to_string(document).with_context(|| format!("reading {shown}"))?;
    let text = replaced(&text, command, section).with_context(|| format!("updating {shown}"))?;
    fs::write(document, text).with_context(|| format!("writing {shown}"))
}

fn store<T: Serialize>(root: &Path, name: &str, values: &T) -> Result<()> {
    let file = file(root, name);
    let mut text = serde_json::to_string_pretty(values)?;
    text.push('\n');
    fs::create_dir_all(root.join(DIRECTORY))
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("writing {}", file.display()))
}

/// Today in UTC, as in 2026-01-31.
pub(crate) fn today() -> Result<String> {
    Ok(shell::capture("date", ["-u", "+%F"])?.trim().to_owned())
}

fn file(root: &Path, name: &str) -> PathBuf {
    root.join(DIRECTORY).join(format!("{name}.json"))
}

/// The document with this section of `command`.
fn replaced(document: &str, command: &str, section: &str) -> Result<String> {
    let begin = format!("<!-- begin: written by {command} -->");
    let parts = document
        .split_once(begin.as_str())
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("the document does not contain the lines {begin} and {END}"))?;
    Ok(format!("{before}{begin}\n\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::{DOCUMENT, read, replaced, update};

    #[test]
    fn changes_at_the_same_time_are_all_there() {
        const CHANGES: usize = 50;
        let directory = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        let root = directory.as_path();
        let document = root.join(DOCUMENT);
        fs::create_dir_all(document.parent().unwrap()).unwrap();
        fs::write(&document, "<!-- begin: written by it -->\n<!-- end -->\n").unwrap();
        let change = || {
            for _ in 0..CHANGES {
                let add = |number: &mut usize| *number += 1;
                update(root, "numbers", "it", add, |number| format!("{number}\n")).unwrap();
            }
        };
        thread::scope(|scope| {
            scope.spawn(change);
            scope.spawn(change);
        });
        assert_eq!(read::<usize>(root, "numbers").unwrap(), 2 * CHANGES);
        let text = fs::read_to_string(document).unwrap();
        assert!(text.contains(&format!("\n{}\n", 2 * CHANGES)), "{text}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_the_section_of_the_command_is_replaced() {
        let section = |command: &str, text: &str| {
            format!("<!-- begin: written by {command} -->\n\n{text}\n\n<!-- end -->\n")
        };
        let document = |one: &str| {
            format!(
                "before\n{}between\n{}after\n",
                section("one", one),
                section("two", "2")
            )
        };
        assert_eq!(replaced(&document("1"), "one", "new\n").unwrap(), document("new"));
        assert!(replaced(&document("1"), "three", "").is_err());
    }
}
