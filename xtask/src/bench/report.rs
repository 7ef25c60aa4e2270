/*!
`bench report`: the page of `bench starts` and `bench io`. `crates/lifecycle-bench`, which measures
for both, writes it.
*/

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::progress::{Progress, Step};
use crate::workspace::Workspace;

/// The measurements of `bench starts`.
pub(super) const STARTS: &str = "docs/speed/starts.json";
/// The measurements of `bench io`.
pub(super) const IO: &str = "docs/speed/io.json";
const PAGE: &str = "docs/speed.md";
const PLOTS: &str = "docs/speed";

/// Writes the page and its plots. The part of a command that has not recorded measurements stays.
///
/// # Errors
/// If neither command has recorded measurements.
pub(crate) fn run(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let (starts, io) = (workspace.join(STARTS), workspace.join(IO));
    ensure!(
        starts.is_file() || io.is_file(),
        "neither {STARTS} nor {IO} exists: `cargo xtask bench starts` and `cargo xtask bench io` write them"
    );
    progress.expect(1);
    progress.step("Write the page and its plots", |step| {
        let program = program(workspace, step)?;
        let page = workspace.join(PAGE);
        if starts.is_file() {
            let mut command = Command::new(&program);
            command.arg("report").arg("--input").arg(starts);
            command.arg("--page").arg(&page);
            step.run(command.arg("--plots").arg(workspace.join(PLOTS)))?;
        }
        let mut command = Command::new(&program);
        command.arg("io-report").arg("--input").arg(io);
        step.run(command.arg("--page").arg(&page))
    })?;
    progress.say(format!("{PAGE} is updated"));
    Ok(())
}

/// Prints the tables that the program wrote into the log of the step.
pub(super) fn say_tables(step: &Step<'_>) {
    let log = fs::read_to_string(step.log()).unwrap_or_default();
    for line in log.lines().filter(|line| line.starts_with('|')) {
        step.say(line);
    }
}

/// Builds the program, and returns its path. With `--workspace`, its dependencies have the features
/// that the tests have been built with, and are not compiled again.
pub(super) fn program(workspace: &Workspace, step: &Step<'_>) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root());
    step.run(command.args(["build", "--workspace", "--bin", "lifecycle-bench"]))?;
    Ok(workspace.target().join("debug/lifecycle-bench"))
}
