//! The programs of a node and its way to the API server: ended, held up, cut.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use testkit::{Namespace, NodeShell, Undone, cluster_command};

use crate::support::agents::Agents;
use crate::support::node_of;

/// How long a program of the node may take to be back.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at a node whose programs cannot be watched, as the watch goes through one of them.
const PAUSE: Duration = Duration::from_millis(200);

/// How long nothing is heard of a program that is stopped.
const SILENCE: Duration = Duration::from_secs(5);

/// A program that every node runs, and that its service manager starts again when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// The kubelet.
    Kubelet,
    /// containerd or CRI-O. The containers are not its children.
    Runtime,
}

// === impl Part ===

impl Part {
    /// Prints its process id: what it was started as is in the first words of its command line, alone or as the
    /// subcommand of a program that is all of Kubernetes.
    fn find(self) -> &'static str {
        match self {
            Self::Kubelet => {
                "for p in /proc/[0-9]*; do \
                   tr '\\0' '\\n' < $p/cmdline 2>/dev/null | head -n 2 | grep -qxE '(.*/)?kubelet' && echo ${p#/proc/}; \
                 done | head -n 1"
            }
            Self::Runtime => {
                "for p in /proc/[0-9]*; do \
                   tr '\\0' '\\n' < $p/cmdline 2>/dev/null | head -n 1 | grep -qxE '(.*/)?(containerd|crio)' && echo ${p#/proc/}; \
                 done | head -n 1"
            }
        }
    }

    /// Kills it and waits until the next one serves.
    pub(crate) async fn restart(self, node: &NodeShell<'_>) -> Result<()> {
        let old = self.process(node).await?;
        // After the answer, which comes through it.
        Self::later(node, &format!("sleep 0.2; kill -9 {old}")).await?;
        self.back(node, &old).await
    }

    /// Stops it, does `work`, which it does not see, kills it, and waits until the next one serves.
    pub(crate) async fn restart_after<Fut: Future<Output = Result<()>>>(
        self,
        node: &NodeShell<'_>,
        work: impl FnOnce() -> Fut,
    ) -> Result<()> {
        let old = self.process(node).await?;
        // Long enough for a few calls; later they would be seen, which proves less and breaks nothing.
        Self::later(
            node,
            &format!("sleep 0.2; kill -STOP {old}; sleep 5; kill -9 {old}"),
        )
        .await?;
        // A kubelet that is stopped cannot report that it is.
        tokio::time::sleep(Duration::from_millis(500)).await;
        work().await?;
        self.back(node, &old).await
    }

    /// Stops it for as long as the node runs: it sees nothing of what happens from now on.
    pub(crate) async fn suspend(self, node: &NodeShell<'_>) -> Result<()> {
        let process = self.process(node).await?;
        // After the answer, which comes through it.
        Self::later(node, &format!("sleep 0.2; kill -STOP {process}")).await?;
        let deadline = Instant::now() + PATIENCE;
        // Without it no command is answered.
        while tokio::time::timeout(SILENCE, node.sh("true")).await.is_ok() {
            if Instant::now() > deadline {
                bail!("the {self:?} does not stop");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn later(node: &NodeShell<'_>, script: &str) -> Result<()> {
        let script = format!("setsid sh -c '{script}' </dev/null >/dev/null 2>&1 &");
        node.sh(&script).await.map(drop)
    }

    async fn process(self, node: &NodeShell<'_>) -> Result<String> {
        let found = node.sh(self.find()).await?;
        if found.is_empty() {
            bail!("no process on the node is its {self:?}");
        }
        Ok(found)
    }

    /// Commands in pods go through both parts, so that one works again says that they serve.
    async fn back(self, node: &NodeShell<'_>, old: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = tokio::time::timeout(PATIENCE, self.process(node)).await;
            match now {
                Ok(Ok(now)) if now != old => return Ok(()),
                Ok(last) if Instant::now() > deadline => {
                    return last
                        .map(drop)
                        .with_context(|| format!("the {self:?} does not come back"));
                }
                Ok(_) => tokio::time::sleep(PAUSE).await,
                Err(_) => bail!("the {self:?} does not answer any more"),
            }
        }
    }
}

/// A node, and the agent on it, without a way to the API server.
pub(crate) struct Partition(Undone);

// === impl Partition ===

impl Partition {
    pub(crate) async fn cut(ns: &Namespace, node: &str) -> Result<Self> {
        let agents = Agents::find(ns).await?.pods().await?;
        let on_it = agents
            .iter()
            .filter(|pod| node_of(pod).is_ok_and(|at| at == node));
        let addresses: Vec<&str> = on_it.filter_map(address).collect();
        let args = [&[node], &addresses[..]].concat();
        let what = "the command that cuts the node in its next argument, and the pods with the addresses in the others, \
                    off from the API server until its standard input ends";
        Ok(Self(Undone::run("E2E_PARTITION_COMMAND", what, &args).await?))
    }

    pub(crate) async fn heal(self) -> Result<()> {
        self.0.undo().await
    }
}

/// Cuts the power of a node, and starts it again.
pub(crate) async fn reboot(node: &str) -> Result<()> {
    let what = "the command that reboots the node named by its last argument";
    cluster_command("E2E_REBOOT_COMMAND", what, &[node])
        .await
        .map(drop)
}

/// Waits until commands can be run on a node that was rebooted.
pub(crate) async fn until_it_answers(node: &NodeShell<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match node.sh("true").await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
