/*!
`test`: runs all test classes, the fastest first. The command does not skip a class silently: it
fails if a class cannot run, unless an option excludes the class.
*/

mod runtimes;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::args::Class;
use crate::cluster::Cluster;
use crate::images::{pause, product, testing};
use crate::kernels::{self, Series};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::tools::{Release, Runtime, Tools};
use crate::workspace::Workspace;
use crate::{cluster, durability, fuzz, install, plugin, shell};

/// The test target that needs a cluster.
const E2E: &str = "e2e";
/// Its tests that need more than one node.
const MANY_NODES: &str = "many_nodes::";
/// The kernel whose tests run in a virtual machine beside the end-to-end tests, which have another.
const OLD_KERNEL: Series = Series::V5_10;
/// The release that runs only some end-to-end tests, unless all are wanted.
const OTHER_RELEASE: Release = Release::V1_36;
/// These tests on one node: what depends on the kubelet or the container runtime. All tests on
/// several nodes run on this release, too.
const ON_OTHER_RELEASE: &[&str] = &[
    "lifecycle::samples::",
    "lifecycle::stopped::",
    "images::",
    "node::csi::",
    "storage::volumes::",
    "parity::",
];
/// Test targets that compute for minutes and touch nothing but their own process. They run beside
/// the end-to-end tests, which mostly wait.
const COMPUTING: &[&str] = &["interleavings", "memory"];
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

/// The variable with the directory of `prometheus` and `promtool`.
const PROMETHEUS_VARIABLE: &str = "PROMETHEUS_PROGRAMS";
/// The variable with the path of helm.
const HELM_VARIABLE: &str = "HELM";
/// Variables with paths of the nodes for end-to-end tests.
const NODE_PATHS: &[(&str, &str)] = &[("E2E_DISK", cluster::DISK), ("E2E_FSTAB", cluster::FSTAB)];

/// Options of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// Runs only this class.
    pub class: Option<Class>,
    /// Kernels to run it under; the machine's own if empty.
    pub kernels: &'a [Series],
    /// See [`Target::choose`].
    pub registry: Option<&'a str>,
    /// Skips the end-to-end tests.
    pub skip_e2e: bool,
    /// Includes the longest tests.
    pub all: bool,
    /// See [`Target::choose`].
    pub kubernetes: Option<Release>,
    /// Container runtime of the local cluster's nodes.
    pub runtime: Runtime,
    /// Runs only the tests whose names contain one of these texts. All tests if empty.
    pub names: &'a [String],
}

/// Threads of the end-to-end tests, unless the variable of the test harness says otherwise: one for
/// each test. `testkit` limits how many run at the same time.
const THREADS: &str = "1000";
/// The variable for this number.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Number of the slowest end-to-end tests that are printed, so that CI stays short.
const SLOWEST: usize = 12;
/// The variable with the file of their times.
const TIMES_VARIABLE: &str = "E2E_TIMES";

/// The variable with the path of the plugin.
const PLUGIN_VARIABLE: &str = "E2E_PLUGIN";
/// Number of serving certificates per replica in the rotation test: by default, and with `--all`.
const ROTATIONS: (&str, &str) = ("3", "10");
/// The variable for this number.
const ROTATIONS_VARIABLE: &str = "E2E_ROTATIONS";

/// The variable that makes the interleavings complete instead of a sample, and its value.
const INTERLEAVINGS: (&str, &str) = ("INTERLEAVINGS", "all");

