//! The API server's priority and fairness: which FlowSchema handles the product's calls.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::client::Body;
use kube::{Api, ResourceExt};
use testkit::{client_as, in_namespace};

use crate::support::release::Release;

/// Header with the UID of the FlowSchema that handled a request (API priority and fairness,
/// "Debugging").
const HANDLED_BY: &str = "X-Kubernetes-PF-FlowSchema-UID";

async fn handler(user: &str, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Body::empty())?;
    let response = client_as(user).await?.send(request).await?;
    let uid = response.headers().get(HANDLED_BY);
    Ok(uid.context("priority and fairness is off")?.to_str()?.to_owned())
}

/// A client that floods the API server cannot delay the Lease, dry runs of the webhook, or starts.
#[tokio::test]
async fn i18_calls_of_the_product_have_a_priority_of_their_own() {
    in_namespace("priority", async |ns| {
        let release = Release::find(&ns.client).await?;
        let namespace = &release.namespace;
        let pod = release
            .deployment
            .spec
            .as_ref()
            .context("spec")?
            .template
            .spec
            .as_ref();
        let account = pod
            .and_then(|pod| pod.service_account_name.clone())
            .context("account")?;
        let agent = account.replace("-controller", "-node-agent");
        let user = |account: &str| format!("system:serviceaccount:{namespace}:{account}");
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{account}");
        let pods = format!("/api/v1/namespaces/{}/pods?limit=1", ns.name);
        let schemas = Api::<FlowSchema>::all(ns.client.clone());
        for (account, path, level) in [
            (&account, &lease, "leader-election"),
            (&account, &pods, "workload-high"),
            (&agent, &pods, "workload-high"),
        ] {
            let handler = handler(&user(account), path).await?;
            let all = schemas.list(&kube::api::ListParams::default()).await?;
            let schema = all.iter().find(|schema| schema.uid().as_ref() == Some(&handler));
            let schema = schema.with_context(|| format!("{handler} handles {path}"))?;
            let spec = schema.spec.as_ref().context("spec")?;
            ensure!(
                schema.name_any().starts_with("stoppablecontainer"),
                "{}",
                schema.name_any()
            );
            ensure!(
                spec.priority_level_configuration.name == level,
                "{account} {path}: {spec:?}"
            );
        }
        Ok(())
    })
    .await;
}
