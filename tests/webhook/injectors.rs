//! Other webhooks before and after ours, as the API server chains them: in the order of their configurations' names, then
//! ours again if one after it changed the pod, then the final validation.
//!
//! The stand-ins change a pod in the shape in which the originals do at their current releases: Istio
//! (`pkg/kube/inject/webhook.go`), Linkerd (`pkg/inject/inject.go`), Vault (`agent-inject/agent/agent.go`, a JSON patch by
//! index), Kueue (`pkg/controller/jobs/pod/pod_webhook.go`).

use serde_json::{Value, json};

use crate::support::{Harness, instance, pod};

type Webhook = fn(&mut Value);

fn containers(pod: &mut Value) -> &mut Vec<Value> {
    pod["spec"]["containers"].as_array_mut().unwrap()
}

/// The list at `key`, made if it is not there.
fn list<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if value[key].is_null() {
        value[key] = json!([]);
    }
    value[key].as_array_mut().unwrap()
}

fn has(items: &[Value], name: &str) -> bool {
    items.iter().any(|item| item["name"] == name)
}

fn istio_volumes_and_probes(pod: &mut Value) {
    let volumes = list(&mut pod["spec"], "volumes");
    for name in ["istio-token", "istio-data", "workload-socket"] {
        if !has(volumes, name) {
            volumes.insert(0, json!({ "name": name, "emptyDir": { "medium": "Memory" } }));
        }
    }
    if pod["spec"]["securityContext"].is_null() {
        pod["spec"]["securityContext"] = json!({});
    }
    pod["spec"]["securityContext"]["fsGroup"] = json!(1337);
    for container in containers(pod).iter_mut().filter(|c| c["name"] != "istio-proxy") {
        let name = container["name"].as_str().unwrap().to_owned();
        if container["livenessProbe"]["httpGet"].is_object() {
            container["livenessProbe"]["httpGet"] =
                json!({ "path": format!("/app-health/{name}/livez"), "port": 15020 });
        }
    }
    pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = json!("main");
}

fn istio_proxy() -> Value {
    json!({ "name": "istio-proxy", "image": "istio/proxyv2:1.32", "securityContext": { "runAsUser": 1337 } })
}

fn istio_native_sidecar(pod: &mut Value) {
    let init = list(&mut pod["spec"], "initContainers");
    if !has(init, "istio-proxy") {
        let mut proxy = istio_proxy();
        proxy["restartPolicy"] = json!("Always");
        init.insert(0, proxy);
        init.insert(0, json!({ "name": "istio-init", "image": "istio/proxyv2:1.32" }));
    }
    istio_volumes_and_probes(pod);
}

/// `holdApplicationUntilProxyStarts`.
fn istio_first(pod: &mut Value) {
    if !has(containers(pod), "istio-proxy") {
        let mut proxy = istio_proxy();
        proxy["lifecycle"] = json!({ "postStart": { "exec": { "command": ["pilot-agent", "wait"] } } });
        containers(pod).insert(0, proxy);
    }
    istio_volumes_and_probes(pod);
}

fn istio_last(pod: &mut Value) {
    if !has(containers(pod), "istio-proxy") {
        containers(pod).push(istio_proxy());
    }
    istio_volumes_and_probes(pod);
}

fn linkerd(pod: &mut Value) {
    if has(containers(pod), "linkerd-proxy") {
        return;
    }
    let capabilities = containers(pod)[0]["securityContext"]["capabilities"].clone();
    containers(pod).insert(
        0,
        json!({
            "name": "linkerd-proxy", "image": "linkerd/proxy",
            "securityContext": { "runAsUser": 2102, "capabilities": capabilities },
            "lifecycle": { "postStart": { "exec": { "command": ["/usr/lib/linkerd/linkerd-await", "--timeout=2m"] } } },
        }),
    );
    list(&mut pod["spec"], "volumes")
        .push(json!({ "name": "linkerd-identity-end-entity", "emptyDir": { "medium": "Memory" } }));
}

fn vault(pod: &mut Value) {
    if pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject-status"] == "injected" {
        return;
    }
    for name in ["home-init", "vault-secrets"] {
        list(&mut pod["spec"], "volumes").push(json!({ "name": name, "emptyDir": { "medium": "Memory" } }));
    }
    let count = containers(pod).len();
    let mount = json!({ "name": "vault-secrets", "mountPath": "/vault/secrets" });
    for at in 0..count {
        let path = format!("/spec/containers/{at}/volumeMounts");
        let patch = if pod.pointer(&path).is_some_and(Value::is_array) {
            json!([{ "op": "add", "path": format!("{path}/-"), "value": mount }])
        } else {
            json!([{ "op": "add", "path": path, "value": [mount] }])
        };
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(pod, &patch).unwrap();
    }
    list(&mut pod["spec"], "initContainers")
        .push(json!({ "name": "vault-agent-init", "image": "hashicorp/vault" }));
    containers(pod).push(json!({ "name": "vault-agent", "image": "hashicorp/vault" }));
    pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject-status"] = json!("injected");
}

fn kueue(pod: &mut Value) {
    pod["metadata"]["labels"]["kueue.x-k8s.io/managed"] = json!("true");
    pod["metadata"]["annotations"]["kueue.x-k8s.io/role-hash"] = json!("b54683bb");
    let finalizers = list(&mut pod["metadata"], "finalizers");
    if !finalizers.contains(&json!("kueue.x-k8s.io/managed")) {
        finalizers.push(json!("kueue.x-k8s.io/managed"));
    }
    let gates = list(&mut pod["spec"], "schedulingGates");
    if !has(gates, "kueue.x-k8s.io/admission") {
        gates.push(json!({ "name": "kueue.x-k8s.io/admission" }));
    }
}