/// Runs the tests.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the mount tests need root: run this command as root, for example with `sudo -E`");
    }
    if let Some(Class::Rootfs) = options.class {
        return run_rootfs(workspace, progress, options);
    }
    if options.runtime != Runtime::default() {
        return runtimes::run(workspace, progress, options);
    }
    let classes = test_targets(workspace)?;
    progress.expect(5 + classes.len());
    Tools::prepare_tests(progress)?;
    let tools = Tools::of(workspace);
    tools.prepare_prometheus(progress)?;
    tools.prepare_helm(progress)?;
    let unit = ["--workspace", "--lib", "--bins"];
    progress.step("Unit tests", |step| cargo_test(workspace, step, &unit, options))?;
    progress.step("Tests in documentation", |step| {
        cargo_test(workspace, step, &["--workspace", "--doc"], options)
    })?;
    // Everything in its order, unless a part of it can run beside the end-to-end tests.
    let at_once = options.all || options.skip_e2e || !options.names.is_empty();
    let is_computing = |class: &str| COMPUTING.contains(&class);
    for class in &classes {
        if class != E2E && (at_once || !is_computing(class)) {
            test_class(workspace, progress, options, class)?;
        }
    }
    if options.names.is_empty() && at_once {
        fuzz::test(workspace, progress, options.all)?;
    }
    if options.names.is_empty() && options.all {
        progress.expect(kernels::steps(Series::ALL));
        kernels::run(workspace, progress, Series::ALL, &[])?;
    }
    if options.skip_e2e {
        progress.say("SKIPPED: the end-to-end tests (--skip-e2e)");
        return Ok(());
    }
    if !classes.iter().any(|class| class == E2E) {
        bail!("the workspace does not have a test target {E2E}");
    }
    let release = options.kubernetes.unwrap_or_default();
    let target = deploy(workspace, progress, options, release)?;
    if !options.names.is_empty() {
        return progress.step("End-to-end tests", |step| {
            let names: Vec<_> = options.names.iter().map(String::as_str).collect();
            e2e(workspace, step, &names, options, &target)
        });
    }
    // Another cluster has one release, and a release that is named is the only one.
    let one_release = options.kubernetes.is_some() || !target.local;
    if options.all {
        all_e2e(workspace, progress, options, &target)?;
        if one_release {
            return Ok(());
        }
        let target = deploy(workspace, progress, options, OTHER_RELEASE)?;
        return all_e2e(workspace, progress, options, &target);
    }
    say_left_out(progress, one_release)?;
    progress.expect(kernels::steps(&[OLD_KERNEL]));
    let machine = kernels::prepare(workspace, progress, &[OLD_KERNEL], &[])?;
    let in_background = || {
        // nice(2): the thread and the programs that it starts. The end-to-end tests mostly wait.
        rustix::process::nice(19)?;
        machine.run(progress)?;
        for class in classes.iter().filter(|class| is_computing(class)) {
            test_class(workspace, progress, options, class)?;
        }
        fuzz::test(workspace, progress, options.all)?;
        if one_release {
            return Ok(());
        }
        progress.expect(Tools::CLUSTER_STEPS);
        let tools = Tools::of(workspace).with_release(OTHER_RELEASE);
        tools.prepare_cluster(workspace, progress)
    };
    if one_release {
        return beside(in_background, || all_e2e(workspace, progress, options, &target));
    }
    beside(in_background, || {
        e2e_on_one_node(workspace, progress, options, &target)
    })?;
    let target = deploy(workspace, progress, options, OTHER_RELEASE)?;
    progress.expect(1);
    let step = format!("Some end-to-end tests on Kubernetes {}", OTHER_RELEASE.name());
    progress.step(&step, |step| {
        e2e(workspace, step, ON_OTHER_RELEASE, options, &target)
    })?;
    e2e_on_several_nodes(workspace, progress, options, &target)
}

fn test_class(workspace: &Workspace, progress: &Progress, options: &Options<'_>, class: &str) -> Result<()> {
    progress.step(&format!("Tests: {class}"), |step| {
        cargo_test(workspace, step, &["--workspace", "--test", class], options)
    })
}

/// Prints what a run without `--all` does not include.
fn say_left_out(progress: &Progress, one_release: bool) -> Result<()> {
    let kernels = Series::ALL.iter().filter(|series| **series != OLD_KERNEL);
    let release = if one_release {
        "other releases of Kubernetes than this cluster's".to_owned()
    } else {
        let (some, default) = (ON_OTHER_RELEASE.join(" "), Release::default().name());
        format!(
            "on Kubernetes {} the tests on one node but for {some}; on {default} those on several nodes",
            OTHER_RELEASE.name()
        )
    };
    progress.say(format!(
        "LEFT OUT (run with --all): {}; kernels {}; {release}; {} of {} generated pods; {} of {} certificate rotations; \
         interleavings beyond the sample",
        durability::LEFT_OUT.join(", "),
        kernels.map(Series::to_string).collect::<Vec<_>>().join(", "),
        fuzz::ALL_PODS - fuzz::SOME_INPUTS,
        fuzz::ALL_PODS,
        ROTATIONS.1.parse::<u32>()? - ROTATIONS.0.parse::<u32>()?,
        ROTATIONS.1,
    ));
    Ok(())
}

/// Brings up the cluster and installs the product and the test images.
fn deploy<'a>(
    workspace: &'a Workspace,
    progress: &Progress,
    options: &Options<'_>,
    release: Release,
) -> Result<Target<'a>> {
    let target = Target::choose(
        workspace,
        progress,
        options.registry,
        Some(release),
        Some(options.runtime),
    )?;
    if target.local && options.names.is_empty() {
        Cluster::new(workspace, progress, pause::provide).keep_first_node()?;
    }
    progress.expect(product::STEPS + install::STEPS + testing::STEPS);
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    install::run(workspace, progress, &target, &tag, &install::Options::default())?;
    if target.destination.takes_test_images() {
        testing::provide(workspace, progress, &target.destination)?;
    }
    Ok(target)
}

/// Does two things at the same time. The error of the second one comes first.
fn beside(one: impl FnOnce() -> Result<()> + Send, other: impl FnOnce() -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|_| bail!("a thread panicked"));
        other.and(one)
    })
}

/// All end-to-end tests, in two runs: nodes that the second one adds do not change what the others
/// measure.
fn all_e2e(
    workspace: &Workspace,
    progress: &Progress,
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    e2e_on_one_node(workspace, progress, options, target)?;
    e2e_on_several_nodes(workspace, progress, options, target)
}

fn e2e_on_one_node(
    workspace: &Workspace,
    progress: &Progress,
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    progress.expect(1);
    progress.step("End-to-end tests on one node", |step| {
        e2e(workspace, step, &["--skip", MANY_NODES], options, target)
    })
}

