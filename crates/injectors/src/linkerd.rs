//! Linkerd's proxy injector, after linkerd/linkerd2: `pkg/inject/inject.go` (`injectPodSpec`),
//! `report.go` (`Injectable`), and the charts `patch/templates/patch.json`,
//! `partials/templates/_proxy.tpl`, `_proxy-init.tpl`. The patch puts the two containers at fixed
//! indices.

use json_patch::Patch;
use serde_json::{Value, json};

use crate::IMAGE;
use crate::pod::{Operations, annotation, has, label, list, token_mount};

/// Pods with one of these are left alone.
const PROXIES: [&str; 4] = ["linkerd-proxy", "linkerd-init", "istio-proxy", "istio-init"];

pub(crate) fn patch(pod: &Value, native: bool) -> Patch {
    if !injectable(pod) {
        return Patch::default();
    }
    let mut operations = Operations::default();
    for (name, value) in [
        ("linkerd.io/created-by", "linkerd/proxy-injector edge-26.8.3"),
        ("linkerd.io/proxy-version", "edge-26.8.3"),
        (
            "linkerd.io/trust-root-sha256",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ),
    ] {
        operations.add(["metadata", "annotations", name], json!(value));
    }
    if pod["metadata"]["labels"].is_null() {
        operations.add(["metadata", "labels"], json!({}));
    }
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    for (name, value) in [
        ("linkerd.io/control-plane-ns", "linkerd"),
        ("linkerd.io/workload-ns", namespace),
    ] {
        operations.add(["metadata", "labels", name], json!(value));
    }
    for (list, at) in [
        ("volumes", &pod["spec"]["volumes"]),
        ("initContainers", &pod["spec"]["initContainers"]),
    ] {
        if at.is_null() {
            operations.add(["spec", list], json!([]));
        }
    }
    let volume = ["spec", "volumes", "-"];
    let (init_at, proxy_at) = if native {
        (["spec", "initContainers", "0"], ["spec", "initContainers", "1"])
    } else {
        (["spec", "initContainers", "-"], ["spec", "containers", "0"])
    };
    operations.add(
        volume,
        json!({ "name": "linkerd-proxy-init-xtables-lock", "emptyDir": {} }),
    );
    operations.add(init_at, init(pod));
    operations.add(
        volume,
        json!({ "name": "linkerd-identity-end-entity", "emptyDir": { "medium": "Memory" } }),
    );
    operations.add(
        volume,
        json!({ "name": "linkerd-identity-token", "projected": { "sources": [{ "serviceAccountToken": {
            "path": "linkerd-identity-token", "expirationSeconds": 86400, "audience": "identity.l5d.io",
        } }] } }),
    );
    operations.add(proxy_at, proxy(pod, native));
    operations.into_patch()
}

fn injectable(pod: &Value) -> bool {
    let spec = &pod["spec"];
    annotation(pod, "linkerd.io/inject") == "enabled"
        && label(pod, "linkerd.io/control-plane-component").is_empty()
        && spec["hostNetwork"] != true
        && spec["automountServiceAccountToken"] != false
        && !PROXIES
            .iter()
            .any(|name| has(list(spec, "containers"), name) || has(list(spec, "initContainers"), name))
}

/// The capabilities of the first container, whichever that is, go to both.
fn capabilities(pod: &Value) -> Value {
    list(&pod["spec"], "containers")
        .first()
        .map(|c| c["securityContext"]["capabilities"].clone())
        .unwrap_or_default()
}

/// Where the first container has the token of the service account.
fn token(pod: &Value) -> Option<Value> {
    let first = list(&pod["spec"], "containers").first()?;
    token_mount(first).cloned()
}

