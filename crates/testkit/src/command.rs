//! What an API server cannot do: commands from variables of the environment.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A command that does something, says so, and undoes it when its standard input ends: also when
/// the test fails.
pub struct Undone {
    line: String,
    child: Child,
    input: ChildStdin,
}

/// Runs the command in `variable`, with `args` behind it, in a shell, and returns what it printed.
///
/// # Errors
/// When the variable is not set, saying that it should hold `what`, and when the command fails.
pub async fn cluster_command(variable: &str, what: &str, args: &[&str]) -> Result<String> {
    let line = command_line(variable, what, args)?;
    let output = Command::new("/bin/sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "`{line}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads a variable that is not a command.
///
/// # Errors
/// As [`cluster_command`].
pub fn cluster_fact(variable: &str, what: &str) -> Result<String> {
    std::env::var(variable).with_context(|| {
        format!("{variable} is not set: {what} (`cargo xtask test` sets it on the embedded cluster)")
    })
}

fn command_line(variable: &str, what: &str, args: &[&str]) -> Result<String> {
    Ok(format!("{} {}", cluster_fact(variable, what)?, args.join(" ")))
}

// === impl Undone ===

impl Undone {
    /// Runs the command in `variable`, as [`cluster_command`] does, and waits until it has done its
    /// work.
    pub async fn run(variable: &str, what: &str, args: &[&str]) -> Result<Self> {
        let line = command_line(variable, what, args)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a command without standard input")?;
        let output = child.stdout.take().context("a command without standard output")?;
        let said = BufReader::new(output).lines().next_line().await?;
        ensure!(said.is_some(), "`{line}` ended with {}", child.wait().await?);
        Ok(Self { line, child, input })
    }

    /// Has it undone and waits for that.
    pub async fn undo(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        ensure!(status.success(), "`{}` ended with {status}", self.line);
        Ok(())
    }
}
