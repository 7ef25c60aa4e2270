//! Edits while a container runs, and the time when they take effect.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{READY, RESTART_REQUIRED};
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{Namespace, in_namespace};

use crate::support::{condition, run, shell_template, start, stop, uid_of};

async fn memory_of_provider(ns: &Namespace) -> Result<(String, String)> {
    let pod = ns.api::<Pod>().get(&provider_pod_name("kept")).await?;
    let spec = pod.spec.as_ref().context("no spec")?;
    let requests = spec.containers[0]
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    let memory = requests.and_then(|requests| requests.get("memory"));
    Ok((
        uid_of(&pod),
        memory.map(|memory| memory.0.clone()).unwrap_or_default(),
    ))
}

/// The condition names the edited fields without their values. Consumer and provider do not change
/// until the stop.
#[tokio::test]
async fn i12_edits_while_it_runs_are_named_and_take_effect_when_nothing_runs() {
    in_namespace("edited", async |ns| {
        let consumer = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let (provider, _) = memory_of_provider(&ns).await?;
        let mut template = shell_template();
        template["spec"]["containers"][0]["env"] = json!([{"name": "TOKEN", "value": "secret-of-mine"}]);
        let patch = json!({"spec": {
            "template": template,
            "provider": {"resources": {"requests": {"cpu": "10m", "memory": "20Mi"}}},
        }});
        ns.patch::<StoppableContainer>("kept", patch).await?;
        let told = |object: &StoppableContainer| {
            let message = |kind: &str| {
                let (status, _, message) = condition(object, kind)?;
                (status == "True").then(|| message.to_owned())
            };
            let (Some(required), Some(ready)) = (message(RESTART_REQUIRED), message(READY)) else {
                return false;
            };
            let fields = ["spec.provider.resources", "spec.template.spec.containers[0].env"];
            fields
                .iter()
                .all(|field| required.contains(field) && ready.contains(field))
                && !required.contains("secret-of-mine")
        };
        ns.wait("kept", "Ready, and a restart is required", told).await?;
        ensure!(
            uid_of(&ns.api::<Pod>().get("kept").await?) == uid_of(&consumer),
            "it was restarted"
        );
        let same = memory_of_provider(&ns).await?;
        ensure!(
            same.0 == provider && same.1 == "16Mi",
            "the provider was replaced below it"
        );

        stop(&ns, "kept").await?;
        let (_, memory) = memory_of_provider(&ns).await?;
        ensure!(memory == "20Mi", "Stopped, and the provider requests {memory}");
        start(&ns, "kept").await?;
        let seen = ns.sh("kept", "main", "echo $TOKEN; cat /root/file").await?;
        ensure!(seen == "secret-of-mine\nkept", "{seen}");
        let done = |object: &StoppableContainer| condition(object, RESTART_REQUIRED).is_none();
        ns.wait("kept", "no restart is required", done).await.map(drop)
    })
    .await;
}
