//! Istio's sidecar injector, after istio/istio: `pkg/kube/inject/webhook.go` (`injectPod`,
//! `reorderPod`), `inject.go` (`injectRequired`), `app_probe.go`, and the template
//! `manifests/charts/istio-control/istio-discovery/files/injection-template.yaml`. The template is
//! laid over the pod, so what is new stands in front, and the difference of the whole pod is sent.

mod proxy;

use std::collections::BTreeMap;

use json_patch::Patch;
use serde_json::{Value, json};

use crate::pod::{annotation, container_names, edit_containers, edit_list, edited, label, list};

/// Where the proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// An init container that goes on running.
    Native,
    /// The first container (`holdApplicationUntilProxyStarts`).
    First,
    /// The last container. Releases for Kubernetes before 1.19 also set the pod's `fsGroup`; this
    /// one does, because current ones (`releasenotes/notes/fsgroup.yaml`) do not.
    Last,
}

const PROXY: &str = "istio-proxy";
const INIT: &str = "istio-init";
/// Port of the agent that asks the application in the kubelet's stead.
const STATUS_PORT: u16 = 15_020;
const VOLUMES: [&str; 9] = [
    "workload-socket",
    "credential-socket",
    "workload-certs",
    "istio-envoy",
    "istio-data",
    "istio-podinfo",
    "istio-token",
    "istiod-ca-cert",
    "istio-ca-crl",
];

pub(crate) fn patch(pod: &Value, position: Proxy) -> Patch {
    if !required(pod) {
        return Patch::default();
    }
    edited(pod, |pod| {
        let before = proxy::probers_of(pod);
        // A second call injects again, in place of what the first one did.
        for (key, names) in [
            ("volumes", &VOLUMES[..]),
            ("initContainers", &[INIT, PROXY]),
            ("containers", &[PROXY]),
        ] {
            if pod["spec"][key].is_array() {
                edit_list(&mut pod["spec"], key, |items| {
                    items.retain(|item| !names.iter().any(|name| item["name"] == *name));
                });
            }
        }
        let mut probers = rewrite_probes(pod);
        probers.extend(before);
        let proxy = proxy::container(pod, position, &probers);
        metadata(pod, position);
        edit_list(&mut pod["spec"], "volumes", |volumes| {
            volumes.splice(0..0, self::volumes());
        });
        edit_list(&mut pod["spec"], "initContainers", |init| match position {
            Proxy::Native => drop(init.splice(0..0, [proxy::init(), proxy.clone()])),
            Proxy::First | Proxy::Last => init.push(proxy::init()),
        });
        edit_list(&mut pod["spec"], "containers", |containers| match position {
            Proxy::Native => {}
            Proxy::First => containers.insert(0, proxy.clone()),
            Proxy::Last => containers.push(proxy.clone()),
        });
        if position == Proxy::Last {
            pod["spec"]["securityContext"]["fsGroup"] = json!(1337);
        }
    })
}

/// The label decides, else the annotation of the same name, else the policy, which is yes. Whether
/// the webhook is called at all is a matter of its selectors, which know labels only.
fn required(pod: &Value) -> bool {
    let name = "sidecar.istio.io/inject";
    let said = match label(pod, name) {
        "" => annotation(pod, name),
        said => said,
    };
    said != "false" && pod["spec"]["hostNetwork"] != true
}

