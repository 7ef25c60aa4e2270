//! Stops and starts at a steady rate, and how long each takes.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::objects::{NAMESPACE, name};
use crate::watched::{Shown, Watched};

/// What came of the stops or starts.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Seconds from the request to the status that shows it, sorted.
    pub(crate) seconds: Vec<f64>,
    /// Seconds from the first request to the last object.
    pub(crate) total: f64,
}

/// Asks `count` objects to stop or to start, `rate` per second, and waits for all.
pub(crate) async fn ask(
    client: &Client,
    watched: &Watched,
    count: usize,
    rate: u32,
    running: bool,
    limit: Duration,
) -> Result<Asked> {
    let api = Api::<StoppableContainer>::namespaced(client.clone(), NAMESPACE);
    let begin = Instant::now();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = JoinSet::new();
    for index in 0..count {
        ticks.tick().await;
        let api = api.clone();
        requests.spawn(async move {
            let asked = Instant::now();
            let patch = Patch::Merge(json!({ "spec": { "running": running } }));
            let object = api.patch(&name(index), &PatchParams::default(), &patch).await?;
            let generation = object.metadata.generation.unwrap_or_default();
            Ok::<_, kube::Error>((object.name_any(), generation, asked))
        });
    }
    let mut asked = Vec::new();
    while let Some(request) = requests.join_next().await {
        asked.push(
            request
                .context("a request panicked")?
                .context("asking an object")?,
        );
    }
    let done = |shown: &Shown| if running { shown.running } else { shown.stopped };
    let deadline = Instant::now() + limit;
    let mut seconds = Vec::new();
    while !asked.is_empty() {
        asked.retain(|(name, generation, since)| {
            let Some(shown) = watched
                .get(name)
                .filter(|shown| done(shown) && shown.generation >= *generation)
            else {
                return true;
            };
            seconds.push(shown.at.duration_since(*since).as_secs_f64());
            false
        });
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} objects did not follow",
            asked.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Asked {
        seconds,
        total: begin.elapsed().as_secs_f64(),
    })
}
