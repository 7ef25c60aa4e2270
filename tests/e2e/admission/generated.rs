//! Pods from the generator of the webhook's property tests, against the real API server.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use stoppablecontainer_api::names::{
    GROUP, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE, MANAGED_BY, ROLE_CONSUMER,
};
use stoppablecontainer_api::{Phase, StoppableContainerInstance};
use testkit::{Namespace, in_namespace};
use webhook_fixtures::pod_spec;

use crate::support::{create, phase, shell_template};

const SAMPLES: usize = 150;
const AT_ONCE: usize = 4;

/// The API server's decision on a consumer is the same as on the pod without the product, for any
/// content: the patch applies, the result is valid, and the final validation agrees.
#[tokio::test]
async fn h21_the_api_server_takes_a_rewritten_pod_if_it_takes_the_plain_one() {
    in_namespace("generated", async |ns| {
        create(&ns, "kept", false, shell_template()).await?;
        phase(&ns, "kept", Phase::Stopped).await?;
        let instance = ns.api::<StoppableContainerInstance>().get("kept").await?;
        let controller = as_controller(&ns).await?;
        let (ns, controller, instance) = (&ns, &controller, &instance);

        let strategy = pod_spec();
        let mut runner = TestRunner::default();
        let specs = (0..SAMPLES).map(|_| strategy.new_tree(&mut runner).map(|tree| tree.current()));
        let specs: Vec<Value> = specs.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
        let taken: Vec<bool> = stream::iter(specs)
            .map(|spec| async move {
                let spec = without_users(spec);
                let plain = dry_run(&ns.api(), &json!({"metadata": {"name": "plain"}, "spec": spec})).await?;
                let consumer = json!({
                    "metadata": {
                        "name": "kept",
                        "labels": {
                            LABEL_MANAGED_BY: MANAGED_BY, LABEL_INSTANCE: "kept", LABEL_ROLE: ROLE_CONSUMER,
                        },
                        "ownerReferences": [{
                            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "StoppableContainerInstance",
                            "name": "kept", "uid": instance.uid(), "controller": true,
                        }],
                    },
                    "spec": spec,
                });
                let ours = dry_run(controller, &consumer).await?;
                ensure!(
                    plain.is_ok() == ours.is_ok(),
                    "plain: {plain:?}\nours: {ours:?}\n{spec:#}"
                );
                Ok(plain.is_ok())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let taken = taken.iter().filter(|taken| **taken).count();
        ensure!(
            taken * 2 > SAMPLES,
            "only {taken} of {SAMPLES} samples were valid pods: the generator says little"
        );
        Ok(())
    })
    .await;
}

/// The filesystem was prepared for one user. Another user is rejected until the node agent has
/// resolved it.
fn without_users(mut spec: Value) -> Value {
    for place in ["/securityContext", "/containers/0/securityContext"] {
        if let Some(fields) = spec.pointer_mut(place).and_then(Value::as_object_mut) {
            fields.retain(|key, _| !matches!(key.as_str(), "runAsUser" | "runAsGroup"));
        }
    }
    spec
}

/// Whether the pod is accepted, or the API server's message.
async fn dry_run(pods: &Api<Pod>, pod: &Value) -> Result<Result<(), String>> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match pods.create(&params, &serde_json::from_value(pod.clone())?).await {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// The pods of the namespace with the controller's permissions, because only the controller may
/// create a consumer.
async fn as_controller(ns: &Namespace) -> Result<Api<Pod>> {
    let params = ListParams::default()
        .labels("app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=controller");
    let found = Api::<Deployment>::all(ns.client.clone())
        .list(&params)
        .await?
        .items;
    let deployment = found
        .first()
        .context("no Deployment of the controller on this cluster")?;
    let account = deployment
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref()?.service_account_name.clone())
        .context("the controller has no service account")?;
    let namespace = deployment.namespace().unwrap_or_default();
    let mut config = Config::infer().await?;
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
    Ok(Api::namespaced(Client::try_from(config)?, &ns.name))
}
