//! The plugin as kubectl runs it.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use testkit::in_namespace;
use tokio::process::Command;

use super::{create, program, stopc};

/// kubectl finds the plugin under both names, and completes its command line.
#[tokio::test]
async fn plugin_kubectl_runs_and_completes_it() {
    in_namespace("plugin-kubectl", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let dir = std::env::temp_dir().join(format!("{}-bin", ns.name));
        std::fs::create_dir_all(&dir)?;
        let result = in_directory(&dir, &ns.name).await;
        std::fs::remove_dir_all(&dir)?;
        result
    })
    .await;
}

async fn in_directory(dir: &Path, namespace: &str) -> Result<()> {
    for name in ["kubectl-stopc", "kubectl-sc", "kubectl_complete-stopc"] {
        symlink(program()?, dir.join(name))?;
    }
    for verb in ["stopc", "sc"] {
        let said = kubectl(dir, &[verb, "-n", namespace, "list", "-o", "name"]).await?;
        ensure!(said.ends_with("/kept\n"), "{verb}: {said}");
    }
    let said = kubectl(dir, &["__complete", "stopc", "-n", namespace, "stop", "ke"]).await?;
    ensure!(
        said.lines().any(|line| line.starts_with("kept")),
        "no name of a container: {said}"
    );
    Ok(())
}

/// kubectl with the plugins of a directory.
async fn kubectl(dir: &Path, args: &[&str]) -> Result<String> {
    let own = std::env::var_os("KUBECTL").unwrap_or_else(|| OsString::from("kubectl"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(dir.to_owned()).chain(std::env::split_paths(&path)))?;
    let output = Command::new(own)
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("kubectl cannot be started")?;
    ensure!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The log and the attached process are those of the main container.
#[tokio::test]
async fn plugin_logs_of_the_main_container() {
    in_namespace("plugin-logs", async |ns| -> Result<()> {
        let line = [
            "create",
            "talks",
            "--image",
            "ubuntu:22.04",
            "--command",
            "--",
            "/bin/sh",
            "-c",
            "echo hello; exec sleep infinity",
        ];
        stopc(&ns, &line).await?.success()?;
        let log = stopc(&ns, &["logs", "talks"]).await?.success()?;
        ensure!(log.lines().any(|line| line == "hello"), "{log}");
        Ok(())
    })
    .await;
}
