//! `kubectl` as a user runs it: what a test asserts is then what a user sees.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

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

/// Starts `kubectl port-forward` and returns the local port and the process; it ends when dropped.
pub async fn port_forward(namespace: &str, pod: &str, port: u16) -> Result<(u16, Child)> {
    let args = ["-n", namespace, "port-forward", pod, &format!(":{port}")];
    let mut child = command(&args).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("port-forward without stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.next_line().await?.context("port-forward ended at once")?;
    // It says more with every connection, and ends if the receiver is gone.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    // "Forwarding from 127.0.0.1:40123 -> 80"
    let local = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let local = local.with_context(|| format!("port-forward said {line:?}"))?;
    Ok((local.parse()?, child))
}

/// The command itself, for tests that keep it running. It is killed when dropped.
fn command(args: &[&str]) -> Command {
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
