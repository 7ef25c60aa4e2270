//! Properties that all stand-ins share. The comment of each module compares it with its original.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "app", "namespace": "team", "labels": { "app": "web" },
            "annotations": {
                "linkerd.io/inject": "enabled", "vault.hashicorp.com/agent-inject": "true",
                "vault.hashicorp.com/role": "app", "vault.hashicorp.com/agent-inject-secret-Config": "secret/data/x",
            },
        },
        "spec": {
            "volumes": [{ "name": "token" }],
            "initContainers": [{ "name": "prepare" }],
            "containers": [
                {
                    "name": "web", "image": "nginx", "command": ["app"], "args": ["-v"],
                    "ports": [{ "name": "http", "containerPort": 80 }],
                    "env": [{ "name": "A", "value": "vault:secret#a" }],
                    "livenessProbe": { "httpGet": { "path": "/live", "port": "http" }, "timeoutSeconds": 1 },
                    "readinessProbe": { "exec": { "command": ["ready"] } },
                    "startupProbe": { "tcpSocket": { "port": 80 } },
                    "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
                },
                { "name": "side", "image": "docker.io/team/side" },
            ],
        },
    })
}

fn after(injector: Injector) -> Value {
    let mut pod = pod();
    injector.apply(&mut pod).unwrap();
    pod
}

fn names(pod: &Value, key: &str) -> Vec<String> {
    let items = pod["spec"][key].as_array().unwrap().iter();
    items
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

#[rstest::rstest]
fn names_are_paths_and_a_second_call_adds_nothing(
    #[values(
        Injector::Istio,
        Injector::IstioFirst,
        Injector::IstioLast,
        Injector::Linkerd,
        Injector::LinkerdFirst,
        Injector::Vault,
        Injector::Kueue,
        Injector::KueueDefault,
        Injector::Registry,
        Injector::Kyverno,
        Injector::Vpa,
        Injector::Env,
        Injector::VaultEnv,
        Injector::Remover,
        Injector::Unlabeller,
        Injector::Marker
    )]
    injector: Injector,
) {
    assert_eq!(injector.name().parse(), Ok(injector));
    let once = after(injector);
    let mut twice = once.clone();
    injector.apply(&mut twice).unwrap();
    assert_eq!(twice, once);
}

#[test]
fn istio_stands_where_it_was_told_to() {
    let native = after(Injector::Istio);
    assert_eq!(
        names(&native, "initContainers"),
        ["istio-init", "istio-proxy", "prepare"]
    );
    assert_eq!(names(&native, "containers"), ["web", "side"]);
    assert_eq!(names(&native, "volumes")[8..], ["istio-ca-crl", "token"]);
    let first = after(Injector::IstioFirst);
    assert_eq!(names(&first, "initContainers"), ["prepare", "istio-init"]);
    assert_eq!(names(&first, "containers"), ["istio-proxy", "web", "side"]);
    assert_eq!(
        names(&after(Injector::IstioLast), "containers"),
        ["web", "side", "istio-proxy"]
    );
}

#[test]
fn istio_asks_the_application_in_the_kubelets_stead() {
    let pod = after(Injector::Istio);
    let web = &pod["spec"]["containers"][0];
    assert_eq!(
        web["livenessProbe"],
        json!({ "httpGet": { "path": "/app-health/web/livez", "port": 15020 }, "timeoutSeconds": 1 })
    );
    assert_eq!(
        web["startupProbe"],
        json!({ "httpGet": { "path": "/app-health/web/startupz", "port": 15020 } })
    );
    assert_eq!(web["readinessProbe"], json!({ "exec": { "command": ["ready"] } }));
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let probers = env
        .iter()
        .find(|v| v["name"] == "ISTIO_KUBE_APP_PROBERS")
        .unwrap();
    let probers: Value = serde_json::from_str(probers["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        probers,
        json!({
            "/app-health/web/livez": { "httpGet": { "path": "/live", "port": 80 }, "timeoutSeconds": 1 },
            "/app-health/web/startupz": { "tcpSocket": { "port": 80 } },
        })
    );
}

#[test]
fn vault_mounts_its_secrets_everywhere_and_needs_a_token() {
    let mut pod = pod();
    pod["metadata"]["annotations"]["vault.hashicorp.com/agent-init-first"] = json!("true");
    Injector::Vault.apply(&mut pod).unwrap();
    assert_eq!(names(&pod, "initContainers"), ["vault-agent-init", "prepare"]);
    assert_eq!(names(&pod, "containers"), ["web", "side", "vault-agent"]);
    for container in [
        &pod["spec"]["initContainers"][1],
        &pod["spec"]["containers"][0],
        &pod["spec"]["containers"][1],
    ] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert_eq!(
            mounts.last().unwrap()["mountPath"],
            "/vault/secrets",
            "{container}"
        );
    }
    let mut pod = self::pod();
    pod["spec"]["containers"][0]["volumeMounts"] = json!([]);
    assert_eq!(
        Injector::Vault.patch(&pod).unwrap_err(),
        "error creating new agent sidecar: failed to find service account volume mount"
    );
}

#[test]
fn linkerd_takes_over_the_capabilities_of_the_first_container_and_leaves_meshed_pods_alone() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["securityContext"] =
        json!({ "capabilities": { "drop": ["NET_RAW", "CHOWN"] } });
    Injector::Linkerd.apply(&mut pod).unwrap();
    assert_eq!(
        names(&pod, "initContainers"),
        ["linkerd-init", "linkerd-proxy", "prepare"]
    );
    let drop =
        |at: usize| pod["spec"]["initContainers"][at]["securityContext"]["capabilities"]["drop"].clone();
    assert_eq!(drop(0), json!(["CHOWN"]));
    assert_eq!(drop(1), json!(["NET_RAW", "CHOWN"]));
    let meshed = after(Injector::Istio);
    assert!(Injector::Linkerd.patch(&meshed).unwrap().0.is_empty());
}

#[test]
fn bank_vaults_puts_its_program_in_front() {
    let pod = after(Injector::VaultEnv);
    let web = &pod["spec"]["containers"][0];
    assert_eq!(web["command"], json!(["/vault/vault-env"]));
    assert_eq!(web["args"], json!(["app", "-v"]));
    assert_eq!(pod["spec"]["containers"][1].get("command"), None);
}
