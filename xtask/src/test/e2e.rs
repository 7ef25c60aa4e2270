/*!
How the end-to-end tests are run on a cluster: their variables, filters and times.
*/

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::releases::{self, Row, Run};
use super::{Options, cargo, run_tests};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::tools::Runtime;
use crate::workspace::Workspace;
use crate::{cluster, durability, plugin, results};

/// The test target that needs a cluster.
pub(super) const E2E: &str = "e2e";
/// Its tests that need more than one node.
const MANY_NODES: &str = "many_nodes::";
/// Its tests of devices with CDI, which Debian's containerd 1.6 does not know.
const DEVICES: &str = "devices::";
/// Variables with commands for operations that end-to-end tests cannot do through the API server,
/// and the subcommands of `cluster` that implement them on the local cluster.
const CLUSTER_COMMANDS: &[(&str, &str)] = &[
    ("E2E_REBOOT_COMMAND", "reboot"),
    ("E2E_RESTART_COMMAND", "restart"),
    ("E2E_PARTITION_COMMAND", "partition"),
    ("E2E_RESTORE_ETCD_COMMAND", "restart --etcd-snapshot"),
    ("E2E_ETCD_KEYS_COMMAND", "etcd-keys"),
    ("E2E_ETCD_SNAPSHOT_COMMAND", "etcd-snapshot"),
    ("E2E_NODES_COMMAND", "up --nodes"),
    ("E2E_REMOVE_NODE_COMMAND", "remove"),
    ("E2E_REPLACE_NODE_COMMAND", "replace"),
];
/// Variables with paths of the nodes for end-to-end tests.
const NODE_PATHS: &[(&str, &str)] = &[("E2E_DISK", cluster::DISK), ("E2E_FSTAB", cluster::FSTAB)];

/// Threads of the end-to-end tests, unless the variable of the test harness says otherwise: one for
/// each test. `testkit` limits how many run at the same time.
const THREADS: &str = "1000";
/// The variable for this number.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Number of the slowest end-to-end tests that are printed, so that CI stays short.
const SLOWEST: usize = 12;
/// The variable with the file of their times.
const TIMES_VARIABLE: &str = "E2E_TIMES";
/// The variable with the file of what they saw of the release.
const FACTS_VARIABLE: &str = "E2E_FACTS";

/// The variable with a file that exists as soon as a test has the cluster for itself.
const ALONE_VARIABLE: &str = "E2E_ALONE";

/// The variable with the path of the plugin.
const PLUGIN_VARIABLE: &str = "E2E_PLUGIN";
/// Number of serving certificates per replica in the rotation test: by default, and with `--all`.
pub(super) const ROTATIONS: (&str, &str) = ("3", "10");
/// The variable for this number.
const ROTATIONS_VARIABLE: &str = "E2E_ROTATIONS";

/// Some of the end-to-end tests.
pub(super) struct Part {
    /// What the progress shows.
    pub title: &'static str,
    /// Arguments of the test program.
    pub filters: &'static [&'static str],
    /// Where the results are recorded.
    pub row: Row,
    /// Which of the row's tests these are, unless they are all.
    pub selection: Option<&'static str>,
}

/// The tests of one node.
pub(super) const ON_ONE_NODE: Part = Part {
    title: "End-to-end tests on one node",
    filters: &["--skip", MANY_NODES],
    row: Row::OneNode,
    selection: None,
};
/// The tests of several nodes. They have a run of their own after the others, because the nodes
/// that they add change what the others measure.
pub(super) const ON_SEVERAL_NODES: Part = Part {
    title: "End-to-end tests on several nodes",
    filters: &[MANY_NODES],
    row: Row::SeveralNodes,
    selection: None,
};
/// Tests of one node for a release that does not run all of them: those whose outcome depends on
/// the kubelet or the container runtime. All tests with a fact about the release are among them.
pub(super) const ON_OTHER_RELEASE: Part = Part {
    title: "End-to-end tests on one node that depend on the release",
    filters: &[
        "lifecycle::resize::",
        "lifecycle::samples::",
        "lifecycle::stopped::",
        "images::",
        "node::cdi::",
        "node::csi::",
        "storage::volumes::",
        "parity::",
        DEVICES,
    ],
    row: Row::OneNode,
    selection: Some("of those that depend on the kubelet or the container runtime"),
};

