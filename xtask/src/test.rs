/*!
`test`: runs all test classes, the fastest first. The command does not skip a class silently: it
fails if a class cannot run, unless an option excludes the class.
*/

mod beside;
mod e2e;
mod outcome;
mod releases;
mod runtimes;

pub(crate) use e2e::on_cluster;
pub(crate) use outcome::{Counts, counts, report};

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::{Class, StartsArgs};
use crate::cluster::Cluster;
use crate::images::{pause, product, testing};
use crate::kernels::{self, Series};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::tools::{Release, Runtime, Tools};
use crate::workspace::Workspace;
use crate::{bench, durability, fuzz, install, shell};

use e2e::{E2E, ON_ONE_NODE, ON_OTHER_RELEASE, ON_SEVERAL_NODES, ROTATIONS};

pub(crate) use beside::run as run_other_release;

/// The kernel whose tests run in a virtual machine beside the end-to-end tests, which have another.
const OLD_KERNEL: Series = Series::V5_10;
/// The release that runs only a part of the end-to-end tests of one node, unless all are wanted.
const OTHER_RELEASE: Release = Release::V1_36;
/// See nice(2): of what only computes beside the end-to-end tests, which mostly wait.
const COMPUTING_NICENESS: i32 = 19;
/// Of everything else.
const ORDINARY_NICENESS: i32 = 0;
/// Between two looks at whether the second cluster may start.
const PAUSE: Duration = Duration::from_secs(1);
/// Test targets that compute for minutes and touch nothing but their own process. They run beside
/// the end-to-end tests, which mostly wait.
const COMPUTING: &[&str] = &[INTERLEAVINGS, "memory"];

/// The variable with the directory of `prometheus` and `promtool`.
const PROMETHEUS_VARIABLE: &str = "PROMETHEUS_PROGRAMS";
/// The variable with the path of helm.
const HELM_VARIABLE: &str = "HELM";
/// The variable with the directory of Kubernetes' descriptions of its API.
const SCHEMAS_VARIABLE: &str = "KUBERNETES_SCHEMAS";

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

/// The test target that is complete with `--all`, and a sample otherwise.
const INTERLEAVINGS: &str = "interleavings";

/// Runs the tests, and prints how long they took.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    let begun = Instant::now();
    let result = run_classes(workspace, progress, options);
    let minutes = begun.elapsed().as_secs().div_ceil(60);
    progress.say(format!("      the tests took {minutes} minutes"));
    result
}

