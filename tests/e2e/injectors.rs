//! Other vendors' admission webhooks, as servers that change pods in the same way as the originals
//! (`crates/injectors`), before and after the product's webhook.

use anyhow::{Context, Result};
use injectors::Injector;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Value, json};
use testkit::{Hook, Namespace};

mod away;
mod examples;
mod five_starts;
pub(crate) mod kueue;

/// Name of the main container in these templates.
const MAIN: &str = "app";

/// Registration of a stand-in: the selectors of the original.
pub(crate) fn hook(injector: Injector, pods: &str) -> Hook {
    let hook = Hook::new(injector.name(), pods);
    match injector {
        // istio/istio manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml
        Injector::Istio | Injector::IstioFirst | Injector::IstioLast => hook.with(json!({"objectSelector": {
            "matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}],
        }})),
        // kyverno/kyverno pkg/controllers/webhook/controller.go
        Injector::Kyverno => hook.with(json!({"reinvocationPolicy": "IfNeeded"})),
        _ => hook,
    }
}

/// The ConfigMap that every pod with an Istio sidecar mounts. istiod creates it in every namespace.
async fn istio_root_certificate(ns: &Namespace) -> Result<()> {
    ns.create_json::<ConfigMap>(json!({
        "metadata": {"name": "istio-ca-root-cert"}, "data": {"root-cert.pem": "stand-in"},
    }))
    .await
    .map(drop)
}

/// The comparable part of the spec. The API server generates the name of the token volume.
fn spec_of(pod: &Pod) -> Result<Value> {
    let spec = serde_json::to_value(pod.spec.as_ref().context("a pod without spec")?)?;
    let made_up = list(&spec["volumes"])
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"));
    let Some(made_up) = made_up.map(str::to_owned) else {
        return Ok(spec);
    };
    Ok(serde_json::from_str(
        &spec.to_string().replace(&made_up, "kube-api-access"),
    )?)
}

/// A container of a spec. Init containers are included.
fn container<'a>(spec: &'a Value, name: &str) -> Result<&'a Value> {
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(|key| list(&spec[key]))
        .find(|container| container["name"] == name)
        .with_context(|| format!("no container {name} in {spec:#}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value of a variable in a container's spec.
fn variable<'a>(container: &'a Value, name: &str) -> &'a str {
    let env = list(&container["env"]).iter();
    let found = env.rev().find(|variable| variable["name"] == name);
    found
        .and_then(|variable| variable["value"].as_str())
        .unwrap_or_default()
}

/// Names of the containers at `key`.
fn names<'a>(spec: &'a Value, key: &str) -> Vec<&'a str> {
    let containers = list(&spec[key]).iter();
    containers
        .filter_map(|container| container["name"].as_str())
        .collect()
}

/// Owned by the namespace, so it is deleted with it.
pub(crate) async fn priority_class(ns: &Namespace, name: &str) -> Result<()> {
    let owner = ns.cluster_api::<NamespaceObject>().get(&ns.name).await?;
    let class: PriorityClass = serde_json::from_value(json!({
        "metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Namespace", "name": owner.name_any(), "uid": owner.uid()},
        ]},
        "value": 1000,
    }))?;
    match ns.cluster_api().create(&PostParams::default(), &class).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context("the priority class"),
    }
}
