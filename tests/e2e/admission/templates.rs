//! Templates that are too large, misspelt, or newer than the product's types: the result of apply,
//! and the stored object.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{READY, reason};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, Output, in_namespace};

use crate::support::release::Release;
use crate::support::shell_template;

/// Server-side, because the annotation of a plain `kubectl apply` holds only 256 KiB.
const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

async fn apply(ns: &Namespace, template: &Value) -> Result<Output> {
    let object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": "kept"}, "spec": {"running": false, "template": template},
    });
    ns.kubectl_with_input(&APPLY, &object.to_string()).await
}

/// Returns the rejection and checks that it contains all these texts.
async fn refused(ns: &Namespace, template: &Value, words: &[&str]) -> Result<()> {
    let answer = apply(ns, template).await?;
    ensure!(answer.code != 0, "it was accepted: {answer:?}");
    for words in words {
        ensure!(
            answer.stderr.contains(words),
            "the refusal does not say {words:?}:\n{}",
            answer.stderr
        );
    }
    let stored = ns
        .api::<StoppableContainer>()
        .list(&ListParams::default())
        .await?;
    ensure!(stored.items.is_empty(), "a refused object is there");
    Ok(())
}

/// Story: this object (issue 10) was accepted with a warning, and crashed all replicas of the
/// operator.
#[tokio::test]
async fn i18_thirty_one_thousand_volumes_are_refused_at_apply() {
    in_namespace("oversized", async |ns| {
        let mut template = shell_template();
        let volumes: Vec<_> = (0..31_000).map(|at| json!({"name": format!("a{at}")})).collect();
        template["spec"]["volumes"] = json!(volumes);
        refused(&ns, &template, &["spec.template.spec.volumes: Too many: 31000"]).await?;
        // Each list is within its bound, but the template is not.
        let mut template = shell_template();
        template["spec"]["containers"][0]["args"] = json!(vec!["x".repeat(1_000); 600]);
        refused(
            &ns,
            &template,
            &["spec.template: Too long: ", "must have at most 524288"],
        )
        .await
    })
    .await;
}

/// Story: `cpu: abc` was a warning, and the pod's errors appeared only after the product's own were
/// corrected.
#[tokio::test]
async fn i12_i19_all_mistakes_of_a_template_come_in_one_answer() {
    in_namespace("mistakes", async |ns| {
        let mut template = shell_template();
        let spec = &mut template["spec"];
        spec["volumes"] = json!([{"name": "stoppablecontainer", "emptyDir": {}}]);
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": "abc"}});
        spec["containers"][0]["imagge"] = json!("typo");
        spec["containers"][0]["tty"] = json!(true);
        spec["containers"][0]["ports"] = json!([{"containerPort": 0}]);
        refused(
            &ns,
            &template,
            &[
                "spec.template.spec.volumes[0].name: \"stoppablecontainer\" is reserved",
                "spec.template.spec.containers[0].resources.requests[cpu]: Invalid value: \"abc\"",
                "spec.template.spec.containers[0].imagge: unknown field",
                "spec.template.spec.containers[0].ports[0].containerPort",
            ],
        )
        .await
    })
    .await;
}

/// The API server stores fields that the CRD does not know. If the webhook did not dry-run the pod
/// at apply, as for objects that the controller writes, the controller does it later. This
/// cluster's Kubernetes does not have such a field in a pod, and the object's condition reports
/// that.
#[tokio::test]
async fn i19_a_field_that_no_type_knows_is_stored_and_one_that_the_cluster_does_not_know_is_reported() {
    in_namespace("newer-fields", async |ns| {
        let release = Release::find(&ns.client).await?;
        let as_controller = format!("--as={}", release.controller_user()?);
        let mut template = shell_template();
        template["spec"]["fromTheFuture"] = json!({"deep": [{"er": 1}]});
        template["spec"]["containers"][0]["alsoNew"] = json!("x");
        let object = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": {"name": "kept"},
            "spec": {"stoppableContainerName": "kept", "running": false, "template": template},
        });
        ns.kubectl_with_input(&["create", &as_controller, "-f", "-"], &object.to_string())
            .await?
            .success()?;
        let stored = ns
            .kubectl(&["get", "stoppablecontainerinstance", "kept", "-o", "json"])
            .await?
            .success()?;
        let stored: Value = serde_json::from_str(&stored)?;
        let spec = &stored["spec"]["template"]["spec"];
        ensure!(
            spec["fromTheFuture"] == template["spec"]["fromTheFuture"]
                && spec["containers"][0]["alsoNew"] == json!("x"),
            "not as written: {spec}"
        );
        let invalid = |object: &StoppableContainerInstance| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions
                .filter(|condition| condition.type_ == READY && condition.reason == reason::TEMPLATE_INVALID)
                .any(|condition| {
                    condition
                        .message
                        .contains("spec.template.spec.fromTheFuture: unknown field")
                })
        };
        let object = ns
            .wait("kept", "Ready is false because of the unknown field", invalid)
            .await?;
        let check = object.status.and_then(|status| status.template_check);
        let problem = check
            .and_then(|check| check.problem)
            .context("no problem noted")?;
        ensure!(
            problem.contains("spec.template.spec.containers[0].alsoNew: unknown field"),
            "{problem}"
        );
        let consumers = ListParams::default().labels("stoppablecontainer.xtlsoft.top/role=consumer");
        let consumers = ns.api::<Pod>().list(&consumers).await?;
        ensure!(consumers.items.is_empty(), "a stopped object has a consumer");
        Ok(())
    })
    .await;
}