/// Runs parts of the end-to-end tests, one after the other, and records the results.
pub(super) fn run_parts(
    workspace: &Workspace,
    progress: &Progress,
    parts: &[&Part],
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    progress.expect(parts.len());
    for part in parts {
        progress.step(part.title, |step| {
            let result = run(workspace, step, part.filters, options, target);
            result.and(record(workspace, step, part, options, target))
        })?;
    }
    Ok(())
}

/// Records what a part did, and what its tests said about the release. On other clusters than the
/// local one, more differs than versions.
fn record(
    workspace: &Workspace,
    step: &Step<'_>,
    part: &Part,
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    if !target.local || !results::is_recorded(options.names) {
        return Ok(());
    }
    let log = std::fs::read_to_string(step.log()).unwrap_or_default();
    let facts = std::fs::read_to_string(facts_file(step)).unwrap_or_default();
    if let Some(ended) = Run::of(&log, &facts, part.selection)? {
        releases::record(workspace, target, part.row, ended)?;
        step.say(format!("      {} is updated", results::DOCUMENT));
    }
    Ok(())
}

/// What the tests of a step saw of the release.
fn facts_file(step: &Step<'_>) -> PathBuf {
    step.log().with_extension("facts")
}

/// Runs the end-to-end tests that `filters` selects, as arguments of the test program.
pub(super) fn run(
    workspace: &Workspace,
    step: &Step<'_>,
    filters: &[&str],
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    let plugin = plugin::for_tests(workspace, step)?;
    let mut command = cargo(workspace, &["--test", E2E]);
    command.env(PLUGIN_VARIABLE, plugin);
    command.arg("--").args(filters);
    if options.names.is_empty() && !options.all {
        for test in durability::LEFT_OUT {
            command.args(["--skip", test]);
        }
    }
    if target.local && options.runtime == Runtime::Containerd && target.release.containerd().is_none() {
        step.say(format!(
            "      LEFT OUT (run with --kubernetes 1.36): {DEVICES}, because containerd 1.6 does not know CDI"
        ));
        command.args(["--skip", DEVICES]);
    }
    if std::env::var_os(ROTATIONS_VARIABLE).is_none() {
        let (some, all) = ROTATIONS;
        command.env(ROTATIONS_VARIABLE, if options.all { all } else { some });
    }
    if std::env::var_os(THREADS_VARIABLE).is_none() {
        command.env(THREADS_VARIABLE, THREADS);
    }
    on_cluster(&mut command, target)?;
    let times = step.log().with_extension("times");
    let _ = std::fs::remove_file(&times);
    command.env(TIMES_VARIABLE, &times);
    let facts = facts_file(step);
    let _ = std::fs::remove_file(&facts);
    command.env(FACTS_VARIABLE, &facts);
    command.env(ALONE_VARIABLE, alone_file(workspace));
    let result = run_tests(step, &mut command);
    step.say(format!(
        "      slowest: {}",
        slowest(&std::fs::read_to_string(&times).unwrap_or_default())
    ));
    result
}

/// Exists as soon as an end-to-end test has the cluster for itself. The tests that share it have
/// ended then.
pub(super) fn alone_file(workspace: &Workspace) -> PathBuf {
    workspace.logs().join("end-to-end-tests.alone")
}

/// The tests that took the longest, from lines `SECONDS TEST`.
fn slowest(times: &str) -> String {
    let mut times: Vec<_> = times
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(seconds, test)| Some((seconds.parse::<f64>().ok()?, test)))
        .collect();
    times.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let times = times
        .iter()
        .take(SLOWEST)
        .map(|(seconds, test)| format!("{test} {seconds:.0} s"));
    times.collect::<Vec<_>>().join(", ")
}

/// Sets the variables of the end-to-end tests: the cluster, and the commands for operations outside
/// the API server.
pub(crate) fn on_cluster(command: &mut Command, target: &Target<'_>) -> Result<()> {
    command.env("KUBECONFIG", &target.kubeconfig);
    command.env("KUBECTL", target.kubectl_path());
    if target.local {
        // The commands for the local cluster. On other clusters the user sets the variables.
        let own = std::env::current_exe().context("finding this program")?;
        for (variable, subcommand) in CLUSTER_COMMANDS {
            command.env(variable, format!("{} cluster {subcommand}", own.display()));
        }
        command.envs(NODE_PATHS.iter().copied());
        command.env("E2E_CTR", &target.ctr);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::slowest;

    #[test]
    fn the_slowest_tests_come_first() {
        let times = "1.4 a\n12.6 b::c\nnonsense\n3.0 d\n";
        assert_eq!(slowest(times), "b::c 13 s, d 3 s, a 1 s");
    }
}
