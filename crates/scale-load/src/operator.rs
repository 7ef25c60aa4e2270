//! The operator's process: started, watched, and stopped.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::metrics::{get, operator_sample};

/// How long the operator may take to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// An operator that runs. It is killed when this is dropped.
pub struct Operator {
    child: Child,
    admin: String,
}

// === impl Operator ===

impl Operator {
    /// Starts the command. Its output is that of this program.
    pub fn start(command: &[String], admin: &str) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no operator")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        Ok(Self {
            child,
            admin: admin.to_owned(),
        })
    }

    /// Waits until it is ready, and leads.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended with {status}");
            }
            let ready = get(&self.admin, "/readyz").await.is_ok();
            if ready && operator_sample(&self.admin).await?.value("leader", &[]) > 0.0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the operator is not ready");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it is ready to serve its webhook.
    ///
    /// # Errors
    /// When it ends, or is not ready within `limit`.
    pub async fn serving(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while get(&self.admin, "/readyz").await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended with {status}");
            }
            ensure!(Instant::now() < deadline, "the operator is not ready");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until it has looked at this many objects of each kind.
    pub async fn reconciled(&self, objects: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let sample = operator_sample(&self.admin).await?;
            let done = |kind| sample.value("reconciliations_total", &[("kind", kind), ("result", "done")]);
            let least = done("StoppableContainer").min(done("StoppableContainerInstance"));
            if least >= crate::number(objects) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "only {least} reconciliations after the start"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it as a kubelet does.
    pub async fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(status.success(), "kill ended with {status}");
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the operator does not end");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// Largest resident memory since the start or [`Operator::reset_peak`], in bytes.
    pub fn peak(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Lets [`Operator::peak`] begin anew (proc_pid_clear_refs(5)).
    pub fn reset_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").with_context(|| format!("writing {path}"))
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {field} in {path}"))? * 1024)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