fn e2e_on_several_nodes(
    workspace: &Workspace,
    progress: &Progress,
    options: &Options<'_>,
    target: &Target<'_>,
) -> Result<()> {
    progress.expect(1);
    progress.step("End-to-end tests on several nodes", |step| {
        e2e(workspace, step, &[MANY_NODES], options, target)
    })
}

/// Runs the tests that depend on the kernel.
fn run_rootfs(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    if !options.kernels.is_empty() {
        progress.expect(kernels::steps(options.kernels));
        return kernels::run(workspace, progress, options.kernels, options.names);
    }
    progress.expect(1 + kernels::PACKAGES.len());
    Tools::prepare_tests(progress)?;
    for (package, targets) in kernels::PACKAGES {
        progress.step(&format!("Tests: {package}"), |step| {
            let args: Vec<_> = ["--package", package].iter().chain(*targets).copied().collect();
            cargo_test(workspace, step, &args, options)
        })?;
    }
    Ok(())
}

/// Runs the end-to-end tests that `filters` selects, as arguments of the test program.
fn e2e(
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
    let result = run_tests(step, &mut command);
    step.say(format!(
        "      slowest: {}",
        slowest(&std::fs::read_to_string(&times).unwrap_or_default())
    ));
    result
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

/// Runs tests that do not need a cluster.
fn cargo_test(workspace: &Workspace, step: &Step<'_>, args: &[&str], options: &Options<'_>) -> Result<()> {
    let mut command = cargo(workspace, args);
    if options.all {
        let (variable, all) = INTERLEAVINGS;
        command.env(variable, all);
    }
    if !options.names.is_empty() {
        command.arg("--").args(options.names);
    }
    run_tests(step, &mut command)
}

/// `cargo test` with these arguments.
fn cargo(workspace: &Workspace, args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).arg("test").args(args);
    command.env_remove("KUBECONFIG");
    let tools = Tools::of(workspace);
    command.env(PROMETHEUS_VARIABLE, tools.prometheus());
    command.env(HELM_VARIABLE, tools.helm_program());
    command
}

/// Runs `cargo test` and prints how many tests passed.
fn run_tests(step: &Step<'_>, command: &mut Command) -> Result<()> {
    let result = step.run(command);
    report(step);
    result
}

/// Says which tests of a step's log failed and why, and how many passed.
pub(crate) fn report(step: &Step<'_>) {
    let log = std::fs::read_to_string(step.log()).unwrap_or_default();
    for line in failures(&log) {
        step.say(format!("      {line}"));
    }
    step.say(format!("      {}", summary(&log)));
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

/// Number of lines of a panic's message to print.
const PANIC_LINES: usize = 6;

/// The failed tests in a log: their names, and the beginning of each panic's message.
fn failures(log: &str) -> Vec<&str> {
    let lines: Vec<_> = log.lines().collect();
    let of_line = |(at, line): (usize, &&str)| {
        let count = if line.starts_with("test ") && line.ends_with("... FAILED") {
            1
        } else if line.starts_with("thread '") && line.contains("panicked at") {
            1 + PANIC_LINES
        } else {
            0
        };
        at..lines.len().min(at + count)
    };
    lines
        .iter()
        .enumerate()
        .flat_map(of_line)
        .map(|at| lines[at])
        .collect()
}

/// Adds up the summaries of the test programs in a log.
fn summary(log: &str) -> String {
    let results: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "))
        .collect();
    let sum = |what: &str| -> u32 {
        let counts = results.iter().filter_map(|line| {
            let before = line
                .split(what)
                .next()
                .filter(|before| before.len() < line.len())?;
            before.split_whitespace().last()?.parse::<u32>().ok()
        });
        counts.sum()
    };
    format!(
        "{} passed, {} failed, {} skipped",
        sum(" passed"),
        sum(" failed"),
        sum(" ignored")
    )
}

/// The names of the workspace's integration tests.
fn test_targets(workspace: &Workspace) -> Result<Vec<String>> {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace.root())
        .args(["metadata", "--no-deps", "--format-version=1"]);
    let metadata: serde_json::Value =
        serde_json::from_str(&shell::output(&mut command)?).context("reading cargo's metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let mut names: Vec<_> = tests
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{failures, slowest, summary};

    #[test]
    fn the_slowest_tests_come_first() {
        let times = "1.4 a\n12.6 b::c\nnonsense\n3.0 d\n";
        assert_eq!(slowest(times), "b::c 13 s, d 3 s, a 1 s");
    }

    #[test]
    fn failures_are_named_with_their_reasons() {
        let log = "test a ... ok\ntest b ... FAILED\nother\nthread 'b' panicked at b.rs:1:2:\nthe reason";
        let said = [
            "test b ... FAILED",
            "thread 'b' panicked at b.rs:1:2:",
            "the reason",
        ];
        assert_eq!(failures(log), said);
    }

    #[test]
    fn summaries_add_up() {
        let log = "test a ... ok\n\
                   test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                   test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(summary(log), "5 passed, 1 failed, 1 skipped");
    }
}
