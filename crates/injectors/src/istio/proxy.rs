//! The two containers that Istio injects, as its template makes them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{INIT, PROXY, Proxy};
use crate::IMAGE;
use crate::pod::{container_names, list};

const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

/// Resources are a setting of the installation; the original's defaults ask for ten times as much.
fn resources() -> Value {
    json!({ "limits": { "cpu": "2", "memory": "128Mi" }, "requests": { "cpu": "10m", "memory": "16Mi" } })
}

/// `istio-init`. What its stand-in does is nothing: it redirects no traffic.
pub(super) fn init() -> Value {
    json!({
        "name": INIT, "image": IMAGE,
        "args": [
            "istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "",
            "-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info",
        ],
        "resources": resources(),
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": false, "runAsGroup": 0, "runAsNonRoot": false, "runAsUser": 0,
        },
    })
}

/// `istio-proxy`, for a pod without it.
pub(super) fn container(pod: &Value, position: Proxy, probers: &BTreeMap<String, Value>) -> Value {
    let probe = json!({ "path": "/healthz/ready", "port": 15021 });
    let mut container = json!({
        "name": PROXY, "image": IMAGE,
        "ports": [{ "containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom" }],
        "args": [
            "proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info",
        ],
        "env": environment(pod, probers),
        "startupProbe": { "httpGet": probe, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 600 },
        "readinessProbe": { "httpGet": probe, "periodSeconds": 15, "timeoutSeconds": 3, "failureThreshold": 4 },
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsGroup": 1337, "runAsNonRoot": true, "runAsUser": 1337,
        },
        "resources": resources(),
        "volumeMounts": mounts(),
    });
    match position {
        Proxy::Native => {
            container["restartPolicy"] = json!("Always");
            let drain = ["pilot-agent", "request", "--debug-port=15020", "POST", "drain"];
            container["lifecycle"] = json!({ "preStop": { "exec": { "command": drain } } });
        }
        Proxy::First => {
            container["lifecycle"] =
                json!({ "postStart": { "exec": { "command": ["pilot-agent", "wait"] } } });
        }
        Proxy::Last => {}
    }
    container
}

/// The probes that an earlier call has sent to the agent.
pub(super) fn probers_of(pod: &Value) -> BTreeMap<String, Value> {
    let containers = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| list(&pod["spec"], key));
    let proxy = containers.clone().find(|c| c["name"] == PROXY);
    let variable = proxy.and_then(|c| list(c, "env").iter().find(|v| v["name"] == PROBERS));
    variable
        .and_then(|v| serde_json::from_str(v["value"].as_str()?).ok())
        .unwrap_or_default()
}

fn environment(pod: &Value, probers: &BTreeMap<String, Value>) -> Vec<Value> {
    let value = |name: &str, value: &str| json!({ "name": name, "value": value });
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let limit = |name: &str, resource: &str| {
        let source = json!({ "resource": format!("limits.{resource}"), "divisor": "1" });
        json!({ "name": name, "valueFrom": { "resourceFieldRef": source } })
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    let ports = list(&pod["spec"], "containers")
        .iter()
        .flat_map(|c| list(c, "ports"));
    let ports: Vec<String> = ports.map(Value::to_string).collect();
    let mut environment = vec![
        value("PILOT_CERT_PROVIDER", "istiod"),
        value("CA_ADDR", "istiod.istio-system.svc:15012"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        limit("ISTIO_CPU_LIMIT", "cpu"),
        value("PROXY_CONFIG", "{}\n"),
        value(
            "ISTIO_META_POD_PORTS",
            &format!("[\n    {}\n]", ports.join("\n    ,")),
        ),
        value("ISTIO_META_APP_CONTAINERS", &container_names(pod).join(",")),
        limit("GOMEMLIMIT", "memory"),
        value("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        value("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        value("ISTIO_META_WORKLOAD_NAME", name),
        // A pod without generateName counts as its own workload (`pkg/kube/util.go`,
        // `GetDeployMetaFromPod`).
        value(
            "ISTIO_META_OWNER",
            &format!("kubernetes://apis/v1/namespaces/{namespace}/pods/{name}"),
        ),
        value("ISTIO_META_MESH_ID", "cluster.local"),
        value("TRUST_DOMAIN", "cluster.local"),
    ];
    if !probers.is_empty() {
        environment.push(value(PROBERS, &json!(probers).to_string()));
    }
    environment
}

fn mounts() -> Vec<Value> {
    let mounts = [
        ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        ("credential-socket", "/var/run/secrets/credential-uds"),
        ("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
        ("istiod-ca-cert", "/var/run/secrets/istio"),
        ("istio-ca-crl", "/var/run/secrets/istio/crl"),
        ("istio-data", "/var/lib/istio/data"),
        ("istio-envoy", "/etc/istio/proxy"),
        ("istio-token", "/var/run/secrets/tokens"),
        ("istio-podinfo", "/etc/istio/pod"),
    ];
    mounts
        .iter()
        .map(|(name, path)| json!({ "name": name, "mountPath": path }))
        .collect()
}
