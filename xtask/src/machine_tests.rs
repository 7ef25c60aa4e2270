/*!
`test --vm`: end-to-end tests on a node that is a virtual machine of the local cluster. It has what
the other nodes lack: a kernel of its own, systemd, cgroup v2, a security module, and a power that
can be cut.

The last results are in `docs/portability.md`, a section for each security module, and in
`xtask/machine-tests`. The operator runs on the first node, outside: what depends on a node is the
agent and the containers.
*/

mod table;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::images::{pause, product, testing};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::tools::{Lsm, Release, Runtime, Tools};
use crate::workspace::Workspace;
use crate::{install, results, test};

/// The node that is outside.
const OUTSIDE: &str = "node1";
/// Factor for the tests' time limits: emulation is slow.
const SLOWNESS: &str = "5";
/// Seconds for the product to be ready on such a node.
const PATIENCE: u32 = 900;
/// How a line of a test's output begins that says what the node does.
const FACT: &str = "this node: ";

/// A row: what it shows, and its test.
#[derive(Clone, Copy, Debug)]
struct Row {
    what: &'static str,
    test: &'static str,
    /// Whether the node's disk must have a write cache.
    write_cache: Option<bool>,
}

const ROWS: &[Row] = &[
    row(
        "start, stop, start: files are kept",
        "durability::survival::i1_files_survive_stop_and_start",
    ),
    row(
        "exec, cp, logs, port-forward, probes, hooks, volumes",
        "parity::i5_a_web_server_behaves_as_in_a_plain_pod",
    ),
    row(
        "unprivileged user, terminal",
        "parity::i5_an_unprivileged_user_behaves_as_in_a_plain_pod",
    ),
    row(
        "exit code, termination message",
        "parity::i5_logs_exit_code_and_termination_message",
    ),
    row(
        "restricted namespace",
        "images::variants::i6_restricted_namespace",
    ),
    row(
        "read-only root filesystem",
        "images::variants::i5_read_only_root_filesystem",
    ),
    row("out of memory", "durability::events::i1_durability_out_of_memory"),
    row(
        "limit of the kept filesystem",
        "storage::filesystem::i12_a_filesystem_over_its_limit_stops_its_container",
    ),
    row(
        "limit of memory, a flood of processes",
        "security::hostile::processes::h25_ten_thousand_processes_meet_the_limits_of_the_pod",
    ),
    row(
        "working directories behind descriptors",
        "security::hostile::descriptors::h5_working_directories_in_proc_are_as_in_a_plain_pod",
    ),
    row(
        "a flood of connections",
        "security::hostile::connections::h25_a_flood_of_connections_to_the_agent_delays_no_other_pod",
    ),
    row(
        "mounts, overlays and namespaces of a consumer",
        "security::hostile::processes::h25_nested_overlays_and_namespaces_are_as_in_a_plain_pod_and_do_not_stay",
    ),
    row(
        "set-user-ID, capabilities, devices",
        "security::hostile::files::h13_files_that_give_power_are_as_in_a_plain_container_and_stay",
    ),
    row("`kill -9`", "durability::events::i1_durability_kill_9"),
    row(
        "kubelet killed, started by systemd",
        "durability::events::i9_f19_durability_kubelet_killed",
    ),
    row(
        "containerd killed, started by systemd",
        "durability::events::i9_f19_durability_runtime_killed",
    ),
    row("full disk", "durability::events::i1_f22_durability_disk_full"),
    Row {
        what: "power cut, disk with write cache",
        test: "durability::events::i1_durability_node_reboot",
        write_cache: Some(true),
    },
    Row {
        what: "power cut, disk without write cache",
        test: "durability::events::i1_durability_node_reboot",
        write_cache: Some(false),
    },
];

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    passed: bool,
    seconds: u64,
    /// The day, as in 2026-01-31.
    date: String,
    /// What the test said about the node, or about what was lost.
    said: Vec<String>,
}

/// What is known of a node: its facts by name, and the outcomes of the rows by what they show. A
/// run of some rows keeps the outcomes of the others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Results {
    facts: BTreeMap<String, String>,
    outcomes: BTreeMap<String, Outcome>,
}

