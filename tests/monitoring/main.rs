/*!
The chart's alerts and dashboard: promtool checks the rules and makes each alert fire, every alert
has a test and a page of its runbook, and both files only use metrics that the programs serve.

`PROMETHEUS_PROGRAMS` is the directory of promtool.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use metrics::{PREFIX, catalogue};
use serde_json::Value;

const RULES: &str = "charts/stoppablecontainer/monitoring/alerts.yaml";
const DASHBOARD: &str = "charts/stoppablecontainer/monitoring/dashboard.json";
const RULE_TESTS: &str = "tests/monitoring/alerts.test.yaml";
const RUNBOOK: &str = "docs/alerts.md";

fn path(of: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn text(of: &str) -> String {
    std::fs::read_to_string(path(of)).unwrap()
}

/// Runs promtool on a file, and fails with its output if promtool does.
fn promtool(arguments: &[&str], file: &str) {
    let programs = std::env::var_os("PROMETHEUS_PROGRAMS")
        .expect("PROMETHEUS_PROGRAMS names the directory of promtool; `cargo xtask test` sets it");
    let mut command = Command::new(PathBuf::from(programs).join("promtool"));
    let output = command.args(arguments).arg(path(file)).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

/// Names of our metrics in a query, without the suffixes of histograms.
fn used(query: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with(PREFIX));
    let base = |word: &str| {
        let suffixes = ["_bucket", "_count", "_sum"];
        let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        base.unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

fn assert_served(queries: &[String]) {
    let served: BTreeSet<_> = [catalogue::COMMON, catalogue::OPERATOR, catalogue::AGENT]
        .concat()
        .iter()
        .map(metrics::Metric::exported_name)
        .collect();
    for query in queries {
        let used = used(query);
        assert!(!used.is_empty(), "{query}");
        let unknown: Vec<_> = used.difference(&served).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
    }
}

#[test]
fn the_rules_are_valid() {
    promtool(&["check", "rules"], RULES);
}

#[test]
fn every_alert_fires() {
    promtool(&["test", "rules"], RULE_TESTS);
    let tests: Value = serde_saphyr::from_str(&text(RULE_TESTS)).unwrap();
    let tests = tests["tests"].as_array().unwrap();
    let cases = tests
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap());
    let fired: BTreeSet<_> = cases
        .filter(|case| {
            case["exp_alerts"]
                .as_array()
                .is_some_and(|alerts| !alerts.is_empty())
        })
        .map(|case| case["alertname"].as_str().unwrap().to_owned())
        .collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(fired.contains(name), "{name} has no test in {RULE_TESTS}");
    }
}

#[test]
fn every_alert_has_its_runbook() {
    let runbook = text(RUNBOOK);
    let headings: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap().to_owned();
        assert!(headings.contains(name.as_str()), "{name} is not in {RUNBOOK}");
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(
            url.ends_with(&format!("/{RUNBOOK}#{}", name.to_lowercase())),
            "{url}"
        );
        names.insert(name);
    }
    let removed: Vec<_> = headings
        .iter()
        .filter(|heading| !names.contains(**heading))
        .collect();
    assert!(removed.is_empty(), "{removed:?} in {RUNBOOK} are not alerts");
}

#[test]
fn rules_and_dashboard_use_metrics_that_are_served() {
    let rules = alerts()
        .iter()
        .map(|rule| rule["expr"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_served(&rules);
    let queries = dashboard::queries(&text(DASHBOARD)).unwrap();
    let queries: Vec<_> = queries.into_iter().map(|query| query.expression).collect();
    assert!(queries.len() > 20, "{}", queries.len());
    assert_served(&queries);
}
