//! What no API server does: commands that whoever runs the tests hands over in variables of the environment.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Runs the command in `variable`, with `args` behind it, in a shell, and returns what it printed.
///
/// # Errors
/// When the variable is not set, saying that it should hold `what`, and when the command fails.
pub async fn cluster_command(variable: &str, what: &str, args: &[&str]) -> Result<String> {
    let command = std::env::var(variable).with_context(|| {
        format!("{variable} is not set: {what} (`cargo xtask test` sets it on the embedded cluster)")
    })?;
    let line = format!("{command} {}", args.join(" "));
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
