//! What the provider pod takes from the template and what it never has.

use serde_json::{Value, json};

use super::*;
use crate::reconcile::pods::fixtures::{instance, prepared};

fn build(change: Value) -> Value {
    let pod = provider_pod(&instance(change), "n1", &OptOuts::default());
    serde_json::to_value(pod.unwrap()).unwrap()
}

fn full() -> Value {
    json!({
        "spec": {
            "provider": {
                "resources": { "requests": { "cpu": "5m" } },
                "nodeSelector": { "disk": "fast", "zone": "b" },
                "tolerations": [{ "key": "theirs", "operator": "Exists" }],
            },
            "template": {
                "metadata": { "labels": { "app": "web" }, "annotations": { "linkerd.io/inject": "enabled" } },
                "spec": {
                    "serviceAccountName": "dev",
                    "imagePullSecrets": [{ "name": "pull" }],
                    "nodeSelector": { "zone": "a", "os": "linux" },
                    "tolerations": [{ "key": "mine", "operator": "Exists" }],
                    "schedulerName": "other", "priorityClassName": "high", "runtimeClassName": "nvidia",
                    "hostNetwork": true,
                    "affinity": {
                        "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                            { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } },
                        ] },
                        "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                            { "matchExpressions": [{ "key": "a", "operator": "Exists" }] },
                            { "matchExpressions": [{ "key": "b", "operator": "Exists" }] },
                        ] } },
                    },
                    "volumes": [
                        { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
                        { "name": "alone", "persistentVolumeClaim": { "claimName": "alone" } },
                        { "name": "secret", "secret": { "secretName": "s" } },
                    ],
                    "initContainers": [{ "name": "init", "image": "init" }],
                    "containers": [
                        {
                            "name": "main", "image": "registry/app:1", "imagePullPolicy": "Never",
                            "command": ["run"], "env": [{ "name": "A", "value": "b" }],
                            "resources": { "limits": { "nvidia.com/gpu": 1 } },
                            "securityContext": { "privileged": true },
                        },
                        { "name": "side", "image": "side" },
                    ],
                },
            },
        },
    })
}

#[test]
fn i6_it_passes_pod_security_restricted_whatever_the_template_needs() {
    let pod = build(full());
    let spec = &pod["spec"];
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
    assert!(spec.get("initContainers").is_none() && spec.get("hostNetwork").is_none());
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        json!("RuntimeDefault")
    );
    assert_eq!(
        spec["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
            "runAsGroup": 65534, "runAsNonRoot": true, "runAsUser": 65534,
        })
    );
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 1, "it holds no claim");
    assert_eq!(spec["automountServiceAccountToken"], json!(false));
    assert_eq!(spec["enableServiceLinks"], json!(false));
}

#[test]
fn it_holds_the_users_image_with_what_pulls_it() {
    let pod = build(full());
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["name"], json!("provider"));
    assert_eq!(container["image"], json!("registry/app:1"));
    assert_eq!(container["imagePullPolicy"], json!("Never"));
    assert_eq!(
        container["command"],
        json!(["/.stoppablecontainer/exec-wrapper", "hold"])
    );
    assert_eq!(container["resources"], json!({ "requests": { "cpu": "5m" } }));
    let names: Vec<_> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["name"])
        .collect();
    assert_eq!(names, ["NVIDIA_VISIBLE_DEVICES"], "none of the template's");
    assert_eq!(
        container["volumeMounts"],
        json!([{ "name": "stoppablecontainer", "mountPath": "/.stoppablecontainer", "readOnly": true }])
    );
    assert_eq!(
        spec["volumes"][0],
        json!({ "name": "stoppablecontainer", "csi": { "driver": "csi.stoppablecontainer.xtlsoft.top", "readOnly": true } })
    );
    assert_eq!(spec["serviceAccountName"], json!("dev"));
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "pull" }]));
}

