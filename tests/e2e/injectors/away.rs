//! Webhooks that are unavailable, slow, or reject the pod: the object waits, names the webhook,
//! does not become Failed, and starts when the webhook allows it.

use anyhow::{Result, ensure};
use injectors::{Injector, SECRET};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer, StoppableContainerInstance};
use testkit::{Hook, Injectors, Namespace, Order, in_namespace};

use super::{MAIN, container, hook, istio_root_certificate, names, spec_of};
use crate::support::{blocked, create, run, running, shell_template, told, told_about};

const NAME: &str = "kept";

/// Waits until the condition of the object's consumer contains `cause`, and checks its form.
async fn waits_for(ns: &Namespace, cause: &str) -> Result<()> {
    let what = format!("its consumer waits for {cause}");
    let object: StoppableContainer = ns
        .wait(NAME, &what, |object: &StoppableContainer| {
            let conditions = object.status.iter().flat_map(|s| &s.conditions);
            conditions
                .clone()
                .any(|c| c.type_ == CONSUMER_READY && c.status == "False" && c.message.contains(cause))
        })
        .await?;
    let phase = object.status.and_then(|s| s.phase);
    ensure!(phase != Some(Phase::Failed), "the phase is Failed for {cause}");
    ensure!(ns.api::<Pod>().get_opt(NAME).await?.is_none(), "there is a pod");
    Ok(())
}

/// Waits until an event of the object contains `cause`.
async fn event_says(ns: &Namespace, cause: &str) -> Result<()> {
    let about = ("StoppableContainer", NAME);
    told_about(ns.api(), about, reason::CREATION_REFUSED, cause).await?;
    Ok(())
}

#[tokio::test]
async fn i12_a_webhook_that_is_away_is_named_and_waited_for() {
    in_namespace("injector-away", async |ns| {
        istio_root_certificate(&ns).await?;
        let server = Injectors::start(&ns).await?;
        let pods = format!("object.metadata.name.startsWith('{NAME}')");
        server
            .register(Order::Before, &[hook(Injector::Istio, &pods)])
            .await?;
        server.leave().await?;

        create(&ns, NAME, true, shell_template()).await?;
        // The provider's label excludes it, so the API server does not call the webhook for it.
        ns.pod_ready(&provider_pod_name(NAME)).await?;
        waits_for(&ns, "istio-0.injectors.test").await?;
        event_says(&ns, "istio-0.injectors.test").await?;

        server.come().await?;
        let pod = running(&ns, NAME).await?;
        ensure!(names(&spec_of(&pod)?, "initContainers") == ["istio-init", "istio-proxy"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn i12_a_refusal_of_another_webhook_is_reported_and_an_edit_helps() {
    in_namespace("injector-refuses", async |ns| {
        let server = Injectors::start(&ns).await?;
        let pods = format!("object.metadata.name.startsWith('{NAME}')");
        server
            .register(Order::After, &[hook(Injector::Vault, &pods)])
            .await?;
        let mut template = shell_template();
        template["spec"]["automountServiceAccountToken"] = json!(false);
        template["metadata"]["annotations"] = json!({
            "vault.hashicorp.com/agent-inject": "true",
            "vault.hashicorp.com/role": "my-role",
            "vault.hashicorp.com/agent-inject-secret-config": "secret/data/my-app/config",
        });
        create(&ns, NAME, true, template).await?;
        let refusal = "failed to find service account volume mount";
        waits_for(&ns, refusal).await?;
        event_says(&ns, refusal).await?;

        let edit = json!({"spec": {"template": {"spec": {"automountServiceAccountToken": true}}}});
        ns.patch::<StoppableContainer>(NAME, edit).await?;
        running(&ns, NAME).await?;
        ensure!(ns.sh(NAME, "main", "cat /vault/secrets/config").await? == format!("password: {SECRET}"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn i3_what_is_undone_after_our_last_call_never_runs() {
    in_namespace("injector-undoes", async |ns| {
        let server = Injectors::start(&ns).await?;
        let last_word = Hook::new(Injector::Remover.name(), "true").with(json!({
            "reinvocationPolicy": "IfNeeded",
            "objectSelector": {"matchLabels": {"stoppablecontainer.xtlsoft.top/role": "consumer"}},
        }));
        server.register(Order::After, &[last_word]).await?;
        create(&ns, NAME, true, shell_template()).await?;
        waits_for(&ns, "/spec/volumes").await?;
        event_says(&ns, "would not run on its kept filesystem").await?;

        server.unregister(Order::After).await?;
        running(&ns, NAME).await.map(drop)
    })
    .await;
}

/// The API server does not call the product's webhooks for such a pod. The scheduling gate holds it
/// until the controller deletes it.
#[tokio::test]
async fn i3_a_consumer_whose_label_was_taken_away_never_runs() {
    in_namespace("injector-unlabels", async |ns| {
        let server = Injectors::start(&ns).await?;
        let pods = format!("object.metadata.name == '{NAME}'");
        let unlabeller = Hook::new(Injector::Unlabeller.name(), &pods);
        server.register(Order::Before, &[unlabeller]).await?;
        create(&ns, NAME, true, shell_template()).await?;
        let message = blocked(&ns, NAME, CONSUMER_READY, reason::NOT_REWRITTEN).await?;
        ensure!(
            message.contains("stoppablecontainer.xtlsoft.top/role"),
            "{message}"
        );
        told(&ns, NAME, reason::NOT_REWRITTEN).await?;
        // Between two attempts the pod does not exist. During an attempt it is not bound to a node.
        if let Some(pod) = ns.api::<Pod>().get_opt(NAME).await? {
            let spec = pod.spec.unwrap_or_default();
            ensure!(
                spec.node_name.is_none() && spec.scheduling_gates.is_some(),
                "{spec:?}"
            );
        }
        let instance = ns.api::<StoppableContainerInstance>().get(NAME).await?;
        let recorded = instance.status.and_then(|status| status.consumer_pod_uid);
        ensure!(recorded.is_none(), "the agent would serve {recorded:?}");

        server.unregister(Order::Before).await?;
        running(&ns, NAME).await.map(drop)
    })
    .await;
}

/// Slower than the timeout of the product's webhook, before and after it.
#[tokio::test]
async fn slow_webhooks_only_take_their_time() {
    in_namespace("injector-slow", async |ns| {
        let server = Injectors::start(&ns).await?;
        for order in Order::BOTH {
            let slow = Hook::new("kyverno/4000", &format!("object.metadata.name == '{NAME}'"));
            server.register(order, &[slow]).await?;
        }
        let mut template = shell_template();
        template["spec"]["containers"][0]["name"] = json!(MAIN);
        let pod = run(&ns, NAME, template).await?;
        let spec = spec_of(&pod)?;
        let security = &container(&spec, MAIN)?["securityContext"];
        ensure!(security["allowPrivilegeEscalation"] == false, "{security}");
        Ok(())
    })
    .await;
}
