/*!
`bench starts`: how long starts and stops take, next to those of plain pods.
`crates/lifecycle-bench` measures on a real cluster.
*/

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::report::{self, STARTS};
use crate::args::StartsArgs;
use crate::images::{noop_csi, product, testing};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::workspace::Workspace;
use crate::{install, results};

/// An image with one static program, which ends at once when it gets SIGTERM.
const IMAGE: &str = "docker.io/test/scratch:1";

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
        (options, workspace.join(STARTS))
    };
    let parent = output.parent().unwrap_or(&output);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let driver = noop_csi::provide(workspace, step, &target.destination)?;
    let mut command = Command::new(report::program(workspace, step)?);
    command.env("KUBECONFIG", &target.kubeconfig);
    command.args(["measure", "--image", IMAGE, "--csi-image", &driver]);
    command.args(["--date", &results::today()?]);
    for (flag, number) in [
        ("rounds", amount.rounds),
        ("burst", amount.burst),
        ("bursts", amount.bursts),
    ] {
        command.arg(format!("--{flag}={number}"));
    }
    command.arg("--output").arg(&output);
    let result = step.run(&mut command);
    report::say_tables(step);
    result
}
