//! `kubectl` as a user runs it: what a test asserts is then what a user sees.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command printed, and its exit code.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `kubectl ARGS` (the program that `KUBECTL` names, else the one on `PATH`) with `input` as
/// standard input.
pub async fn kubectl(args: &[&str], input: &str) -> Result<Output> {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl cannot be started: put it on PATH or name it in KUBECTL")?;
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The command itself, for tests that keep it running (`port-forward`). It is killed when dropped.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into()));
    command.args(args).kill_on_drop(true);
    command
}

// === impl Output ===

impl Output {
    /// Standard output of a command that has to succeed.
    pub fn success(self) -> Result<String> {
        anyhow::ensure!(
            self.code == 0,
            "exit code {}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }
}