fn metadata(pod: &mut Value, position: Proxy) {
    let own_name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let first = container_names(pod)
        .first()
        .map(|name| (*name).to_owned())
        .unwrap_or_default();
    let first_of = |pod: &Value, names: &[&str], otherwise: &str| {
        let found = names
            .iter()
            .map(|name| label(pod, name))
            .find(|value| !value.is_empty());
        found.unwrap_or(otherwise).to_owned()
    };
    let name = "service.istio.io/canonical-name";
    let revision = "service.istio.io/canonical-revision";
    let labels = [
        (
            "security.istio.io/tlsMode",
            first_of(pod, &["security.istio.io/tlsMode"], "istio"),
        ),
        (
            name,
            first_of(pod, &[name, "app.kubernetes.io/name", "app"], &own_name),
        ),
        (
            revision,
            first_of(pod, &[revision, "app.kubernetes.io/version", "version"], "latest"),
        ),
    ];
    for (name, value) in labels {
        pod["metadata"]["labels"][name] = json!(value);
    }
    let (init, containers) = match position {
        Proxy::Native => (json!([INIT, PROXY]), Value::Null),
        Proxy::First | Proxy::Last => (json!([INIT]), json!([PROXY])),
    };
    let status = json!({
        "initContainers": init, "containers": containers, "volumes": VOLUMES,
        "imagePullSecrets": null, "revision": "default",
    });
    let annotations = &mut pod["metadata"]["annotations"];
    for name in [
        "kubectl.kubernetes.io/default-logs-container",
        "kubectl.kubernetes.io/default-container",
    ] {
        if annotations[name].is_null() {
            annotations[name] = json!(first);
        }
    }
    for (name, value) in [
        ("istio.io/rev", "default"),
        ("prometheus.io/port", "15020"),
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/scrape", "true"),
        ("sidecar.istio.io/status", &status.to_string()),
    ] {
        annotations[name] = json!(value);
    }
}

fn volumes() -> [Value; 9] {
    let field = |name: &str| json!({ "path": name, "fieldRef": { "fieldPath": format!("metadata.{name}") } });
    let sources = [
        json!({}),
        json!({}),
        json!({}),
        json!({ "emptyDir": { "medium": "Memory" } }),
        json!({ "emptyDir": {} }),
        json!({ "downwardAPI": { "items": [field("labels"), field("annotations")] } }),
        json!({ "projected": { "sources": [
            { "serviceAccountToken": { "path": "istio-token", "expirationSeconds": 43200, "audience": "istio-ca" } },
        ] } }),
        json!({ "configMap": { "name": "istio-ca-root-cert" } }),
        json!({ "configMap": { "name": "istio-ca-crl", "optional": true } }),
    ];
    let mut at = 0;
    sources.map(|mut volume| {
        volume["name"] = json!(VOLUMES[at]);
        at += 1;
        volume
    })
}

/// Sends the probes and hooks that go over the network to the agent, and returns where they went
/// before.
fn rewrite_probes(pod: &mut Value) -> BTreeMap<String, Value> {
    let mut probers = BTreeMap::new();
    for key in ["initContainers", "containers"] {
        edit_containers(pod, key, |container| {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let ports = list(container, "ports").to_vec();
            for (probe, path) in [
                ("readinessProbe", "readyz"),
                ("livenessProbe", "livez"),
                ("startupProbe", "startupz"),
            ] {
                let url = format!("/app-health/{name}/{path}");
                rewrite(&mut container[probe], url, &ports, &mut probers);
            }
            for (hook, path) in [("preStop", "prestopz"), ("postStart", "poststartz")] {
                if container["lifecycle"][hook].is_object() {
                    let url = format!("/app-lifecycle/{name}/{path}");
                    rewrite(&mut container["lifecycle"][hook], url, &ports, &mut probers);
                }
            }
            if let Some(container) = container.as_object_mut() {
                container.retain(|_, value| !value.is_null());
            }
        });
    }
    probers
}

fn rewrite(probe: &mut Value, url: String, ports: &[Value], probers: &mut BTreeMap<String, Value>) {
    let Some(fields) = probe.as_object_mut() else {
        return;
    };
    let Some(kind) = ["httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .find(|kind| fields.contains_key(*kind))
    else {
        return;
    };
    let mut action = fields.remove(kind).unwrap_or_default();
    // A named port is resolved among the container's own; one that is not there is left out.
    if let Some(name) = action["port"].as_str() {
        let port = ports
            .iter()
            .find(|p| p["name"] == name)
            .map(|p| p["containerPort"].clone());
        action["port"] = port.unwrap_or_default();
    }
    let mut new = if kind == "httpGet" {
        action.clone()
    } else {
        json!({})
    };
    new["path"] = json!(url);
    new["port"] = json!(STATUS_PORT);
    if new["scheme"] == "HTTPS" {
        new["scheme"] = json!("HTTP");
    }
    if action["port"].is_number() && action["port"] != STATUS_PORT {
        let mut prober = json!({ kind: action });
        if let Some(seconds) = fields.get("timeoutSeconds") {
            prober["timeoutSeconds"] = seconds.clone();
        }
        probers.insert(url, prober);
    }
    fields.insert("httpGet".to_owned(), new);
}
