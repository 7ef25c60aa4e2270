//! A namespace that is excluded from the webhooks although it contains objects.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::names::{LABEL_ROLE, ROLE_CONSUMER};
use testkit::{Namespace, alone_in_namespace, patience};

use crate::support::{blocked, cleaned_up, run, running, set_running, shell_template, stop};

/// Paths of the excluded namespaces in both configurations, for consumers.
const NAMES: &str = "/webhooks/0/namespaceSelector/matchExpressions/0/values";
/// The API server reads changed configurations after a moment.
const PATIENCE: Duration = Duration::from_mins(2);

/// The administrator excludes the namespace of a stopped object. Its next start creates a pod that
/// the webhooks do not see. The pod does not run, and the object reports why.
#[tokio::test]
async fn i3_no_start_in_a_namespace_that_was_excluded_meanwhile() {
    alone_in_namespace("excluded", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        stop(&ns, "kept").await?;
        exclude::<MutatingWebhookConfiguration>(&ns).await?;
        let tested = start_unseen(&ns).await;
        cleaned_up(tested, include(&ns).await)?;
        running(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /root/file").await? == "kept");
        Ok(())
    })
    .await;
}

async fn start_unseen(ns: &Namespace) -> Result<()> {
    exclude::<ValidatingWebhookConfiguration>(ns).await?;
    until_excluded(ns).await?;
    set_running(ns, "kept", true).await?;
    let message = blocked(ns, "kept", CONSUMER_READY, reason::NOT_REWRITTEN).await?;
    ensure!(message.contains(&format!("namespace {}", ns.name)), "{message}");
    if let Some(pod) = ns.api::<Pod>().get_opt("kept").await? {
        let at = pod.spec.and_then(|spec| spec.node_name);
        ensure!(at.is_none(), "an unseen pod is on node {at:?}");
    }
    Ok(())
}

/// Waits until the API server accepts (dry run) a pod with a consumer's label that the controller
/// did not create.
async fn until_excluded(ns: &Namespace) -> Result<()> {
    let mut probe = shell_template();
    probe["metadata"] = json!({"name": "probe", "labels": {LABEL_ROLE: ROLE_CONSUMER}});
    let probe: Pod = serde_json::from_value(probe)?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods = ns.api::<Pod>();
    let excluded = async { while pods.create(&params, &probe).await.is_err() {} };
    let timeout = tokio::time::timeout(patience(PATIENCE), excluded).await;
    timeout.context("the API server still asks the webhook")
}

async fn configuration<K>(ns: &Namespace) -> Result<K>
where
    K: Resource<Scope = k8s_openapi::ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let ours = ListParams::default().labels("app.kubernetes.io/name=stoppablecontainer");
    let found = ns.cluster_api::<K>().list(&ours).await?.items;
    found
        .into_iter()
        .next()
        .context("no webhook configuration of the release")
}

async fn exclude<K>(ns: &Namespace) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let add = json!([{"op": "add", "path": format!("{NAMES}/-"), "value": ns.name}]);
    change::<K>(ns, add).await
}

/// Removes the test's namespace from both lists.
async fn include(ns: &Namespace) -> Result<()> {
    let mutating = serde_json::to_value(configuration::<MutatingWebhookConfiguration>(ns).await?)?;
    let validating = serde_json::to_value(configuration::<ValidatingWebhookConfiguration>(ns).await?)?;
    let others = |configuration: &Value| {
        let names = configuration.pointer(NAMES).and_then(Value::as_array).cloned();
        let others: Vec<_> = names
            .into_iter()
            .flatten()
            .filter(|name| *name != ns.name)
            .collect();
        json!([{"op": "replace", "path": NAMES, "value": others}])
    };
    change::<MutatingWebhookConfiguration>(ns, others(&mutating)).await?;
    change::<ValidatingWebhookConfiguration>(ns, others(&validating)).await
}

async fn change<K>(ns: &Namespace, patch: Value) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let name = configuration::<K>(ns).await?.name_any();
    let patch: json_patch::Patch = serde_json::from_value(patch)?;
    ns.cluster_api::<K>()
        .patch(&name, &PatchParams::default(), &Patch::<()>::Json(patch))
        .await?;
    Ok(())
}