/// Options of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// The security module of the node.
    pub lsm: Lsm,
    /// Release of Kubernetes.
    pub kubernetes: Option<Release>,
    /// Only rows whose texts or tests contain one of these; the others keep their last results.
    pub names: &'a [String],
}

const fn row(what: &'static str, test: &'static str) -> Row {
    Row {
        what,
        test,
        write_cache: None,
    }
}

/// Runs the rows, and writes their results as soon as each row has one.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    let rows = chosen(options.names)?;
    let release = options.kubernetes.unwrap_or(Release::V1_36);
    let node = Cluster::machine_name(options.lsm);
    Tools::prepare_tests(progress)?;
    let cluster = || Cluster::new(workspace, progress, pause::provide);
    cluster()
        .with_release(Some(release))
        .tools()
        .prepare_machine(progress, options.lsm)?;
    let target = Target::choose(
        workspace,
        progress,
        None,
        Some(release),
        Some(Runtime::Containerd),
    )?;
    if !target.local {
        bail!(
            "KUBECONFIG names another cluster: unset it, because virtual machines are nodes of the local cluster"
        );
    }
    progress.expect(product::STEPS + install::STEPS + testing::STEPS + rows.len());
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    testing::provide(workspace, progress, &target.destination)?;
    cluster().add(&node)?;
    // What the tests start goes to the virtual machine, and the operator stays outside.
    target.kubectl_output(&["uncordon", OUTSIDE])?;
    target.kubectl_output(&["cordon", &node])?;
    let installed = install::run(
        workspace,
        progress,
        &target,
        &tag,
        &install::Options {
            agent_on: Some(&node),
            patience: PATIENCE,
        },
    );
    target.kubectl_output(&["uncordon", &node])?;
    installed?;
    target.kubectl_output(&["cordon", OUTSIDE])?;
    let failed = run_rows(workspace, progress, &target, options.lsm, &node, &rows);
    target.kubectl_output(&["uncordon", OUTSIDE])?;
    let failed = failed?;
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on {node}: {}", failed.join("; "))
}

/// Runs each of the rows, also after one failed. Returns those that failed.
fn run_rows(
    workspace: &Workspace,
    progress: &Progress,
    target: &Target<'_>,
    lsm: Lsm,
    node: &str,
    rows: &[Row],
) -> Result<Vec<&'static str>> {
    let mut known: Results = results::read(workspace.root(), lsm.name())?;
    let mut failed = Vec::new();
    // A machine that runs already may have been left without a cache.
    let mut write_cache = None;
    for row in rows {
        if row.write_cache.is_some() && row.write_cache != write_cache {
            Cluster::new(workspace, progress, pause::provide).reboot(node, row.write_cache)?;
            write_cache = row.write_cache;
        }
        let begun = Instant::now();
        let mut said = Vec::new();
        let passed = progress.step(&format!("On {node}: {}", row.what), |step| {
            let result = run_test(workspace, step, target, row);
            said = statements(&fs::read_to_string(step.log()).unwrap_or_default());
            result
        });
        if let Err(error) = &passed {
            progress.say(format!("{error:#}"));
            failed.push(row.what);
        }
        known.facts = facts(workspace, progress, target, node)?;
        if let Some(lost) = known.facts.remove("writes").filter(|_| row.write_cache.is_some()) {
            said.push(format!("lost {lost}"));
        }
        let outcome = Outcome {
            passed: passed.is_ok(),
            seconds: begun.elapsed().as_secs(),
            date: results::today()?,
            said,
        };
        known.outcomes.insert(row.what.to_owned(), outcome);
        table::write(workspace, lsm, &known)?;
    }
    progress.say(format!("{} is updated", results::DOCUMENT));
    Ok(failed)
}

