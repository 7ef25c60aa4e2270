/*!
The plugin `kubectl stopc`: the binary, as a user runs it.
*/

mod copying;
mod files;
mod home;
mod kubectl;
mod newcomer;
mod problems;
mod screens;
mod verbs;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use testkit::{Namespace, Output};
use tokio::process::Command;

/// The variable with the path of the plugin.
const PLUGIN: &str = "E2E_PLUGIN";

/// The plugin: the one that `E2E_PLUGIN` names, else the one that was built next to this program.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PLUGIN) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let built = own
        .ancestors()
        .nth(2)
        .context("a test program without a target directory")?;
    let path = built.join("kubectl-stopc");
    ensure!(
        path.is_file(),
        "{PLUGIN} is not set, and {} does not exist: run `cargo build -p kubectl-stopc`",
        path.display()
    );
    Ok(path)
}

/// Runs `kubectl-stopc -n NAMESPACE ARGS` without a terminal.
async fn stopc(ns: &Namespace, args: &[&str]) -> Result<Output> {
    let output = Command::new(program()?)
        .args(["-n", &ns.name])
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Asserts an exit code, and words on standard error.
fn failed(output: &Output, code: i32, words: &str) -> Result<()> {
    ensure!(
        output.code == code && output.stderr.contains(words),
        "not {code} with {words:?}: {output:#?}"
    );
    Ok(())
}

/// Creates a container that sleeps, with the plugin, and waits until it runs.
async fn create(ns: &Namespace, name: &str) -> Result<()> {
    let line = [
        "create",
        name,
        "--image",
        "ubuntu:22.04",
        "--command",
        "--",
        "/bin/sleep",
        "infinity",
    ];
    stopc(ns, &line).await?.success().map(drop)
}
