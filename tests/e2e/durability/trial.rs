//! A row of the table: repeated trials of one failure, and the losses of each.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::Namespace;

use super::writing::{self, Acknowledged, Found, MAIN, READY_TO_WRITE, Writing};
use crate::support::agents::Agents;
use crate::support::{container_id, disk_directory, node_of, running, says, start, stop};

/// Name of the container that writes.
pub(crate) const NAME: &str = "writer";
/// The longest time between the first files and the failure.
const SOONEST: Duration = Duration::from_millis(500);

/// A row.
pub(crate) struct Row {
    name: &'static str,
    limits: Vec<(&'static str, &'static str)>,
    prefix: Option<String>,
    node: Option<String>,
}

/// Result of a failure.
pub(crate) struct Happened {
    since: Option<Instant>,
    acknowledged: Option<Acknowledged>,
    afterwards: Option<&'static str>,
}

/// Number of trials of each failure: `E2E_TRIALS`.
pub(crate) fn number_of_trials() -> u32 {
    let given = std::env::var("E2E_TRIALS").ok();
    given.and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// A file that does not exist counts as lost. Without this check the table would contain only
/// zeros.
pub(crate) async fn sees_losses(ns: &Namespace) -> Result<()> {
    let writing = Writing::begin(ns).await?;
    stop(ns, NAME).await?;
    start(ns, NAME).await?;
    says(ns, NAME, READY_TO_WRITE).await?;
    let acknowledged = writing.acknowledged();
    ns.sh(NAME, MAIN, "rm /root/*-0; rm -r /etc/*-5; : > /root/*-32 || true")
        .await?;
    let found = acknowledged.find(ns).await?;
    ensure!(found.lost.len() >= 2, "lost files are not seen: {found:?}");
    Ok(())
}

// === impl Happened ===

impl Happened {
    /// The container was stopped. Its time out of service starts at that time.
    pub(crate) fn interrupted(since: Instant) -> Self {
        Self {
            since: Some(since),
            acknowledged: None,
            afterwards: None,
        }
    }

    /// The container kept writing.
    pub(crate) fn unnoticed() -> Self {
        Self {
            since: None,
            acknowledged: None,
            afterwards: None,
        }
    }

    /// Files that the program printed later than this do not count.
    pub(crate) fn knowing(self, acknowledged: Acknowledged) -> Self {
        Self {
            acknowledged: Some(acknowledged),
            ..self
        }
    }

    /// A command to run in the container before the next trial.
    pub(crate) fn then(self, script: &'static str) -> Self {
        Self {
            afterwards: Some(script),
            ..self
        }
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            limits: Vec::new(),
            prefix: None,
            node: None,
        }
    }

    /// The container has a limit of a resource.
    pub(crate) fn limited(mut self, resource: &'static str, amount: &'static str) -> Self {
        self.limits.push((resource, amount));
        self
    }

    /// The filesystem is on the disk that the test mounts.
    pub(crate) fn on_a_disk(self) -> Result<Self> {
        Ok(Self {
            prefix: Some(disk_directory()?),
            ..self
        })
    }

    /// The container runs on this node.
    pub(crate) fn at(self, node: &str) -> Self {
        let node = Some(node.to_owned());
        Self { node, ..self }
    }

    /// Runs as many trials as were asked for.
    pub(crate) async fn run<E>(&self, ns: &Namespace, event: E) -> Result<()>
    where
        E: AsyncFn(&Writing, &Pod) -> Result<Happened>,
    {
        self.run_times(ns, number_of_trials(), event).await
    }

    /// Runs trials.
    pub(crate) async fn run_times<E>(&self, ns: &Namespace, times: u32, event: E) -> Result<()>
    where
        E: AsyncFn(&Writing, &Pod) -> Result<Happened>,
    {
        let mut object = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": { "name": NAME },
            "spec": { "running": true, "template": writing::template(&self.limits) },
        });
        if let Some(prefix) = &self.prefix {
            object["spec"]["hostPathPrefix"] = json!(prefix);
        }
        if let Some(node) = &self.node {
            object["spec"]["template"]["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
        }
        ns.create_json::<StoppableContainer>(object).await?;
        let mut trials = self.recorded()?;
        for trial in 0..times {
            let (found, seconds) = self
                .trial(ns, &event)
                .await
                .with_context(|| format!("{}, trial {trial}", self.name))?;
            println!("{}, trial {trial}: {found:?}, {seconds:?} s", self.name);
            trials.push(json!({
                "synced": found.synced, "lost": found.lost.len(), "unsynced": found.unsynced,
                "unsyncedLost": found.unsynced_lost, "seconds": seconds,
            }));
            self.record(&trials)?;
            ensure!(found.lost.is_empty(), "synced files were lost: {:?}", found.lost);
        }
        Ok(())
    }

    async fn trial<E>(&self, ns: &Namespace, event: &E) -> Result<(Found, Option<f64>)>
    where
        E: AsyncFn(&Writing, &Pod) -> Result<Happened>,
    {
        let before = running(ns, NAME).await?;
        says(ns, NAME, READY_TO_WRITE).await?;
        let mut writing = Writing::begin(ns).await?;
        tokio::time::sleep(some_time()?).await;
        let happened = event(&writing, &before).await?;
        let mut seconds = None;
        if let Some(since) = happened.since {
            again(ns, &before).await?;
            seconds = Some(since.elapsed().as_secs_f64());
        } else {
            writing.goes_on().await?;
            let now = ns.pod_ready(NAME).await?;
            ensure!(
                container_id(&now, MAIN)? == container_id(&before, MAIN)?,
                "the container was restarted"
            );
            stop(ns, NAME).await?;
            start(ns, NAME).await?;
            says(ns, NAME, READY_TO_WRITE).await?;
        }
        let acknowledged = happened.acknowledged.unwrap_or_else(|| writing.acknowledged());
        let found = acknowledged.find(ns).await?;
        if let Some(script) = happened.afterwards {
            ns.sh(NAME, MAIN, script).await?;
        }
        // The kubelet delays the restart of a container that ends often, except in a new pod.
        if ns.pod_ready(NAME).await?.metadata.uid == before.metadata.uid {
            stop(ns, NAME).await?;
            start(ns, NAME).await?;
        }
        Ok((found, seconds))
    }

    /// Earlier trials.
    fn recorded(&self) -> Result<Vec<Value>> {
        let Some(file) = self.file().filter(|file| file.exists()) else {
            return Ok(Vec::new());
        };
        serde_json::from_slice(&std::fs::read(file)?).context("reading earlier trials")
    }

    fn record(&self, trials: &[Value]) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        std::fs::write(&file, serde_json::to_vec(trials)?)
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Where `E2E_DURABILITY` has the results.
    fn file(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(std::env::var_os("E2E_DURABILITY")?);
        Some(directory.join(format!("{}.json", self.name)))
    }
}

/// A node on which containers can run.
pub(crate) async fn some_node(ns: &Namespace) -> Result<String> {
    let agents = Agents::find(ns).await?.pods().await?;
    node_of(agents.first().context("no agent on any node")?)
}

/// Waits until the container runs as a new one, and its program too.
async fn again(ns: &Namespace, before: &Pod) -> Result<()> {
    let old = container_id(before, MAIN)?;
    let another = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let leaving = pod.metadata.deletion_timestamp.is_some();
        ready && !leaving && container_id(pod, MAIN).is_ok_and(|id| id != old)
    };
    ns.wait(NAME, "it runs again", another).await?;
    // The kubelet reports a container that waits for its filesystem as running.
    says(ns, NAME, READY_TO_WRITE).await
}

/// A different time for each call.
fn some_time() -> Result<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(SOONEST * (now.subsec_micros() % 1000) / 1000)
}
