//! Other webhooks before and after ours, as the API server chains them: in the order of their
//! configurations' names, then ours again if one after it changed the pod, then the final
//! validation.
//!
//! What they do is the library `injectors`; end to end the same runs as servers
//! (`tests/e2e/injectors`).

use injectors::Injector;
use serde_json::{Value, json};

use webhook_fixtures::{Harness, instance, pod};

fn containers(pod: &mut Value) -> &mut Vec<Value> {
    pod["spec"]["containers"].as_array_mut().unwrap()
}

/// The pod that reaches storage: `before` have names before ours, `after` behind it.
async fn admitted(harness: &Harness, before: &[Injector], after: &[Injector]) -> Value {
    let mut pod = template();
    for webhook in before {
        webhook.apply(&mut pod).unwrap();
    }
    pod = harness.mutated(&pod).await;
    let ours = pod.clone();
    for webhook in after {
        webhook.apply(&mut pod).unwrap();
    }
    if pod != ours {
        pod = harness.mutated(&pod).await;
    }
    let answer = harness.final_state(&pod).await;
    assert!(answer.is_allowed(), "{answer:?}");
    assert_eq!(harness.mutated(&pod).await, pod, "I4");
    pod
}

/// A pod that asks for all of them, as the ServiceAccount plugin of the API server hands it on.
fn template() -> Value {
    let mut pod = pod();
    pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = json!("user-queue");
    pod["metadata"]["annotations"] = json!({
        "linkerd.io/inject": "enabled",
        "vault.hashicorp.com/agent-inject": "true",
        "vault.hashicorp.com/role": "app",
    });
    pod["spec"]["volumes"] = json!([{ "name": "kube-api-access-x7x7x", "projected": {} }]);
    let main = &mut containers(&mut pod)[0];
    main["command"] = json!(["/bin/app"]);
    main["env"] = json!([{ "name": "PASSWORD", "value": "vault:secret/data/app#password" }]);
    main["volumeMounts"] = json!([{
        "name": "kube-api-access-x7x7x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
    }]);
    main["livenessProbe"] = json!({ "httpGet": { "path": "/", "port": 80 } });
    main["readinessProbe"] = json!({ "exec": { "command": ["/bin/ready"] } });
    pod
}

/// The same pod as its user would create it: without the controller's gate.
fn plain_pod() -> Value {
    let mut pod = template();
    pod["spec"].as_object_mut().unwrap().remove("schedulingGates");
    pod
}

fn harness() -> Harness {
    let mut harness = Harness::new();
    let mut instance = instance();
    instance["spec"]["template"]["spec"] = plain_pod()["spec"].clone();
    harness.instance(&instance);
    harness
}

fn main_container(pod: &Value) -> &Value {
    pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "main")
        .unwrap()
}

fn others(pod: &Value) -> Vec<&Value> {
    pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["name"] != "main")
        .collect()
}

#[rstest::rstest]
#[tokio::test]
async fn i4_any_webhook_before_and_after_ours(
    #[values(
        Injector::Istio,
        Injector::IstioFirst,
        Injector::IstioLast,
        Injector::Linkerd,
        Injector::LinkerdFirst,
        Injector::Vault,
        Injector::Kueue,
        Injector::Registry,
        Injector::Kyverno,
        Injector::Vpa,
        Injector::Env,
        Injector::VaultEnv,
        Injector::Remover
    )]
    webhook: Injector,
) {
    let harness = harness();
    let mut plain = plain_pod();
    webhook.apply(&mut plain).unwrap();
    assert!(
        webhook == Injector::Remover || plain != plain_pod(),
        "{webhook} did nothing"
    );
    for (before, after) in [
        (&[webhook][..], &[][..]),
        (&[], &[webhook]),
        (&[webhook], &[webhook]),
    ] {
        let pod = admitted(&harness, before, after).await;
        let main = main_container(&pod);
        assert_eq!(main["image"], "example/wrapper:1-sigquit");
        assert_eq!(main["command"][0], "/exec-wrapper");
        assert_eq!(main["readinessProbe"]["exec"]["command"][3], "/bin/ready");
        // What was done to everything but the main container is as in a plain pod.
        assert_eq!(others(&pod), others(&plain));
        assert_eq!(pod["spec"]["initContainers"], plain["spec"]["initContainers"]);
        assert_eq!(pod["spec"]["schedulingGates"], plain["spec"]["schedulingGates"]);
        assert_eq!(main["livenessProbe"], main_container(&plain)["livenessProbe"]);
        assert_eq!(main["resources"], main_container(&plain)["resources"]);
        // Five starts give one spec.
        for _ in 0..4 {
            assert_eq!(admitted(&harness, before, after).await, pod);
        }
    }
}

#[tokio::test]
async fn i4_all_of_them_at_once_in_the_order_of_their_names() {
    // istio, kueue, linkerd, ours, vault: the names of their configurations. Linkerd leaves meshed
    // pods alone.
    let pod = admitted(
        &harness(),
        &[Injector::IstioFirst, Injector::Kueue, Injector::Linkerd],
        &[Injector::Vault, Injector::Vpa],
    )
    .await;
    let paths: Vec<_> = main_container(&pod)["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["mountPath"])
        .collect();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(paths, [token, "/.stoppablecontainer", "/vault/secrets"]);
    let names: Vec<_> = pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["istio-proxy", "main", "vault-agent"]);
}

#[tokio::test]
async fn i4_kueue_after_ours_takes_the_node_name_away() {
    for (before, after) in [(&[Injector::Kueue][..], &[][..]), (&[], &[Injector::Kueue])] {
        let pod = admitted(&harness(), before, after).await;
        assert_eq!(pod["spec"].get("nodeName"), None);
        let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchFields"][0]["values"], json!(["node-1"]));
    }
}

#[tokio::test]
async fn i4_a_program_of_another_webhook_runs_in_the_kept_filesystem() {
    for (before, after) in [(&[Injector::VaultEnv][..], &[][..]), (&[], &[Injector::VaultEnv])] {
        let pod = admitted(&harness(), before, after).await;
        assert_eq!(
            main_container(&pod)["args"],
            json!(["/vault/vault-env", "/bin/app"])
        );
    }
}

#[tokio::test]
async fn i3_a_webhook_that_undoes_our_work_behind_our_back_is_refused() {
    let harness = harness();
    let mut pod = harness.mutated(&template()).await;
    Injector::Remover.apply(&mut pod).unwrap();
    assert!(
        harness
            .final_state(&pod)
            .await
            .message()
            .contains("/spec/volumes")
    );
}
