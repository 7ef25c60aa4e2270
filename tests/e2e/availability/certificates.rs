//! Certificates are repaired automatically after any manual change (F8, F9).

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;
use testkit::{alone_in_namespace, patience};

use super::load::callable;
use crate::support::release::{PATIENCE, Release};

/// Number of consecutive calls that shows that calls to every replica succeed.
const CALLS: u32 = 20;

#[tokio::test]
async fn f8_a_wiped_ca_bundle_is_restored_and_nothing_else_touched() {
    alone_in_namespace("ca-bundle", async |ns, _alone| {
        let release = Release::find(&ns.client).await?;
        let configurations = release.cluster_api::<ValidatingWebhookConfiguration>();
        let before = release.configuration().await?;
        let name = before.name_any();
        let wipe: json_patch::Patch = serde_json::from_value(json!([
            {"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"},
            {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": "Zm9yZWlnbg=="},
        ]))?;
        // The API server may also reject a bundle that is not a certificate.
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
        callable(&ns, CALLS).await
    })
    .await;
}

#[tokio::test]
async fn f9_a_deleted_or_damaged_secret_is_replaced_and_the_webhook_callable() {
    alone_in_namespace("certificate-secret", async |ns, _alone| {
        let release = Release::find(&ns.client).await?;
        let secrets = release.api::<Secret>();
        let name = release.secret().await?.name_any();
        for damage in [
            None,
            Some(json!({"ca.key": "LS0tLS1CRUdJTg=="})),
            Some(json!({"ca.crt": ""})),
        ] {
            let before = release.configuration().await?;
            match &damage {
                None => drop(secrets.delete(&name, &DeleteParams::default()).await?),
                Some(data) => {
                    let patch = Patch::Merge(json!({"data": data}));
                    secrets.patch(&name, &PatchParams::default(), &patch).await?;
                }
            }
            let configurations = release.cluster_api::<ValidatingWebhookConfiguration>();
            let is_new = |now: &ValidatingWebhookConfiguration| now.webhooks != before.webhooks;
            until(&configurations, &before.name_any(), is_new)
                .await
                .with_context(|| format!("after {damage:?}"))?;
            callable(&ns, CALLS)
                .await
                .with_context(|| format!("after {damage:?}"))?;
        }
        Ok(())
    })
    .await;
}

/// Watches a configuration until `met` holds, with the time limit of a repair.
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
    let timeout = tokio::time::timeout(patience(PATIENCE), found).await;
    timeout.map_err(|_| anyhow!("not repaired within {PATIENCE:?}"))?
}
