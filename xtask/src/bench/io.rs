/*!
`bench io`: input, output and system calls in a kept filesystem, next to a plain pod of the same
image on the same node. `crates/io-load` is the program in the images, and `crates/lifecycle-bench`
executes it in both containers.
*/

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::report::{self, IO};
use crate::args::IoArgs;
use crate::images::io::Image;
use crate::images::{self, product};
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::workspace::Workspace;
use crate::{install, results};

/// Numbers of layers that `--quick` measures.
const QUICK: [u32; 2] = [1, 60];

/// Installs the product and measures.
///
/// # Errors
/// If an operation does not end. A missed goal is not an error.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: IoArgs) -> Result<()> {
    let target = Target::choose(workspace, progress, None, None, None)?;
    progress.expect(product::STEPS + install::STEPS);
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    install::run(workspace, progress, &target, &tag, &install::Options::default())?;
    progress.expect(images::io::STEPS + 1);
    let images = images::io::provide(workspace, progress, &target.destination)?;
    let title = "Measure input and output (about 8 minutes, less with --quick)";
    progress.step(title, |step| measure(workspace, step, &target, options, &images))
}

fn measure(
    workspace: &Workspace,
    step: &Step<'_>,
    target: &Target<'_>,
    options: IoArgs,
    images: &[Image],
) -> Result<()> {
    let (rounds, output) = if options.quick {
        (1, workspace.target().join("bench/io-quick.json"))
    } else {
        (options.rounds, workspace.join(IO))
    };
    let parent = output.parent().unwrap_or(&output);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let mut command = Command::new(report::program(workspace, step)?);
    command.env("KUBECONFIG", &target.kubeconfig);
    command.arg("io").arg(format!("--rounds={rounds}"));
    command.args(["--date", &results::today()?]);
    let wanted = |image: &&Image| !options.quick || QUICK.contains(&image.layers);
    for image in images.iter().filter(wanted) {
        command.arg(format!("--image={}={}", image.layers, image.name));
    }
    command.arg("--output").arg(&output);
    let result = step.run(&mut command);
    report::say_tables(step);
    result
}
