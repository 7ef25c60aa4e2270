/*!
The table of `docs/portability.md` about releases of Kubernetes: the versions of a local cluster,
how many end-to-end tests passed on it, and what these tests saw (`fact` of `crates/testkit`).

The tests of two releases run at the same time, each in a process that knows its cluster. Each
process records its own release, and [`results::update`] lets one process write at a time.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::{Counts, counts};
use crate::target::Target;
use crate::tools::{Release, Tools};
use crate::workspace::Workspace;
use crate::{results, shell};

/// Name of the recorded values.
const NAME: &str = "releases";
/// How the section names the command that writes it.
const COMMAND: &str = "cargo xtask test";
/// A cell without a value.
const NOT_RECORDED: &str = "not recorded";

/// A row about tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Row {
    OneNode,
    SeveralNodes,
}

/// What the tests of a row did when they ran last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Which of the row's tests they were, unless they were all.
    selection: Option<String>,
    counts: Counts,
    /// The day, as in 2026-01-31.
    date: String,
    /// What the tests saw, by topic.
    facts: BTreeMap<String, BTreeSet<String>>,
}

/// Versions by the name of the program.
type Versions = BTreeMap<String, String>;

/// What is known of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    versions: Versions,
    runs: BTreeMap<Row, Run>,
}

/// Outcomes by release. A run on one of the releases keeps those of the others.
type Outcomes = BTreeMap<String, Outcome>;

const KUBERNETES: &str = "Kubernetes";
const RUNTIME: &str = "container runtime";
const RUNC: &str = "runc";
const KERNEL: &str = "kernel";
/// The order of the versions.
const VERSIONS: [&str; 4] = [KUBERNETES, RUNTIME, RUNC, KERNEL];

// === impl Row ===

impl Row {
    const ALL: [Self; 2] = [Self::OneNode, Self::SeveralNodes];

    fn title(self) -> &'static str {
        match self {
            Self::OneNode => "end-to-end tests on one node",
            Self::SeveralNodes => "end-to-end tests on several nodes",
        }
    }
}

// === impl Run ===

impl Run {
    /// From the log of the tests and from the lines that they noted. `None` if the tests did not
    /// come to an end: then the last results stay.
    pub(super) fn of(log: &str, facts: &str, selection: Option<&str>) -> Result<Option<Self>> {
        let counts = counts(log);
        if counts.passed + counts.failed == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            selection: selection.map(str::to_owned),
            counts,
            date: results::today()?,
            facts: by_topic(facts),
        }))
    }

    /// Its cell.
    fn cell(&self) -> String {
        let mark = if self.counts.failed > 0 {
            "**failed**: "
        } else {
            ""
        };
        let selection = self.selection.iter().map(|words| format!(" {words}"));
        format!(
            "{mark}{}{} ({})",
            self.counts,
            selection.collect::<String>(),
            self.date
        )
    }
}

/// Lines `TOPIC<tab>WHAT`.
fn by_topic(facts: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut topics = BTreeMap::<String, BTreeSet<String>>::new();
    for (topic, what) in facts.lines().filter_map(|line| line.split_once('\t')) {
        let known = topics.entry(topic.to_owned()).or_default();
        known.insert(what.to_owned());
    }
    topics
}

// === impl Outcome ===

impl Outcome {
    /// Results of other versions do not stay.
    fn add(&mut self, versions: Versions, row: Row, run: Run) {
        if self.versions != versions {
            *self = Self {
                versions,
                runs: BTreeMap::new(),
            };
        }
        self.runs.insert(row, run);
    }

    /// What the tests saw about a topic.
    fn facts(&self, topic: &str) -> Option<String> {
        let facts = self.runs.values().filter_map(|run| run.facts.get(topic));
        let facts: BTreeSet<_> = facts.flatten().map(String::as_str).collect();
        (!facts.is_empty()).then(|| facts.into_iter().collect::<Vec<_>>().join("; "))
    }
}

/// Records a run on the release that the cluster is. A release without a column is not recorded.
pub(super) fn record(workspace: &Workspace, target: &Target<'_>, row: Row, run: Run) -> Result<()> {
    let nodes = target.kubectl_output(&["get", "nodes", "-o", "json"])?;
    let mut versions = versions(&nodes)?;
    // Nodes do not report it. A cluster of another clone does not have the programs of this one.
    let tools = Tools::of(workspace).with_release(target.release);
    let mut runc = Command::new("runc");
    runc.env("PATH", tools.path()).arg("--version");
    if let Some(version) = shell::output(&mut runc).ok().as_deref().and_then(runc_version) {
        versions.insert(RUNC.to_owned(), version.to_owned());
    }
    let Some(release) = release(&versions) else {
        return Ok(());
    };
    let add = |outcomes: &mut Outcomes| {
        let outcome = outcomes.entry(release.name().to_owned()).or_default();
        outcome.add(versions, row, run);
    };
    results::update(workspace.root(), NAME, COMMAND, add, render)
}

/// The versions that the first node reports. All nodes of a local cluster have the same ones.
fn versions(nodes: &str) -> Result<Versions> {
    let nodes: Value = serde_json::from_str(nodes).context("reading the nodes")?;
    let info = &nodes["items"][0]["status"]["nodeInfo"];
    let version = |(name, field): (&str, &str)| {
        let version = info[field].as_str();
        let version = version.with_context(|| format!("the node does not report {field}"))?;
        Ok((name.to_owned(), version.replace("://", " ")))
    };
    let fields = [
        (KUBERNETES, "kubeletVersion"),
        (RUNTIME, "containerRuntimeVersion"),
        (KERNEL, "kernelVersion"),
    ];
    fields.into_iter().map(version).collect()
}

/// What `runc --version` prints first.
fn runc_version(said: &str) -> Option<&str> {
    said.lines().next()?.strip_prefix("runc version ").map(str::trim)
}

/// The release of which the version is.
fn release(versions: &Versions) -> Option<Release> {
    let version = versions.get(KUBERNETES)?.strip_prefix('v')?;
    let is = |release: &Release| {
        let rest = version.strip_prefix(release.name());
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    Release::ALL.into_iter().find(is)
}

fn render(outcomes: &Outcomes) -> String {
    let releases = Release::ALL.map(|release| outcomes.get(release.name()));
    let mut text = String::from("|");
    for release in Release::ALL {
        let _ = write!(text, " | Kubernetes {}", release.name());
    }
    text.push_str(" |\n|---");
    text.push_str(&"|---".repeat(releases.len()));
    text.push_str("|\n");
    let mut row = |title: &str, cell: &dyn Fn(&Outcome) -> Option<String>| {
        let _ = write!(text, "| {}", escaped(title));
        for outcome in releases {
            let cell = outcome.and_then(cell);
            let _ = write!(text, " | {}", escaped(cell.as_deref().unwrap_or(NOT_RECORDED)));
        }
        text.push_str(" |\n");
    };
    for name in VERSIONS {
        row(name, &|outcome| outcome.versions.get(name).cloned());
    }
    for tests in Row::ALL {
        row(tests.title(), &|outcome| outcome.runs.get(&tests).map(Run::cell));
    }
    let runs = outcomes.values().flat_map(|outcome| outcome.runs.values());
    let topics: BTreeSet<_> = runs.flat_map(|run| run.facts.keys()).collect();
    for topic in topics {
        row(topic, &|outcome| outcome.facts(topic));
    }
    text
}

/// The text in a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const LOG: &str = "running 4 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n";

    fn run(log: &str, facts: &str, selection: Option<&str>) -> Run {
        let run = Run::of(log, facts, selection).unwrap().unwrap();
        Run {
            date: "2026-01-31".to_owned(),
            ..run
        }
    }

    fn of(kubernetes: &str) -> Versions {
        [(KUBERNETES.to_owned(), kubernetes.to_owned())].into()
    }

    fn rows(outcomes: &[(&str, Outcome)]) -> String {
        let outcomes = outcomes
            .iter()
            .map(|(name, outcome)| ((*name).to_owned(), outcome.clone()));
        render(&outcomes.collect())
    }

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
    fn rows_are_what_tests_of_any_release_saw() {
        let mut old = Outcome::default();
        let facts = "users\trejected: a|b\nnot a fact\nusers\trejected: a|b\nimages\tused\n";
        old.add(of("v1.34.4"), Row::OneNode, run(LOG, facts, None));
        let mut new = Outcome::default();
        let failed = LOG.replace("0 failed", "2 failed");
        let some = Some("of some");
        new.add(of("v1.36.3"), Row::OneNode, run(LOG, "users\truns\n", some));
        new.add(
            of("v1.36.3"),
            Row::SeveralNodes,
            run(&failed, "devices\tthere\n", None),
        );
        let text = rows(&[("1.34", old), ("1.36", new)]);
        let expected = "\
| | Kubernetes 1.34 | Kubernetes 1.36 |
|---|---|---|
| Kubernetes | v1.34.4 | v1.36.3 |
| container runtime | not recorded | not recorded |
| runc | not recorded | not recorded |
| kernel | not recorded | not recorded |
| end-to-end tests on one node | 3 passed, 0 failed, 1 skipped (2026-01-31) | 3 passed, 0 failed, 1 skipped of some (2026-01-31) |
| end-to-end tests on several nodes | not recorded | **failed**: 3 passed, 2 failed, 1 skipped (2026-01-31) |
| devices | not recorded | there |
| images | used | not recorded |
| users | rejected: a\\|b | runs |
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_run_replaces_its_row_and_results_of_other_versions() {
        let mut outcome = Outcome::default();
        outcome.add(of("v1.36.3"), Row::OneNode, run(LOG, "a\told\nb\told\n", None));
        outcome.add(of("v1.36.3"), Row::SeveralNodes, run(LOG, "c\told\n", None));
        outcome.add(of("v1.36.3"), Row::OneNode, run(LOG, "a\tnew\na\tand\n", None));
        assert_eq!(outcome.facts("a").unwrap(), "and; new");
        assert_eq!(outcome.facts("b"), None);
        assert_eq!(outcome.facts("c").unwrap(), "old");
        outcome.add(of("v1.36.4"), Row::OneNode, run(LOG, "a\tnewest\n", None));
        assert_eq!(outcome.facts("a").unwrap(), "newest");
        assert_eq!(outcome.facts("c"), None);
    }

    #[test]
    fn tests_that_do_not_end_are_not_recorded() {
        let log = "running 4 tests\nerror: could not compile\n";
        assert_eq!(Run::of(log, "a\tb\n", None).unwrap(), None);
    }

    #[test]
    fn versions_are_those_of_the_nodes() {
        let nodes = r#"{"items": [{"status": {"nodeInfo": {
            "kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://2.4.2", "kernelVersion": "6.1.0"
        }}}]}"#;
        let versions = versions(nodes).unwrap();
        assert_eq!(versions[RUNTIME], "containerd 2.4.2");
        assert_eq!(release(&versions), Some(Release::V1_36));
        assert_eq!(release(&of("v1.3.6")), None);
        assert_eq!(release(&of("v1.360.0")), None);
        assert!(super::versions("{}").is_err());
        assert_eq!(runc_version("runc version 1.3.6\ncommit: v1\n"), Some("1.3.6"));
    }
}
