//! The webhook stays callable: through a rolling update, and whatever somebody does to its certificates.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, alone_in_namespace};
use tokio::task::JoinSet;

use crate::support::shell_template;

/// How long a repair is waited for. It takes a moment; a loaded machine is given more than any repair may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Requests per second during a rolling update (F3).
const RATE: u32 = 50;

#[tokio::test]
async fn f3_no_call_fails_during_five_rolling_updates() {
    alone_in_namespace("rollout", async |ns, _alone| {
        let mut calls = JoinSet::new();
        let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
        let mut updates = std::pin::pin!(async {
            for update in 0..5 {
                restart(&ns, update).await?;
            }
            anyhow::Ok(())
        });
        loop {
            tokio::select! {
                done = &mut updates => break done?,
                _ = pace.tick() => {
                    let objects = ns.api::<StoppableContainer>();
                    calls.spawn(async move { dry_run(&objects).await });
                }
            }
        }
        let results = calls.join_all().await;
        let failed: Vec<_> = results
            .iter()
            .filter_map(|r| r.as_ref().err())
            .map(ToString::to_string)
            .collect();
        ensure!(
            failed.is_empty(),
            "{} of {} calls failed: {failed:?}",
            failed.len(),
            results.len()
        );
        ensure!(results.len() > 500, "only {} calls were made", results.len());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn f8_a_wiped_ca_bundle_is_restored_and_nothing_else_touched() {
    alone_in_namespace("ca-bundle", async |ns, _alone| {
        let configurations = ns.cluster_api::<ValidatingWebhookConfiguration>();
        let before = configuration(&ns).await?;
        let name = before.name_any();
        let wipe: json_patch::Patch = serde_json::from_value(json!([
            {"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"},
            {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": "Zm9yZWlnbg=="},
        ]))?;
        // A bundle that is no certificate is refused by the API server, which is as good.
        let wiped = configurations
            .patch(&name, &PatchParams::default(), &Patch::<()>::Json(wipe))
            .await;
        if wiped.is_err() {
            let wipe: json_patch::Patch = serde_json::from_value(
                json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]),
            )?;
            configurations
                .patch(&name, &PatchParams::default(), &Patch::<()>::Json(wipe))
                .await?;
        }
        let after = until(&configurations, &name, |now| now.webhooks == before.webhooks).await?;
        ensure!(
            after.metadata.labels == before.metadata.labels,
            "labels were touched"
        );
        callable(&ns).await
    })
    .await;
}

#[tokio::test]
async fn f9_a_deleted_or_damaged_secret_is_replaced_and_the_webhook_callable() {
    alone_in_namespace("certificate-secret", async |ns, _alone| {
        let (secrets, name) = secret(&ns).await?;
        for damage in [
            None,
            Some(json!({"ca.key": "LS0tLS1CRUdJTg=="})),
            Some(json!({"ca.crt": ""})),
        ] {
            let before = configuration(&ns).await?;
            match &damage {
                None => drop(secrets.delete(&name, &DeleteParams::default()).await?),
                Some(data) => {
                    let patch = Patch::Merge(json!({"data": data}));
                    secrets.patch(&name, &PatchParams::default(), &patch).await?;
                }
            }
            let configurations = ns.cluster_api::<ValidatingWebhookConfiguration>();
            let is_new = |now: &ValidatingWebhookConfiguration| now.webhooks != before.webhooks;
            until(&configurations, &before.name_any(), is_new)
                .await
                .with_context(|| format!("after {damage:?}"))?;
            callable(&ns).await.with_context(|| format!("after {damage:?}"))?;
        }
        Ok(())
    })
    .await;
}

/// A dry run that the webhook for objects must answer.
async fn dry_run(objects: &Api<StoppableContainer>) -> kube::Result<()> {
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

/// Every API server must hear of a new bundle, and every replica of a new authority: until then calls may fail.
async fn callable(ns: &Namespace) -> Result<()> {
    let objects = ns.api::<StoppableContainer>();
    let succeed = async {
        let mut row = 0;
        while row < 20 {
            row = if dry_run(&objects).await.is_ok() {
                row + 1
            } else {
                0
            };
        }
    };
    let timeout = tokio::time::timeout(PATIENCE, succeed).await;
    timeout.map_err(|_| anyhow!("the webhook could not be called within {PATIENCE:?}"))
}

async fn controller(ns: &Namespace) -> Result<(Api<Deployment>, String)> {
    let labels = "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=controller";
    let found = Api::<Deployment>::all(ns.client.clone())
        .list(&ListParams::default().labels(labels))
        .await?
        .items;
    let deployment = found
        .first()
        .context("no Deployment of the controller on this cluster")?;
    let replicas = deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or_default();
    ensure!(
        replicas >= 2,
        "the webhook needs two replicas for this, not {replicas}"
    );
    let namespace = deployment.namespace().unwrap_or_default();
    Ok((
        Api::namespaced(ns.client.clone(), &namespace),
        deployment.name_any(),
    ))
}

/// A rolling update from its beginning until the last old pod is gone.
async fn restart(ns: &Namespace, update: u32) -> Result<()> {
    let (deployments, name) = controller(ns).await?;
    let pods = Api::<Pod>::namespaced(ns.client.clone(), deployments.namespace().unwrap_or_default());
    let labels = "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=controller";
    let old = pods.list(&ListParams::default().labels(labels)).await?.items;

    let mark = format!("{}-{update}", ns.name);
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"e2e/restarted": mark}}}}});
    deployments
        .patch(&name, &PatchParams::default(), &Patch::Merge(change))
        .await?;
    for pod in old {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let gone = await_condition(pods.clone(), &name, is_deleted(&uid));
        let timeout = tokio::time::timeout(Duration::from_mins(2), gone).await;
        timeout.with_context(|| format!("pod {name} of the old revision stays"))??;
    }
    Ok(())
}

async fn configuration(ns: &Namespace) -> Result<ValidatingWebhookConfiguration> {
    let params = ListParams::default().labels("app.kubernetes.io/name=stoppablecontainer");
    let found = ns
        .cluster_api::<ValidatingWebhookConfiguration>()
        .list(&params)
        .await?
        .items;
    found
        .into_iter()
        .next()
        .context("no ValidatingWebhookConfiguration of the webhook on this cluster")
}

async fn secret(ns: &Namespace) -> Result<(Api<Secret>, String)> {
    let params = ListParams::default().labels("app.kubernetes.io/name=stoppablecontainer");
    let found = Api::<Secret>::all(ns.client.clone()).list(&params).await?.items;
    let is_ours = |secret: &&Secret| {
        secret
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key("ca.key"))
    };
    let secret = found
        .iter()
        .find(is_ours)
        .context("no Secret with the webhook's authority on this cluster")?;
    let namespace = secret.namespace().unwrap_or_default();
    Ok((Api::namespaced(ns.client.clone(), &namespace), secret.name_any()))
}

/// Watches a configuration until `met` holds, for as long as a repair may take.
async fn until(
    configurations: &Api<ValidatingWebhookConfiguration>,
    name: &str,
    met: impl Fn(&ValidatingWebhookConfiguration) -> bool,
) -> Result<ValidatingWebhookConfiguration> {
    let mut watch = std::pin::pin!(watch_object(configurations.clone(), name));
    let found = async {
        while let Some(event) = watch.next().await {
            if let Some(configuration) = event.ok().flatten().filter(&met) {
                return Ok(configuration);
            }
        }
        bail!("the watch of the configuration ended")
    };
    let timeout = tokio::time::timeout(PATIENCE, found).await;
    timeout.map_err(|_| anyhow!("not repaired within {PATIENCE:?}"))?
}