#[test]
fn placement_is_the_templates_with_the_providers_own_on_top() {
    let spec = build(full())["spec"].clone();
    assert_eq!(
        spec["nodeSelector"],
        json!({ "disk": "fast", "os": "linux", "zone": "b" })
    );
    let keys: Vec<_> = spec["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["key"].clone())
        .collect();
    assert_eq!(keys[..2], [json!("mine"), json!("theirs")]);
    assert_eq!(spec["schedulerName"], json!("other"));
    assert_eq!(spec["priorityClassName"], json!("high"));
    assert_eq!(spec["runtimeClassName"], json!("nvidia"));
}

#[test]
fn users_labels_never_reach_it_and_injectors_are_told_to_stay_away() {
    let metadata = build(full())["metadata"].clone();
    assert_eq!(
        metadata["labels"],
        json!({
            "sidecar.istio.io/inject": "false",
            "stoppablecontainer.xtlsoft.top/instance": "web",
            "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
            "stoppablecontainer.xtlsoft.top/role": "provider",
        })
    );
    let annotations = &metadata["annotations"];
    assert_eq!(annotations["sidecar.istio.io/inject"], json!("false"));
    assert_eq!(annotations["linkerd.io/inject"], json!("disabled"));
    assert_eq!(annotations["vault.hashicorp.com/agent-inject"], json!("false"));
    assert_eq!(metadata["ownerReferences"][0]["uid"], json!("instance-uid"));
    assert_eq!(metadata["ownerReferences"][0]["controller"], json!(true));
    assert_eq!(metadata["ownerReferences"][0]["blockOwnerDeletion"], json!(true));
}

#[test]
fn i1_it_comes_back_to_the_node_of_its_data_and_nowhere_else() {
    let mut kept = full();
    kept["status"] = prepared();
    let affinity = build(kept)["spec"]["affinity"].clone();
    let terms =
        &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let pin = json!([{ "key": "metadata.name", "operator": "In", "values": ["n1"] }]);
    for (term, key) in terms.as_array().unwrap().iter().zip(["a", "b"]) {
        assert_eq!(term["matchFields"], pin, "in every alternative");
        assert_eq!(term["matchExpressions"][0]["key"], json!(key));
    }
    assert!(
        affinity.get("podAntiAffinity").is_none(),
        "its own running consumer may be what it would avoid"
    );
    let bare = build(json!({ "status": prepared() }));
    let bare = &bare["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(bare, &json!({ "nodeSelectorTerms": [{ "matchFields": pin }] }));
}

#[test]
fn i20_what_keeps_data_stays_through_what_its_node_suffers_from() {
    let keys = |pod: Value| -> Vec<String> {
        let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let keys = tolerations.iter().filter(|t| t["effect"] == json!("NoSchedule"));
        keys.map(|t| t["key"].as_str().unwrap().to_owned()).collect()
    };
    let pressure = ["disk", "memory", "pid"].map(|what| format!("node.kubernetes.io/{what}-pressure"));
    assert_eq!(keys(build(json!({ "status": prepared() }))), pressure);
}

#[test]
fn whether_a_provider_is_current_is_known_from_its_hash() {
    let made = |change: Value| provider_pod(&instance(change), "n1", &OptOuts::default()).unwrap();
    let mut kept = full();
    kept["status"] = prepared();
    assert_eq!(
        is_current(&instance(kept), &made(full())),
        Some(true),
        "facts are not edits"
    );
    assert_eq!(is_current(&instance(full()), &made(json!({}))), Some(false));
    assert_eq!(is_current(&instance(json!({})), &Pod::default()), None);
}

/// A queue that takes every pod adds a scheduling gate, and the API server takes no pod that has
/// both a node and a gate.
#[test]
fn it_goes_through_the_scheduler() {
    for status in [json!({ "neverStarted": true, "nodeName": "n1" }), prepared()] {
        let spec = build(json!({ "status": status }))["spec"].clone();
        assert_eq!(spec["nodeName"], Value::Null);
        let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let node = &terms["nodeSelectorTerms"][0]["matchFields"][0]["values"];
        assert_eq!(*node, json!(["n1"]));
    }
}

/// An image's own variable would give the provider all GPUs of its node, without a request for any.
#[test]
fn i5_a_provider_has_no_device_whatever_its_image_asks_for() {
    let container = &build(full())["spec"]["containers"][0];
    let expected = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]);
    assert_eq!(container["env"], expected);
    assert_eq!(container["resources"]["limits"].get("nvidia.com/gpu"), None);
}
