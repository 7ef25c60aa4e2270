//! Controllers with short-lived certificates, so that a test sees many of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use serde_json::{Value, json};
use testkit::Namespace;
use tokio_util::sync::CancellationToken;

use super::load::callable;
use crate::support::release::Release;

/// Validity of certificates, as flags of the operator.
#[derive(Clone, Copy)]
pub(crate) struct Lives {
    pub(crate) authority: &'static str,
    pub(crate) leaf: &'static str,
    pub(crate) overlap: &'static str,
}

/// Replaces the controllers by ones whose certificates have this validity, runs `work`, and
/// restores the old ones, also after a failure. Both times all replicas start together and without
/// a Secret, so that even the first authority is new.
pub(crate) async fn with_lives<T>(
    ns: &Namespace,
    release: &Release,
    lives: Lives,
    work: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let spec = release
        .deployment
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref());
    let container = spec.and_then(|s| s.containers.first());
    let container = container.context("the controller has no container")?;
    let flags = [
        ("--certificate-authority-lifetime", lives.authority),
        ("--certificate-lifetime", lives.leaf),
        ("--certificate-overlap", lives.overlap),
    ];
    let is_kept = |arg: &&String| !flags.iter().any(|(flag, _)| arg.starts_with(flag));
    let mut args: Vec<_> = container.args.iter().flatten().filter(is_kept).cloned().collect();
    args.extend(flags.map(|(flag, value)| format!("{flag}={value}")));
    // Otherwise the kubelet ends a process that a test has paused.
    let mut patient = serde_json::to_value(&container.liveness_probe)?;
    patient["failureThreshold"] = json!(1000);

    let outcome = async {
        start_anew(ns, release, json!(args), patient).await?;
        work().await
    }
    .await;
    let restored = start_anew(
        ns,
        release,
        json!(container.args),
        json!(container.liveness_probe),
    )
    .await;
    let done = outcome?;
    restored.context("the old controllers could not be put back")?;
    Ok(done)
}

/// Stops all controllers, deletes the Secret, and starts the same number with these arguments at
/// the same moment (F6). They may create several authorities, of which one is kept.
async fn start_anew(ns: &Namespace, release: &Release, args: Value, liveness: Value) -> Result<()> {
    let (deployments, name) = (release.api::<Deployment>(), release.deployment.name_any());
    let change = async |operations: Value| -> Result<()> {
        let patch: json_patch::Patch = serde_json::from_value(operations)?;
        deployments
            .patch(&name, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await?;
        Ok(())
    };
    let old = release.controllers().await?;
    change(json!([{"op": "replace", "path": "/spec/replicas", "value": 0}])).await?;
    for pod in old {
        let at_once = DeleteParams::default().grace_period(1);
        // The ReplicaSet may have been faster.
        let _ = release.api::<Pod>().delete(&pod.name_any(), &at_once).await;
        release.gone(&pod).await?;
    }
    let secrets = release.api::<Secret>();
    let secret = release.secret().await?.name_any();
    secrets.delete(&secret, &DeleteParams::default()).await?;

    let authorities = authorities_while(release, &secret, async {
        let replicas = release.deployment.spec.as_ref().and_then(|s| s.replicas);
        change(json!([
            {"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args},
            {"op": "replace", "path": "/spec/template/spec/containers/0/livenessProbe", "value": liveness},
            {"op": "replace", "path": "/spec/replicas", "value": replicas},
        ]))
        .await?;
        release.rolled_out().await?;
        callable(ns, 20).await
    })
    .await?;
    ensure!(
        authorities.len() == 1,
        "replicas that started together without a Secret made {} authorities that counted",
        authorities.len()
    );
    ensure!(
        release
            .bundles()
            .await?
            .iter()
            .all(|bundle| authorities.contains(bundle)),
        "the authority in the Secret is not the one that is published"
    );
    Ok(())
}

/// All authorities that are in the Secret during an operation.
async fn authorities_while(
    release: &Release,
    secret: &str,
    work: impl Future<Output = Result<()>>,
) -> Result<BTreeSet<Vec<u8>>> {
    let end = CancellationToken::new();
    let mut events =
        Box::pin(watch_object(release.api::<Secret>(), secret).take_until(end.clone().cancelled_owned()));
    let watching = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while let Some(event) = events.next().await {
            let data = event.ok().flatten().and_then(|secret| secret.data);
            seen.extend(data.and_then(|mut data| data.remove("ca.crt")).map(|pem| pem.0));
        }
        seen
    });
    let done = work.await;
    end.cancel();
    let seen = watching.await?;
    done.map(|()| seen)
}
