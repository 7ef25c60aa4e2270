/*!
The documentation: relative links lead to files and headings that exist, every page is in the book,
and commands use subcommands and values that exist.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value;

use crate::args::Args;
use crate::workspace::Workspace;

const BOOK: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";
const PLUGIN: &str = "docs/plugin.md";
/// Title of the flags that all commands of the plugin have.
const ALL: &str = "Flags of all commands";
const SCHEMA: &str = "charts/stoppablecontainer/values.schema.json";
/// Directory of templates of generated pages, whose links are relative to the pages.
const TEMPLATES: &str = "examples";
const INCLUDE: &str = "{{#include ";

/// Checks all Markdown files.
///
/// # Errors
/// With everything that does not exist.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut pages = BTreeMap::new();
    let sources = workspace.sources(&["md"])?.into_iter();
    for path in sources.filter(|path| !path.iter().any(|part| part == TEMPLATES)) {
        let text = std::fs::read_to_string(workspace.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        pages.insert(path, text);
    }
    let schema = std::fs::read_to_string(workspace.join(SCHEMA))?;
    let known = Known {
        plugin: flags(
            pages
                .get(Path::new(PLUGIN))
                .map(String::as_str)
                .unwrap_or_default(),
        ),
        schema: serde_json::from_str(&schema).with_context(|| format!("parsing {SCHEMA}"))?,
    };
    let exists = |path: &Path| workspace.join(path).exists();
    let mut found = unlisted(&pages);
    for (path, text) in &pages {
        let here = |(line, message): (usize, String)| format!("{}:{line}: {message}", path.display());
        found.extend(broken_links(path, text, &pages, exists).into_iter().map(here));
        found.extend(known.unknown(text).into_iter().map(here));
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Pages of the book that its summary does not list.
fn unlisted(pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let summary = pages
        .get(Path::new(SUMMARY))
        .map(String::as_str)
        .unwrap_or_default();
    let listed: BTreeSet<_> = links(summary).into_iter().map(|(_, target)| target).collect();
    let mut found = Vec::new();
    for path in pages
        .keys()
        .filter(|path| path.starts_with(BOOK) && *path != Path::new(SUMMARY))
    {
        let name = path.strip_prefix(BOOK).unwrap_or(path).display().to_string();
        if !listed.contains(&name) {
            found.push(format!("{SUMMARY}: {name} is not listed"));
        }
    }
    found
}

// === Links ===

fn broken_links(
    page: &Path,
    text: &str,
    pages: &BTreeMap<PathBuf, String>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = if file.is_empty() {
            page.to_owned()
        } else {
            beside(page, file)
        };
        if !exists(&path) {
            found.push((line, format!("{target}: {} does not exist", path.display())));
        } else if !anchor.is_empty()
            && pages
                .get(&path)
                .is_some_and(|text| !anchors(text).contains(anchor))
        {
            found.push((line, format!("{target}: {} has no such heading", path.display())));
        }
    }
    found
}

/// Targets of links and includes with their lines. Code is skipped, except for includes.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if let Some((_, rest)) = line.split_once(INCLUDE) {
            let file = rest.split(['}', ':']).next().unwrap_or_default();
            found.push((at + 1, file.to_owned()));
        }
        fenced ^= line.trim_start().starts_with("```");
        if !fenced {
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
            let targets = prose
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(|target| (at + 1, target.to_owned())));
        }
    }
    found
}

/// A path beside a page, without `..`.
fn beside(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

fn headings(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if !fenced && title.starts_with(' ') && title.len() < line.len() {
            found.insert(title.trim().to_owned());
        }
    }
    found
}

/// Anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: String| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        heading
            .to_lowercase()
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings(text).into_iter().map(anchor).collect()
}

// === Commands ===

/// What commands in the documentation may use.
struct Known {
    /// Flags of the plugin's commands, and of all commands under [`ALL`].
    plugin: BTreeMap<String, BTreeSet<String>>,
    /// Schema of the chart's values.
    schema: Value,
}

impl Known {
    /// Commands in code blocks of a shell whose subcommand, flag or value does not exist.
    fn unknown(&self, text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut shell = false;
        for (at, line) in text.lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                shell = matches!(language, "sh" | "console");
            } else if shell {
                let line = line.split(" #").next().unwrap_or_default();
                let words: Vec<_> = line.trim_start_matches("$ ").split_whitespace().collect();
                let wrong = match words[..] {
                    ["kubectl", "stopc", verb, ref rest @ ..] => self.plugin(verb, rest),
                    ["cargo", "xtask", ..] => developers(&words[1..]),
                    _ => None,
                };
                let values = words.windows(2).filter(|pair| pair[0].starts_with("--set"));
                let values = values.filter_map(|pair| self.value(pair[1]));
                found.extend(wrong.into_iter().chain(values).map(|wrong| (at + 1, wrong)));
            }
        }
        found
    }

    /// What does not exist in a command of the plugin.
    fn plugin(&self, verb: &str, words: &[&str]) -> Option<String> {
        let Some(flags) = self.plugin.get(verb) else {
            return Some(format!("kubectl stopc {verb}: no such command"));
        };
        let common = self.plugin.get(ALL);
        let exists = |flag: &str| flags.contains(flag) || common.is_some_and(|all| all.contains(flag));
        let words = words.iter().take_while(|word| **word != "--");
        let used = words.filter(|word| word.starts_with('-'));
        let unknown = used.flat_map(|word| separate(word)).find(|flag| !exists(flag))?;
        Some(format!("kubectl stopc {verb} {unknown}: no such flag"))
    }

    /// A value of the chart that does not exist.
    fn value(&self, assignment: &str) -> Option<String> {
        let path = assignment.split('=').next().unwrap_or_default();
        (!has_value(&self.schema, path)).then(|| format!("{path}: the chart has no such value"))
    }
}

/// The flags of a word: `-it` is two.
fn separate(word: &str) -> Vec<String> {
    let flag = word.split('=').next().unwrap_or_default();
    match flag.strip_prefix('-').filter(|letters| !letters.starts_with('-')) {
        Some(letters) => letters.chars().map(|letter| format!("-{letter}")).collect(),
        None => vec![flag.to_owned()],
    }
}

/// What does not exist in a command for developers.
fn developers(words: &[&str]) -> Option<String> {
    let error = Args::try_parse_from(words).err()?;
    let unknown = matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
    );
    unknown.then(|| format!("cargo {}: {:?}", words.join(" "), error.kind()))
}

/// The flags of each command, from the tables of the plugin's reference.
fn flags(reference: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut command = String::new();
    for line in reference.lines() {
        if line.starts_with('#') {
            let title = line.trim_start_matches('#').trim();
            let title = title.strip_prefix("kubectl stopc ").unwrap_or(title);
            title.clone_into(&mut command);
            found.entry(command.clone()).or_default();
        } else if let Some(cell) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            let names = cell.split([' ', ',', '[', '=']);
            let names = names.filter(|word| word.starts_with('-')).map(str::to_owned);
            found.entry(command.clone()).or_default().extend(names);
        }
    }
    found
}

/// Whether a value exists in the schema. What is below a value without properties is free.
fn has_value(schema: &Value, path: &str) -> bool {
    let mut schema = schema;
    for name in path.split('.') {
        let Some(properties) = schema.get("properties") else {
            return true;
        };
        let name = name.split('[').next().unwrap_or_default();
        match properties.get(name) {
            Some(property) => schema = property,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_to_missing_files_and_headings_are_found() {
        let page = "# A page: `x`\n[a](b.md) [b](#a-page-x) [c](#d) `[e](f)`\n```yaml\n{{#include ../g.yaml}}\n[h](i)\n```\n\
                    [j](../k.md#l) [m](https://n) [o](../k.md#p)\n";
        let pages = BTreeMap::from([
            (PathBuf::from("docs/a.md"), page.to_owned()),
            (PathBuf::from("k.md"), "## L\n".to_owned()),
        ]);
        let found = broken_links(Path::new("docs/a.md"), page, &pages, |path| {
            pages.contains_key(path)
        });
        let expected = [
            (2, "b.md: docs/b.md does not exist"),
            (2, "#d: docs/a.md has no such heading"),
            (4, "../g.yaml: g.yaml does not exist"),
            (7, "../k.md#p: k.md has no such heading"),
        ];
        assert_eq!(found, expected.map(|(line, message)| (line, message.to_owned())));
    }

    #[test]
    fn unknown_commands_and_values_are_found() {
        let known = Known {
            plugin: flags(
                "## Flags of all commands\n| `--as USER` |\n| `-n NAMESPACE` |\n### kubectl stopc stop\n| `-y, --yes[=BOOL]` |\n",
            ),
            schema: json!({"properties": {"a": {"properties": {"b": {}}}}}),
        };
        let text = "```sh\nkubectl stopc stop x --yes -yn a --as=me -- --no\nkubectl stopc halt x   # no\n\
                    kubectl stopc stop --all\ncargo xtask lint\ncargo xtask lind\ncargo xtask codegen --chek\n\
                    helm install x --set a.b.c=1 --set a[0].b=1 --set a.d=2\n```\n```text\nkubectl stopc other\n```\n";
        let found = known.unknown(text);
        let expected = [
            (3, "kubectl stopc halt: no such command"),
            (4, "kubectl stopc stop --all: no such flag"),
            (6, "cargo xtask lind: InvalidSubcommand"),
            (7, "cargo xtask codegen --chek: UnknownArgument"),
            (8, "a.d: the chart has no such value"),
        ];
        assert_eq!(found, expected.map(|(line, message)| (line, message.to_owned())));
    }

    #[test]
    fn pages_that_are_not_in_the_summary_are_found() {
        let pages = [
            ("docs/SUMMARY.md", "[A](a.md)"),
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("c.md", ""),
        ];
        let pages = pages.map(|(path, text)| (PathBuf::from(path), text.to_owned()));
        assert_eq!(
            unlisted(&BTreeMap::from(pages)),
            ["docs/SUMMARY.md: b.md is not listed"]
        );
    }

    #[test]
    fn the_documentation_has_no_broken_links() {
        check(&Workspace::current()).unwrap();
    }
}
