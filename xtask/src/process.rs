/*!
Processes that end with this program, however it ends.
*/

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// A process. It is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts a command. Its output goes to a file with the logs of the steps.
    pub(crate) fn start(workspace: &Workspace, name: &str, command: &Command) -> Result<Self> {
        let log = workspace.logs().join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut bound = bound_to_this(command.get_program());
        bound.args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            bound.env(name, value.unwrap_or_default());
        }
        bound.stdout(file.try_clone().context("copying a descriptor")?);
        let child = bound.stderr(file).spawn();
        let child = child.with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }

    /// Waits until it ends.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let status = self.child.wait();
        let status = status.with_context(|| format!("waiting for {}", self.name))?;
        bail!(
            "{} ended with {status}; its log is {}",
            self.name,
            self.log.display()
        )
    }

    /// Fails if it has ended.
    pub(crate) fn require_alive(&mut self) -> Result<()> {
        let name = &self.name;
        let status = self
            .child
            .try_wait()
            .with_context(|| format!("looking at {name}"))?;
        if let Some(status) = status {
            bail!("{name} ended with {status}; its log is {}", self.log.display());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process is killed when the process ends that started it.
pub(crate) fn bound_to_this(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
