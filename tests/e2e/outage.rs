//! While the webhook is down only consumers wait, and nothing needs a human afterwards.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, alone_in_namespace, kubectl};

use crate::support::{run, running, shell_template};

#[tokio::test]
async fn i10_f1_webhook_down_only_consumers_wait_and_heal_alone() {
    alone_in_namespace("outage", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;

        let (services, name) = webhook_service(&ns).await?;
        let before = services.get(&name).await?;
        redirect(&services, &name, json!({"nobody": "serves-this"})).await?;
        let outcome = async {
            // The API server has open connections to the webhook; they end with its pods. The new ones reconcile, and
            // nobody can reach them.
            replace_controllers(&before).await?;
            while_down(&ns).await
        }
        .await;
        let selector = before
            .spec
            .and_then(|s| s.selector)
            .context("the webhook's Service has no selector")?;
        let restored = redirect(&services, &name, json!(selector)).await;
        outcome.and(restored)?;

        running(&ns, "kept").await?;
        ensure!(
            ns.sh("kept", "main", "cat /root/file").await? == "kept",
            "the file is gone"
        );
        Ok(())
    })
    .await;
}

async fn while_down(ns: &Namespace) -> Result<()> {
    ns.api::<Pod>().delete("kept", &DeleteParams::default()).await?;
    // The reconciler tries to create it again and is refused; the object says so and does not give up.
    let object = ns
        .wait(
            "kept",
            "ConsumerReady names the refusal",
            |object: &StoppableContainer| {
                object.status.iter().flat_map(|s| &s.conditions).any(|c| {
                    c.type_ == CONSUMER_READY && c.status == "False" && c.reason == reason::CREATION_REFUSED
                })
            },
        )
        .await?;
    let phase = object.status.as_ref().and_then(|s| s.phase);
    ensure!(
        phase != Some(Phase::Failed),
        "an outage of the webhook is not a failure of the object: {phase:?}"
    );
    ensure!(
        ns.api::<Pod>().get_opt("kept").await?.is_none(),
        "a consumer was created past the webhook"
    );

    let mut plain = shell_template();
    plain["metadata"] = json!({"name": "plain"});
    ns.create_json::<Pod>(plain).await?;
    ns.pod_ready("plain").await?;
    Ok(())
}

/// Ends the controllers without the time that they take to let connections end, and waits for the next ones.
async fn replace_controllers(service: &Service) -> Result<()> {
    let namespace = service.namespace().unwrap_or_default();
    let label = "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=controller";
    kubectl(
        &[
            "-n",
            &namespace,
            "delete",
            "pods",
            "-l",
            label,
            "--grace-period=1",
            "--wait",
        ],
        "",
    )
    .await?
    .success()?;
    let status = [
        "-n",
        &namespace,
        "rollout",
        "status",
        "deployment",
        "-l",
        label,
        "--timeout=120s",
    ];
    kubectl(&status, "").await?.success()?;
    Ok(())
}

async fn webhook_service(ns: &Namespace) -> Result<(Api<Service>, String)> {
    let params = ListParams::default().labels("app.kubernetes.io/name=stoppablecontainer");
    let found = Api::<Service>::all(ns.client.clone()).list(&params).await?.items;
    let service = found
        .first()
        .context("no Service of the webhook on this cluster")?;
    let namespace = service.namespace().unwrap_or_default();
    Ok((Api::namespaced(ns.client.clone(), &namespace), service.name_any()))
}

/// Replaces the selector of a Service.
async fn redirect(services: &Api<Service>, name: &str, selector: serde_json::Value) -> Result<()> {
    let patch: json_patch::Patch =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/selector", "value": selector}]))?;
    services
        .patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))
        .await?;
    Ok(())
}
