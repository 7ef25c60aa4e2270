//! The agents' metrics, as a scraper reads them.

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use testkit::{Namespace, tunnel};

use crate::support::AGENTS;

/// Port and path of the agents' metrics.
pub(crate) const PORT: u16 = 8443;
const PATH: &str = "/metrics";
/// The chart's ClusterRole for scrapers.
const READER: &str = "stoppablecontainer-metrics-reader";

/// The metrics of all agents, read with the token of an authorized service account.
pub(crate) async fn scraped(ns: &Namespace) -> Result<Vec<String>> {
    let token = scraper_token(ns).await?;
    let mut all = Vec::new();
    for agent in agents(ns).await? {
        all.push(read(&agent, Some(&token)).await?);
    }
    Ok(all)
}

/// The token of a service account that may read the agents' metrics.
pub(crate) async fn scraper_token(ns: &Namespace) -> Result<String> {
    let token = token(ns, "scraper").await?;
    bind(ns, "scraper").await?;
    Ok(token)
}

/// The pods of all agents, with the API of their namespace.
pub(crate) async fn agents(ns: &Namespace) -> Result<Vec<(Api<Pod>, String)>> {
    let params = ListParams::default().labels(AGENTS);
    let pods = Api::<Pod>::all(ns.client.clone()).list(&params).await?;
    let agent = |pod: Pod| {
        let api = Api::namespaced(ns.client.clone(), &pod.namespace().unwrap_or_default());
        (api, pod.name_any())
    };
    Ok(pods.into_iter().map(agent).collect())
}

/// An agent's response to a scraper with this token.
pub(crate) async fn read((pods, pod): &(Api<Pod>, String), token: Option<&str>) -> Result<String> {
    let connection = tunnel::open(pods, pod, PORT).await?.encrypted().await?;
    connection.get(PATH, token).await
}

/// A token of a service account, which is created first.
pub(crate) async fn token(ns: &Namespace, account: &str) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(ns.client.clone(), &ns.name);
    let object = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account } });
    accounts
        .patch(account, &PatchParams::apply("e2e"), &Patch::Apply(&object))
        .await?;
    let asked = TokenRequest::default();
    let made = accounts
        .create_token_request(account, &PostParams::default(), &asked)
        .await?;
    Ok(made.status.context("a token request without token")?.token)
}

/// Deleted with the namespace.
async fn bind(ns: &Namespace, account: &str) -> Result<()> {
    let namespaces = Api::<NamespaceObject>::all(ns.client.clone());
    let uid = namespaces.get(&ns.name).await?.uid();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": ns.name, "ownerReferences": [
            { "apiVersion": "v1", "kind": "Namespace", "name": ns.name, "uid": uid },
        ] },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": ns.name }],
    });
    Api::<ClusterRoleBinding>::all(ns.client.clone())
        .patch(&ns.name, &PatchParams::apply("e2e"), &Patch::Apply(&binding))
        .await?;
    Ok(())
}