/// Runs one test, with all its cases. It must exist.
fn run_test(workspace: &Workspace, step: &Step<'_>, target: &Target<'_>, row: &Row) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root());
    command.args(["test", "--test", "e2e", "--", "--nocapture", row.test]);
    test::on_cluster(&mut command, target)?;
    command.env("E2E_SLOWNESS", SLOWNESS);
    // Paths in the virtual machine.
    command.env("E2E_FSTAB", "/etc/fstab");
    match Cluster::machine_ctr(target.release) {
        Some(path) => command.env("E2E_CTR", path),
        None => command.env_remove("E2E_CTR"),
    };
    let result = step.run(&mut command);
    test::report(step);
    result?;
    let log = fs::read_to_string(step.log()).context("reading the log of the test")?;
    if log.contains("test result: ok. 0 passed") {
        bail!(
            "there is no test {}: the table of rows is in {}",
            row.test,
            file!()
        );
    }
    Ok(())
}

/// What a test said about the node or about losses.
fn statements(log: &str) -> Vec<String> {
    let said = log.lines().filter_map(|line| {
        let fact = line.split_once(FACT).map(|(_, fact)| fact.to_owned());
        fact.or_else(|| losses(line))
    });
    let mut said: Vec<_> = said.collect();
    said.dedup();
    said
}

/// Reads what a trial of `tests/e2e/durability` prints about its files.
fn losses(line: &str) -> Option<String> {
    let found = line.split_once(": Found { ")?.1;
    let number = |name: &str| {
        let rest = found.split_once(&format!("{name}: "))?.1;
        rest.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse::<u32>()
            .ok()
    };
    let lost = found.split_once("lost: [")?.1.split_once(']')?.0;
    let lost = lost.split(',').filter(|name| !name.trim().is_empty()).count();
    Some(format!(
        "lost {lost} of {} fsynced files and {} of {} others",
        number("synced")?,
        number("unsynced_lost")?,
        number("unsynced")?
    ))
}

/// The node's facts: what its journal says, and what its kubelet says.
fn facts(
    workspace: &Workspace,
    progress: &Progress,
    target: &Target<'_>,
    node: &str,
) -> Result<BTreeMap<String, String>> {
    let mut facts = Cluster::new(workspace, progress, pause::provide).machine_facts(node)?;
    for (name, path) in [
        ("kernel", "kernelVersion"),
        ("os", "osImage"),
        ("containerd", "containerRuntimeVersion"),
        ("kubelet", "kubeletVersion"),
    ] {
        let path = format!("jsonpath={{.status.nodeInfo.{path}}}");
        let value = target.kubectl_output(&["get", "node", node, "-o", &path])?;
        facts.insert(name.to_owned(), value.replace("containerd://", ""));
    }
    Ok(facts)
}

fn chosen(names: &[String]) -> Result<Vec<Row>> {
    let is = |row: &&Row| {
        names.is_empty()
            || names
                .iter()
                .any(|name| row.what.contains(name.as_str()) || row.test.contains(name.as_str()))
    };
    let rows: Vec<_> = ROWS.iter().filter(is).copied().collect();
    if rows.is_empty() {
        let all: Vec<_> = ROWS.iter().map(|row| row.what).collect();
        bail!("no row is named so; the rows are: {}", all.join("; "));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::{ROWS, chosen, statements};

    #[test]
    fn what_tests_say_is_found() {
        let log = "test a ... this node: consumers run as x (enforce)\n\
                   node-reboot, trial 0: Found { synced: 100, lost: [], unsynced: 30, unsynced_lost: 7 }, Some(3.0) s\n\
                   node-reboot, trial 1: Found { synced: 9, lost: [\"a\", \"b\"], unsynced: 3, unsynced_lost: 1 }, None s\n";
        assert_eq!(
            statements(log),
            [
                "consumers run as x (enforce)",
                "lost 0 of 100 fsynced files and 7 of 30 others",
                "lost 2 of 9 fsynced files and 1 of 3 others",
            ]
        );
    }

    #[test]
    fn rows_are_chosen_by_their_texts_and_tests() {
        assert_eq!(chosen(&[]).unwrap().len(), ROWS.len());
        assert_eq!(chosen(&["power cut".to_owned()]).unwrap().len(), 2);
        assert_eq!(chosen(&["i6_restricted".to_owned()]).unwrap().len(), 1);
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }
}
