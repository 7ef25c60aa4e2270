//! The programs of a node and its connection to the API server: ended, paused, cut.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use testkit::{Namespace, NodeShell, Undone, cluster_command, patience};

use crate::support::agents::Agents;
use crate::support::{node_of, running};

/// Time limit for a program of the node to be back.
const PATIENCE: Duration = Duration::from_mins(2);
/// Interval for checks of a node whose programs cannot be watched, because the watch depends on
/// them.
const PAUSE: Duration = Duration::from_millis(200);

/// Time that a program is paused.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a response may take to leave the node.
const RESPONSE: Duration = Duration::from_millis(300);

/// A program of every node, which its service manager restarts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// The kubelet.
    Kubelet,
    /// containerd or CRI-O. The containers are not its children.
    Runtime,
}

// === impl Part ===

impl Part {
    /// Prints its process ID. The first words of the command line have the program's name, alone or
    /// as a subcommand of a program that contains all of Kubernetes.
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

    /// Kills the program and waits until the next one serves.
    pub(crate) async fn restart(self, node: &NodeShell<'_>) -> Result<()> {
        let old = self.process(node).await?;
        Self::later(node, &format!("kill -9 {old}")).await?;
        self.back(node, &old).await
    }

    /// Pauses the program, runs `work`, which the program does not see, kills it, and waits until
    /// the next one serves.
    pub(crate) async fn restart_after<Fut: Future<Output = Result<()>>>(
        self,
        node: &NodeShell<'_>,
        work: impl FnOnce() -> Fut,
    ) -> Result<()> {
        let old = self.process(node).await?;
        // Sufficient for a few calls. If it is too short, the program sees them, and the test
        // proves less but does not fail.
        Self::later(node, &format!("kill -STOP {old}; sleep 5; kill -9 {old}")).await?;
        // A paused kubelet cannot report itself.
        tokio::time::sleep(2 * patience(RESPONSE)).await;
        work().await?;
        self.back(node, &old).await
    }

    /// Pauses the program until the node is rebooted, so that it does not see anything from now on.
    pub(crate) async fn suspend(self, node: &NodeShell<'_>) -> Result<()> {
        let process = self.process(node).await?;
        Self::later(node, &format!("kill -STOP {process}")).await?;
        let deadline = Instant::now() + patience(PATIENCE);
        // Without it, commands are not answered.
        while tokio::time::timeout(SILENCE, node.sh("true")).await.is_ok() {
            if Instant::now() > deadline {
                bail!("the {self:?} does not stop");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Runs a script after the response, which the program transports. If the program ends before
    /// all the same, the response never comes. What the script does shows that it ran.
    async fn later(node: &NodeShell<'_>, script: &str) -> Result<()> {
        let pause = patience(RESPONSE).as_secs_f32();
        let script = format!("setsid sh -c 'sleep {pause}; {script}' </dev/null >/dev/null 2>&1 &");
        let answer = tokio::time::timeout(patience(SILENCE), node.sh(&script)).await;
        answer.map_or(Ok(()), |answer| answer.map(drop))
    }

    async fn process(self, node: &NodeShell<'_>) -> Result<String> {
        let found = node.sh(self.find()).await?;
        if found.is_empty() {
            bail!("no process on the node is its {self:?}");
        }
        Ok(found)
    }

    /// Commands in pods need both parts, so a successful command shows that they serve.
    async fn back(self, node: &NodeShell<'_>, old: &str) -> Result<()> {
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            let now = tokio::time::timeout(patience(PATIENCE), self.process(node)).await;
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

/// A node, including its agent, without a connection to the API server.
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

/// Waits until commands can run on a node after a reboot.
pub(crate) async fn until_it_answers(node: &NodeShell<'_>) -> Result<()> {
    until_it_works(async || node.sh("true").await).await
}

/// Waits for phase Running, and until commands can run in the kept filesystem, after a reboot of
/// the node. A container that the kubelet restarts there waits for its filesystem, and the kubelet
/// calls it ready meanwhile.
pub(crate) async fn running_after_reboot(ns: &Namespace, name: &str) -> Result<Pod> {
    let pod = running(ns, name).await?;
    until_it_works(async || ns.sh(name, "main", "true").await).await?;
    Ok(pod)
}

/// Repeats a command. No object of the API shows when a command can run, so there is nothing to
/// watch.
async fn until_it_works(command: impl AsyncFn() -> Result<String>) -> Result<()> {
    let deadline = Instant::now() + patience(PATIENCE);
    loop {
        match command().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
