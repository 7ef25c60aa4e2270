/*!
`bench starts`: how long starts and stops take, next to those of plain pods.
`crates/lifecycle-bench` measures on a real cluster, and makes the page of `bench report`.
*/

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::args::StartsArgs;
use crate::images::{product, testing};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::workspace::Workspace;
use crate::{install, shell};

/// An image with one static program, which ends at once when it gets SIGTERM.
const IMAGE: &str = "docker.io/test/scratch:1";
/// The measurements, the page and the plots.
const RESULTS: &str = "docs/speed/starts.json";
const PAGE: &str = "docs/speed.md";
const PLOTS: &str = "docs/speed";

/// Installs the product and measures.
///
/// # Errors
/// If an operation does not end, or needs more of something than its limit. A missed goal of times
/// is not an error.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: &StartsArgs) -> Result<()> {
    let target = Target::choose(workspace, progress, None, None, None)?;
    progress.expect(product::STEPS + install::STEPS);
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    install::run(workspace, progress, &target, &tag, &install::Options::default())?;
    progress.expect(testing::STEPS_OF_ONE + 1);
    testing::provide_one(workspace, progress, &target.destination, IMAGE)?;
    progress.step("Measure starts and stops", |step| {
        measure(workspace, step, &target, options)
    })
}

/// Measures a cluster that has the product and the image.
pub(crate) fn measure(
    workspace: &Workspace,
    step: &Step<'_>,
    target: &Target<'_>,
    options: &StartsArgs,
) -> Result<()> {
    let (amount, output) = if options.quick {
        (
            &StartsArgs::QUICK,
            workspace.target().join("bench/starts-quick.json"),
        )
    } else {
        (options, workspace.join(RESULTS))
    };
    let parent = output.parent().unwrap_or(&output);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let mut command = Command::new(program(workspace, step)?);
    command.env("KUBECONFIG", &target.kubeconfig);
    command.args(["measure", "--image", IMAGE]);
    command.args(["--date", shell::capture("date", ["-u", "+%F"])?.trim()]);
    for (flag, number) in [
        ("rounds", amount.rounds),
        ("burst", amount.burst),
        ("bursts", amount.bursts),
    ] {
        command.arg(format!("--{flag}={number}"));
    }
    command.arg("--output").arg(&output);
    let result = step.run(&mut command);
    let log = fs::read_to_string(step.log()).unwrap_or_default();
    for line in log.lines().filter(|line| line.starts_with('|')) {
        step.say(line);
    }
    result
}

/// `bench report`: writes the page and the plots.
pub(crate) fn report(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let input = workspace.join(RESULTS);
    ensure!(
        input.is_file(),
        "{RESULTS} does not exist: `cargo xtask bench starts` writes it"
    );
    progress.expect(1);
    progress.step("Write the page and its plots", |step| {
        let mut command = Command::new(program(workspace, step)?);
        command.arg("report").arg("--input").arg(input);
        command.arg("--page").arg(workspace.join(PAGE));
        command.arg("--plots").arg(workspace.join(PLOTS));
        step.run(&mut command)
    })?;
    progress.say(format!("{PAGE} is updated"));
    Ok(())
}

/// Builds the program, and returns its path. With `--workspace`, its dependencies have the features
/// that the tests have been built with, and are not compiled again.
fn program(workspace: &Workspace, step: &Step<'_>) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root());
    step.run(command.args(["build", "--workspace", "--bin", "lifecycle-bench"]))?;
    Ok(workspace.target().join("debug/lifecycle-bench"))
}