fn run_classes(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
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
    progress.expect(6 + classes.len());
    Tools::prepare_tests(progress)?;
    let tools = Tools::of(workspace);
    tools.prepare_prometheus(progress)?;
    tools.prepare_helm(progress)?;
    tools.prepare_schemas(progress)?;
    let unit = ["--workspace", "--lib", "--bins"];
    progress.step("Unit tests", |step| cargo_test(workspace, step, &unit, options))?;
    progress.step("Tests in documentation", |step| {
        cargo_test(workspace, step, &["--workspace", "--doc"], options)
    })?;
    // Everything in its order, unless a part of it can run beside the end-to-end tests.
    let in_order = options.all || options.skip_e2e || !options.names.is_empty();
    let is_computing = |class: &str| COMPUTING.contains(&class);
    for class in &classes {
        if class != E2E && (in_order || !is_computing(class)) {
            test_class(workspace, progress, options, class)?;
        }
    }
    if options.names.is_empty() && in_order && !options.all {
        fuzz::check(workspace, progress)?;
    }
    if options.names.is_empty() && options.all {
        fuzz::test(workspace, progress)?;
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
            e2e::run(workspace, step, &names, options, &target)
        });
    }
    progress.expect(1);
    progress.step("Benchmark of starts, its counts", |step| {
        bench::starts::measure(workspace, step, &target, &StartsArgs::QUICK)
    })?;
    // Another cluster has one release, and a release that is named is the only one.
    let one_release = options.kubernetes.is_some() || !target.local;
    let all = [&ON_ONE_NODE, &ON_SEVERAL_NODES];
    if options.all {
        e2e::run_parts(workspace, progress, &all, options, &target)?;
        if one_release {
            return Ok(());
        }
        let target = deploy(workspace, progress, options, OTHER_RELEASE)?;
        return e2e::run_parts(workspace, progress, &all, options, &target);
    }
    say_left_out(progress, one_release)?;
    progress.expect(kernels::steps(&[OLD_KERNEL]));
    let machine = kernels::prepare(workspace, progress, &[OLD_KERNEL], &[])?;
    let computing = || {
        // Linux sets the value of the calling thread and of the programs that it starts.
        rustix::process::setpriority_process(None, COMPUTING_NICENESS)?;
        machine.run(progress)?;
        for class in classes.iter().filter(|class| is_computing(class)) {
            test_class(workspace, progress, options, class)?;
        }
        fuzz::check(workspace, progress)
    };
    if one_release {
        return at_once(computing, || {
            e2e::run_parts(workspace, progress, &all, options, &target)
        });
    }
    let alone = e2e::alone_file(workspace);
    let _ = std::fs::remove_file(&alone);
    let ended = AtomicBool::new(false);
    let on_other_release = || {
        rustix::process::setpriority_process(None, COMPUTING_NICENESS)?;
        progress.expect(Tools::CLUSTER_STEPS);
        let tools = Tools::of(workspace).with_release(OTHER_RELEASE);
        tools.prepare_cluster(workspace, progress)?;
        // Tests that share a cluster fill the processors.
        while !alone.exists() && !ended.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
        rustix::process::setpriority_process(None, ORDINARY_NICENESS)?;
        beside::start(progress)
    };
    at_once(computing, || {
        at_once(on_other_release, || {
            let result = e2e::run_parts(workspace, progress, &[&ON_ONE_NODE], options, &target);
            ended.store(true, Ordering::Relaxed);
            result
        })
    })
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
        let (some, default) = (ON_OTHER_RELEASE.filters.join(" "), Release::default().name());
        format!(
            "on Kubernetes {} the tests on one node but for {some}; on {default} those on several nodes",
            OTHER_RELEASE.name()
        )
    };
    progress.say(format!(
        "LEFT OUT (run with --all): {}; kernels {}; {release}; fuzzing ({} inputs for each target, {} generated pods); \
         {} of {} certificate rotations; interleavings beyond the sample",
        durability::LEFT_OUT.join(", "),
        kernels.map(Series::to_string).collect::<Vec<_>>().join(", "),
        fuzz::INPUTS,
        fuzz::PODS,
        ROTATIONS.1.parse::<u32>()? - ROTATIONS.0.parse::<u32>()?,
        ROTATIONS.1,
    ));
    progress.say("LEFT OUT (see CONTRIBUTING.md): nodes in virtual machines (--vm), nodes with CRI-O (--runtime cri-o)");
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
fn at_once(one: impl FnOnce() -> Result<()> + Send, other: impl FnOnce() -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|_| bail!("a thread panicked"));
        other.and(one)
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

/// Runs tests that do not need a cluster.
fn cargo_test(workspace: &Workspace, step: &Step<'_>, args: &[&str], options: &Options<'_>) -> Result<()> {
    let mut command = cargo(workspace, args);
    if options.all && args.contains(&INTERLEAVINGS) {
        // All interleavings take an hour without optimization.
        command.args(["--profile", "local"]).env("INTERLEAVINGS", "all");
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
    command.env(SCHEMAS_VARIABLE, tools.schemas());
    command
}

/// Runs `cargo test` and prints how many tests passed.
fn run_tests(step: &Step<'_>, command: &mut Command) -> Result<()> {
    let result = step.run(command);
    report(step);
    result
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
