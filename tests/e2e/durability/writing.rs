//! The program in the container that writes, and its output.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Namespace, patience};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::trial::NAME;

/// Name of the container that it runs in.
pub(super) const MAIN: &str = "main";
/// First line of its output.
pub(super) const READY_TO_WRITE: &str = "ready to write";
const PROGRAM: &str = include_str!("writer.py");
/// Minimum number of written files before the failure: some of every kind, at every place.
const ENOUGH: u32 = 40;
const PATIENCE: Duration = Duration::from_mins(2);
/// Delay before a log that ended is read again, because its container may be restarting.
const PAUSE: Duration = Duration::from_millis(200);

/// The last file that the program printed. All earlier files are complete too.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    run: String,
    last: u32,
}

/// The result for the files.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Found {
    pub(super) synced: u32,
    /// Synced files that are missing or have different content.
    pub(super) lost: Vec<String>,
    pub(super) unsynced: u32,
    pub(super) unsynced_lost: u32,
}

/// A container that writes, and a reader of its log.
pub(crate) struct Writing {
    heard: watch::Receiver<Option<Acknowledged>>,
    listening: JoinHandle<()>,
}

/// The template of a container that writes on a signal.
pub(super) fn template(limits: &[(&str, &str)]) -> Value {
    let mut main = json!({
        "name": MAIN, "image": "python:3.11", "command": ["python3", "-c", PROGRAM, "write"],
    });
    for (resource, amount) in limits {
        main["resources"]["limits"][resource] = json!(amount);
    }
    json!({ "spec": { "terminationGracePeriodSeconds": 1, "containers": [main] } })
}

/// Sends a signal to the program.
pub(super) async fn signal(ns: &Namespace, signal: &str) -> Result<()> {
    ns.sh(NAME, MAIN, &format!("kill -{signal} 1")).await.map(drop)
}

// === impl Writing ===

impl Writing {
    /// Lets the program write, and waits until it has written a few files.
    pub(super) async fn begin(ns: &Namespace) -> Result<Self> {
        let (said, heard) = watch::channel(None);
        let listening = tokio::spawn(listen(ns.api::<Pod>(), said));
        let mut writing = Self { heard, listening };
        signal(ns, "USR2").await?;
        writing.until(|last| last >= ENOUGH).await?;
        Ok(writing)
    }

    /// The files that it has printed until now.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        let heard = self.heard.borrow().clone();
        heard.unwrap_or(Acknowledged {
            run: String::new(),
            last: 0,
        })
    }

    /// Waits until it has written more files than now.
    pub(super) async fn goes_on(&mut self) -> Result<()> {
        let now = self.acknowledged().last;
        self.until(|last| last > now).await
    }

    async fn until(&mut self, enough: impl Fn(u32) -> bool) -> Result<()> {
        let heard = self
            .heard
            .wait_for(|heard| heard.as_ref().is_some_and(|heard| enough(heard.last)));
        tokio::time::timeout(patience(PATIENCE), heard)
            .await
            .context("the container does not write")?
            .context("the reader of the log ended")?;
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

// === impl Acknowledged ===

impl Acknowledged {
    /// Looks for the files in the container, which must not have written again.
    pub(super) async fn find(&self, ns: &Namespace) -> Result<Found> {
        let last = self.last.to_string();
        let command = ["python3", "-c", PROGRAM, "verify", &self.run, &last];
        let output = ns.exec(NAME, MAIN, &command).await?.success()?;
        serde_json::from_str(&output).context("reading what was found")
    }
}

/// Reads the log of the program, also across interruptions of the connection.
async fn listen(pods: Api<Pod>, said: watch::Sender<Option<Acknowledged>>) {
    let params = LogParams {
        container: Some(MAIN.to_owned()),
        follow: true,
        ..LogParams::default()
    };
    loop {
        if let Ok(log) = pods.log_stream(NAME, &params).await {
            let mut lines = log.lines();
            while let Ok(Some(line)) = lines.try_next().await {
                let Some((run, last)) = line.split_once(' ') else {
                    continue;
                };
                if let Ok(last) = last.parse() {
                    let run = run.to_owned();
                    said.send_replace(Some(Acknowledged { run, last }));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
