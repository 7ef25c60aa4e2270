//! Pods that are created through the API server: without a webhook, with the reference, and with
//! the product's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Variant};
use crate::quantiles::{Measured, Times, closed_loop};

/// Deletions under way at the same time.
const CONCURRENCY: usize = 32;

/// Whether the pods are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Mode {
    DryRun,
    Real,
}

/// The variants in turn, in each round from another one on. Every round creates every pod once.
pub(crate) async fn rounds(
    cluster: &Cluster,
    pods: &[Value],
    clients: usize,
    mode: Mode,
    rounds: usize,
    limit: Duration,
) -> Result<Vec<(Variant, Measured)>> {
    let mut parts: Vec<_> = Variant::ALL.map(|variant| (variant, Times::default())).into();
    for round in 0..rounds {
        for turn in 0..parts.len() {
            let index = (round + turn) % parts.len();
            let variant = parts[index].0;
            let times = round_of(cluster, pods, clients, mode, variant).await?;
            parts[index].1.add(times);
            if mode == Mode::Real {
                remove(cluster, variant, limit).await?;
            }
        }
    }
    let parts = parts.into_iter();
    Ok(parts
        .map(|(variant, times)| (variant, times.measured()))
        .collect())
}

async fn round_of(
    cluster: &Cluster,
    pods: &[Value],
    clients: usize,
    mode: Mode,
    variant: Variant,
) -> Result<Times> {
    let api: Api<Pod> = Api::namespaced(cluster.controller.clone(), variant.namespace());
    let pods = pods.iter().map(|pod| serde_json::from_value::<Pod>(pod.clone()));
    let mut pods: Vec<Pod> = pods.collect::<Result<_, _>>()?;
    for pod in &mut pods {
        pod.metadata.namespace = Some(variant.namespace().to_owned());
    }
    let params = PostParams {
        dry_run: mode == Mode::DryRun,
        ..PostParams::default()
    };
    let count = pods.len();
    let pods = std::sync::Arc::new(pods);
    let send = move |number: usize, ()| {
        let (api, pods, params) = (api.clone(), pods.clone(), params.clone());
        async move {
            let created = api.create(&params, &pods[number]).await;
            let checked = created
                .map_err(anyhow::Error::from)
                .and_then(|pod| variant.check(&pod));
            ((), checked)
        }
    };
    closed_loop(vec![(); clients], count, send).await
}

/// Deletes the pods of a round, and waits until they are gone. They have no node, so the API server
/// removes them at once.
async fn remove(cluster: &Cluster, variant: Variant, limit: Duration) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.admin.clone(), variant.namespace());
    let deadline = Instant::now() + limit;
    loop {
        let pods = api.list_metadata(&ListParams::default()).await?.items;
        if pods.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "pods of {variant:?} are not removed");
        let params = DeleteParams::default().grace_period(0);
        stream::iter(pods)
            .map(|pod| {
                let (api, params) = (&api, &params);
                async move {
                    let name = pod.metadata.name.unwrap_or_default();
                    let deleted = api.delete(&name, params).await;
                    deleted.map(drop).with_context(|| format!("deleting pod {name}"))
                }
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        sleep(Duration::from_millis(20)).await;
    }
}
