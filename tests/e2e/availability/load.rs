//! Continuous calls of the webhook through the API server.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use kube::api::PostParams;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, patience};
use tokio::task::JoinSet;

use crate::support::release::PATIENCE;
use crate::support::shell_template;

/// Calls per second.
const RATE: u32 = 50;

/// One call.
pub(crate) struct Call {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) error: Option<String>,
}

/// Runs `work` during continuous calls. Returns the calls and the result of `work`.
pub(crate) async fn under_load<T>(
    ns: &Namespace,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Vec<Call>)> {
    // The client would retry if an API server is busy, and the test would not see the failed call.
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let objects = Api::<StoppableContainer>::namespaced(Client::try_from(config)?, &ns.name);
    let mut calls = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut work = std::pin::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done?,
            _ = pace.tick() => {
                let objects = objects.clone();
                calls.spawn(async move {
                    let begun = Instant::now();
                    let error = dry_run(&objects).await.err().map(|error| error.to_string());
                    Call { begun, ended: Instant::now(), error }
                });
            }
        }
    };
    Ok((done, calls.join_all().await))
}

/// Fails if a call failed, or if there were too few calls for a conclusion.
pub(crate) fn none_failed(calls: &[Call]) -> Result<()> {
    let failed: Vec<_> = calls.iter().filter_map(|call| call.error.as_ref()).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} calls failed: {failed:?}",
        failed.len(),
        calls.len()
    );
    ensure!(calls.len() > 500, "only {} calls were made", calls.len());
    Ok(())
}

/// A dry run that requires a response of the webhook for objects.
pub(crate) async fn dry_run(objects: &Api<StoppableContainer>) -> kube::Result<()> {
    let object: Value = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"generateName": "call-"}, "spec": {"running": false, "template": shell_template()},
    });
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    objects.create(&params, &object).await.map(drop)
}

/// Waits until this number of consecutive calls succeed. Until every API server has the new bundle
/// and every replica the new authority, calls may fail.
pub(crate) async fn callable(ns: &Namespace, times: u32) -> Result<()> {
    let objects = ns.api::<StoppableContainer>();
    let succeed = async {
        let mut row = 0;
        while row < times {
            row = if dry_run(&objects).await.is_ok() {
                row + 1
            } else {
                0
            };
        }
    };
    let timeout = tokio::time::timeout(patience(PATIENCE), succeed).await;
    timeout.map_err(|_| anyhow!("the webhook could not be called within {PATIENCE:?}"))
}