/// `linkerd-init`. What its stand-in does is nothing: it redirects no traffic.
fn init(pod: &Value) -> Value {
    let own = capabilities(pod);
    let add = [json!("NET_ADMIN"), json!("NET_RAW")];
    let drop = list(&own, "drop").iter().filter(|name| !add.contains(name));
    let drop: Vec<&Value> = drop.collect();
    let mut capabilities = json!({ "add": ([&add, list(&own, "add")].concat()) });
    if !drop.is_empty() {
        capabilities["drop"] = json!(drop);
    }
    let mounts = [json!({ "mountPath": "/run", "name": "linkerd-proxy-init-xtables-lock" })];
    json!({
        "name": "linkerd-init", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/lib/linkerd/linkerd2-proxy-init"],
        "args": [
            "--firewall-bin-path", "iptables-nft", "--firewall-save-bin-path", "iptables-nft-save", "--ipv6=false",
            "--incoming-proxy-port", "4143", "--outgoing-proxy-port", "4140", "--proxy-uid", "2102",
            "--inbound-ports-to-ignore", "4190,4191,4567,4568",
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": capabilities, "privileged": false,
            "runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534, "readOnlyRootFilesystem": true,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts.into_iter().chain(token(pod)).collect::<Vec<_>>(),
    })
}

fn proxy(pod: &Value, native: bool) -> Value {
    let value = |name: &str, value: &str| json!({ "name": name, "value": value });
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let ports = list(&pod["spec"], "containers")
        .iter()
        .flat_map(|c| list(c, "ports"));
    let ports: Vec<String> = ports.map(|port| port["containerPort"].to_string()).collect();
    let get = |path: &str| json!({ "path": path, "port": 4191 });
    let mut security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 2102,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if capabilities(pod).is_object() {
        security["capabilities"] = capabilities(pod);
    }
    let mounts = [
        json!({ "mountPath": "/var/run/linkerd/identity/end-entity", "name": "linkerd-identity-end-entity" }),
        json!({ "mountPath": "/var/run/secrets/tokens", "name": "linkerd-identity-token" }),
    ];
    let mut container = json!({
        "name": "linkerd-proxy", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        // The longer half of the original's variables says how to reach a control plane, which
        // nothing here has.
        "env": [
            field("_pod_name", "metadata.name"),
            field("_pod_ns", "metadata.namespace"),
            field("_pod_uid", "metadata.uid"),
            field("_pod_ip", "status.podIP"),
            field("_pod_nodeName", "spec.nodeName"),
            value("_pod_containerName", "linkerd-proxy"),
            value("LINKERD2_PROXY_LOG", "warn,linkerd=info,hickory=error"),
            value("LINKERD2_PROXY_LOG_FORMAT", "plain"),
            value("LINKERD2_PROXY_POLICY_WORKLOAD", "{\"ns\":\"$(_pod_ns)\", \"pod\":\"$(_pod_name)\"}\n"),
            value("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "0.0.0.0:4190"),
            value("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:4191"),
            value("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", "127.0.0.1:4140"),
            value("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "0.0.0.0:4143"),
            field("LINKERD2_PROXY_INBOUND_IPS", "status.podIPs"),
            value("LINKERD2_PROXY_INBOUND_PORTS", &ports.join(",")),
            field("_pod_sa", "spec.serviceAccountName"),
            value("LINKERD2_PROXY_IDENTITY_DIR", "/var/run/linkerd/identity/end-entity"),
            value("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/var/run/secrets/tokens/linkerd-identity-token"),
        ],
        "livenessProbe": { "httpGet": get("/live"), "initialDelaySeconds": 10, "timeoutSeconds": 1 },
        "ports": [
            { "containerPort": 4143, "name": "linkerd-proxy" },
            { "containerPort": 4191, "name": "linkerd-admin" },
        ],
        "readinessProbe": { "httpGet": get("/ready"), "initialDelaySeconds": 2, "timeoutSeconds": 1 },
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts.into_iter().chain(token(pod)).collect::<Vec<_>>(),
    });
    if native {
        container["restartPolicy"] = json!("Always");
        container["startupProbe"] = json!({ "httpGet": get("/ready"), "initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 120 });
    } else {
        let command = ["/usr/lib/linkerd/linkerd-await", "--timeout=2m", "--port=4191"];
        container["lifecycle"] = json!({ "postStart": { "exec": { "command": command } } });
    }
    container
}
