//! Dry runs: a valid object is accepted and nothing is created, an invalid one is rejected with the
//! field's path.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, Output, in_namespace};

use crate::support::shell_template;

const DRY_RUN: [&str; 4] = ["apply", "--dry-run=server", "-f", "-"];

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": "kept"}, "spec": spec,
    })
}

async fn dry_run(ns: &Namespace, object: &Value) -> Result<Output> {
    ns.kubectl_with_input(&DRY_RUN, &object.to_string()).await
}

#[tokio::test]
async fn i13_dry_run_of_a_good_object_succeeds_and_creates_nothing() {
    in_namespace("dry-run", async |ns| {
        let applied = dry_run(
            &ns,
            &object(&json!({"running": true, "template": shell_template()})),
        )
        .await?
        .success()?;
        ensure!(applied.contains("created (server dry run)"), "{applied}");
        let all = ListParams::default();
        ensure!(
            ns.api::<StoppableContainer>().list(&all).await?.items.is_empty(),
            "a dry run made an object"
        );
        ensure!(
            ns.api::<StoppableContainerInstance>()
                .list(&all)
                .await?
                .items
                .is_empty(),
            "a dry run made an instance"
        );
        ensure!(
            ns.api::<Pod>().list(&all).await?.items.is_empty(),
            "a dry run made a pod"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn dry_run_of_a_bad_object_names_the_field() {
    in_namespace("dry-run-bad", async |ns| {
        let mut no_containers = shell_template();
        no_containers["spec"]["containers"] = json!([]);
        let mut unknown_field = shell_template();
        unknown_field["spec"]["containers"][0]["imagge"] = json!("typo");
        let mut reserved_volume = shell_template();
        reserved_volume["spec"]["volumes"] = json!([{"name": "stoppablecontainer", "emptyDir": {}}]);
        let mut reserved_path = shell_template();
        reserved_path["spec"]["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
        reserved_path["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "mine", "mountPath": "/.stoppablecontainer/x"}]);
        let cases = [
            (
                json!({"template": no_containers}),
                "spec.template.spec.containers",
            ),
            (
                json!({"template": unknown_field}),
                "spec.template.spec.containers[0].imagge",
            ),
            (
                json!({"template": reserved_volume}),
                "spec.template.spec.volumes[0].name",
            ),
            (
                json!({"template": reserved_path}),
                "spec.template.spec.containers[0].volumeMounts[0].mountPath",
            ),
            (
                json!({"template": shell_template(), "hostPathPrefix": "/etc"}),
                "spec.hostPathPrefix",
            ),
            (
                json!({"template": shell_template(), "hostPathPrefix": "relative"}),
                "spec.hostPathPrefix",
            ),
            (
                json!({"running": "maybe", "template": shell_template()}),
                "spec.running",
            ),
            (json!({"running": true}), "spec.template"),
        ];
        for (spec, path) in cases {
            let refused = dry_run(&ns, &object(&spec)).await?;
            ensure!(refused.code != 0, "{spec} was accepted: {refused:?}");
            ensure!(
                refused.stderr.contains(path),
                "the refusal of {spec} does not name {path}:\n{}",
                refused.stderr
            );
        }
        Ok(())
    })
    .await;
}

/// One response contains all errors.
#[tokio::test]
async fn all_mistakes_are_reported_at_once() {
    in_namespace("all-mistakes", async |ns| {
        let mut template = shell_template();
        template["spec"]["volumes"] = json!([{"name": "stoppablecontainer", "emptyDir": {}}]);
        template["spec"]["os"] = json!({"name": "windows"});
        let refused = dry_run(
            &ns,
            &object(&json!({"template": template, "hostPathPrefix": "/etc"})),
        )
        .await?;
        for path in [
            "spec.template.spec.volumes[0].name",
            "spec.template.spec.os.name",
            "spec.hostPathPrefix",
        ] {
            ensure!(
                refused.stderr.contains(path),
                "{path} is missing in:\n{}",
                refused.stderr
            );
        }
        Ok(())
    })
    .await;
}

/// H19: a pod that only claims to belong to the product never runs.
#[tokio::test]
async fn h19_a_pod_with_our_labels_by_another_user_is_refused() {
    in_namespace("forged", async |ns| {
        let mut pod = shell_template();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"] = json!({"name": "forged", "labels": {
            "stoppablecontainer.xtlsoft.top/role": "consumer", "stoppablecontainer.xtlsoft.top/instance": "x",
            "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
        }});
        let refused = ns
            .kubectl_with_input(&["create", "-f", "-"], &pod.to_string())
            .await?;
        ensure!(
            refused.code != 0 && refused.stderr.contains("denied the request"),
            "{refused:?}"
        );
        Ok(())
    })
    .await;
}