fn registry_rewriter(pod: &mut Value) {
    for container in containers(pod) {
        let image = container["image"].as_str().unwrap();
        if !image.starts_with("mirror.local/") {
            container["image"] = json!(format!("mirror.local/{image}"));
        }
    }
}

fn kyverno_security_context(pod: &mut Value) {
    for container in containers(pod) {
        if container["securityContext"].is_null() {
            container["securityContext"] = json!({});
        }
        container["securityContext"]["allowPrivilegeEscalation"] = json!(false);
        container["securityContext"]["capabilities"] = json!({ "drop": ["ALL"] });
    }
}

fn vpa(pod: &mut Value) {
    for container in containers(pod) {
        container["resources"] = json!({ "requests": { "cpu": "25m", "memory": "64Mi" } });
    }
    pod["metadata"]["annotations"]["vpaUpdates"] = json!("Pod resources updated by main: cpu request");
}

fn duplicates_env(pod: &mut Value) {
    for container in containers(pod) {
        let env = list(container, "env");
        if !has(env, "INJECTED") {
            let copy = env.first().cloned();
            env.push(json!({ "name": "INJECTED", "value": "$(PATH)" }));
            env.extend(copy);
        }
    }
}

fn removes_ours(pod: &mut Value) {
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    let volumes = list(&mut pod["spec"], "volumes");
    volumes.retain(|v| v["name"] != "stoppablecontainer");
    for container in containers(pod) {
        list(container, "volumeMounts").retain(|m| m["name"] != "stoppablecontainer");
        container["imagePullPolicy"] = json!("Always");
    }
}

fn replaces_command(pod: &mut Value) {
    for container in containers(pod)
        .iter_mut()
        .filter(|c| c["command"][0] != "/vault/vault-env")
    {
        let old: Vec<Value> = ["command", "args"]
            .iter()
            .flat_map(|key| container[*key].as_array().cloned().unwrap_or_default())
            .collect();
        container["args"] = Value::from(old);
        container["command"] = json!(["/vault/vault-env"]);
    }
}

/// The pod that reaches storage: `before` have names before ours, `after` behind it.
async fn admitted(harness: &Harness, before: &[Webhook], after: &[Webhook]) -> Value {
    let mut pod = template();
    for webhook in before {
        webhook(&mut pod);
    }
    pod = harness.mutated(&pod).await;
    let ours = pod.clone();
    for webhook in after {
        webhook(&mut pod);
    }
    if pod != ours {
        pod = harness.mutated(&pod).await;
    }
    let answer = harness.final_state(&pod).await;
    assert!(answer.is_allowed(), "{answer:?}");
    assert_eq!(harness.mutated(&pod).await, pod, "I4");
    pod
}

fn template() -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({});
    let main = &mut containers(&mut pod)[0];
    main["command"] = json!(["/bin/app"]);
    main["livenessProbe"] = json!({ "httpGet": { "path": "/", "port": 80 } });
    main["readinessProbe"] = json!({ "exec": { "command": ["/bin/ready"] } });
    pod
}

fn harness() -> Harness {
    let mut harness = Harness::new();
    let mut instance = instance();
    instance["spec"]["template"]["spec"] = template()["spec"].clone();
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
#[case::istio_native_sidecar(istio_native_sidecar)]
#[case::istio_first(istio_first)]
#[case::istio_last(istio_last)]
#[case::linkerd(linkerd)]
#[case::vault(vault)]
#[case::kueue(kueue)]
#[case::registry_rewriter(registry_rewriter)]
#[case::kyverno(kyverno_security_context)]
#[case::vpa(vpa)]
#[case::duplicates_env(duplicates_env)]
#[case::removes_ours(removes_ours)]
#[case::replaces_command(replaces_command)]
#[tokio::test]
async fn i4_any_webhook_before_and_after_ours(#[case] webhook: Webhook) {
    let harness = harness();
    let mut plain = template();
    webhook(&mut plain);
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
    // istio, kueue, linkerd, ours, vault: the names of their configurations.
    let pod = admitted(&harness(), &[istio_native_sidecar, kueue, linkerd], &[vault, vpa]).await;
    let paths: Vec<_> = main_container(&pod)["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["mountPath"])
        .collect();
    assert_eq!(paths, ["/.stoppablecontainer", "/vault/secrets"]);
    let names: Vec<_> = pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["linkerd-proxy", "main", "vault-agent"]);
}

#[tokio::test]
async fn i4_kueue_after_ours_takes_the_node_name_away() {
    for (before, after) in [(&[kueue as Webhook][..], &[][..]), (&[], &[kueue as Webhook])] {
        let pod = admitted(&harness(), before, after).await;
        assert_eq!(pod["spec"].get("nodeName"), None);
        let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchFields"][0]["values"], json!(["node-1"]));
    }
}

#[tokio::test]
async fn i4_a_program_of_another_webhook_runs_in_the_kept_filesystem() {
    for (before, after) in [
        (&[replaces_command as Webhook][..], &[][..]),
        (&[], &[replaces_command as Webhook]),
    ] {
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
    removes_ours(&mut pod);
    assert!(
        harness
            .final_state(&pod)
            .await
            .message()
            .contains("/spec/volumes")
    );
}
