//! The permissions of the node agent's token, in case it is stolen from a node.

use anyhow::{Result, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainerInstance;
use testkit::{Namespace, client_with_token, in_namespace};

use crate::support::{agent_on, create, node_of, run, running, shell_template, uid_of};

/// The token can write `status.filesystem` of instances of its own node, and nothing else.
#[tokio::test]
async fn i15_a_stolen_agent_token_changes_nothing_of_other_nodes() {
    in_namespace("token", async |ns| {
        let ns = &ns;
        let pod = run(ns, "here", shell_template()).await?;
        let mut nowhere = shell_template();
        nowhere["spec"]["nodeSelector"] = json!({"example.org/none": "such"});
        create(ns, "elsewhere", true, nowhere).await?;
        ns.wait(
            "elsewhere",
            "it has an instance",
            |_: &StoppableContainerInstance| true,
        )
        .await?;
        let agent = agent_on(&ns.client, &node_of(&pod)?).await?;
        let bound = client_with_token(&token(ns, &agent, true).await?).await?;
        let unbound = client_with_token(&token(ns, &agent, false).await?).await?;

        let warning = json!({"status": {"filesystem": {"diskLow": "planted"}}});
        let state =
            json!({"status": {"filesystem": {"state": "Failed", "nodeName": "x", "reason": "Planted"}}});
        let others = [
            (&bound, "elsewhere", &state, "of its own node"),
            (&unbound, "here", &warning, "of its own node"),
            (
                &bound,
                "here",
                &json!({"status": {"phase": "Failed"}}),
                "the rest of the status",
            ),
            (
                &bound,
                "here",
                &json!({"status": {"consumerPodUid": "planted"}}),
                "the rest of the status",
            ),
        ];
        for (client, name, patch, why) in others {
            let error = write(client, ns, name, patch)
                .await
                .err()
                .map(|error| error.to_string());
            ensure!(
                error.as_ref().is_some_and(|error| error.contains(why)),
                "{patch} to {name}: {error:?}"
            );
        }
        // The agent's own work is allowed, and an unchanged field does not count as a change.
        write(&bound, ns, "here", &warning).await?;

        let may = async |verb: &str, what: &str| -> Result<bool> {
            let account = format!(
                "system:serviceaccount:{}:{}",
                agent.namespace().unwrap_or_default(),
                account_of(&agent)
            );
            let answer = ns
                .kubectl(&["auth", "can-i", verb, what, "--as", &account])
                .await?;
            Ok(answer.stdout.trim() == "yes")
        };
        ensure!(may("get", "pods").await?, "the question is asked wrongly");
        for (verb, what) in [
            ("list", "pods"),
            ("create", "pods"),
            ("delete", "pods"),
            ("create", "pods/exec"),
            ("get", "secrets"),
            ("get", "configmaps"),
            ("get", "nodes"),
            ("patch", "nodes"),
            ("create", "serviceaccounts/token"),
            ("patch", "stoppablecontainerinstances"),
            ("delete", "stoppablecontainerinstances"),
            ("get", "stoppablecontainers"),
        ] {
            ensure!(!may(verb, what).await?, "the agent may {verb} {what}");
        }
        running(ns, "here").await?;
        Ok(())
    })
    .await;
}

async fn write(
    client: &Client,
    ns: &Namespace,
    name: &str,
    patch: &Value,
) -> kube::Result<StoppableContainerInstance> {
    let api: Api<StoppableContainerInstance> = Api::namespaced(client.clone(), &ns.name);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

fn account_of(agent: &Pod) -> String {
    let spec = agent.spec.as_ref();
    spec.and_then(|spec| spec.service_account_name.clone())
        .unwrap_or_default()
}

/// A token of the agent's service account, bound to its pod like the pod's own token, or not bound.
async fn token(ns: &Namespace, agent: &Pod, bound: bool) -> Result<String> {
    let pod = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(agent.name_any()),
        uid: Some(uid_of(agent)),
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            bound_object_ref: bound.then_some(pod),
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> =
        Api::namespaced(ns.client.clone(), &agent.namespace().unwrap_or_default());
    let granted = accounts
        .create_token_request(&account_of(agent), &PostParams::default(), &request)
        .await?;
    Ok(granted.status.map(|status| status.token).unwrap_or_default())
}
