use serde_json::{Value, json};
use stoppablecontainer_api::names::{ANNOTATION_AVOID_NODES, LABEL_ROLE};

use super::placeholder_pod;
use crate::reconcile::pods::OptOuts;
use crate::reconcile::pods::fixtures::instance;

fn made(change: Value) -> Value {
    placeholder_pod(&instance(change), &OptOuts::default()).unwrap()
}

fn needing() -> Value {
    json!({
        "metadata": { "labels": { "app": "web", "sidecar.istio.io/inject": "true" } },
        "spec": {
            "hostname": "desk",
            "schedulingGates": [{ "name": "quota" }],
            "nodeSelector": { "disk": "ssd" },
            "priorityClassName": "high",
            "resourceClaims": [{ "name": "gpu", "resourceClaimName": "mine" }],
            "topologySpreadConstraints": [{ "topologyKey": "zone" }],
            "volumes": [
                { "name": "secret", "secret": { "secretName": "key" } },
                { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
            ],
            "initContainers": [{ "name": "init", "image": "init", "command": ["true"] }],
            "containers": [{
                "name": "main",
                "image": "nginx:1.25",
                "command": ["run"],
                "env": [{ "name": "A", "value": "b" }],
                "ports": [{ "containerPort": 80, "hostPort": 8080 }],
                "resources": { "requests": { "cpu": "2", "example.com/gpu": "1" }, "limits": { "example.com/gpu": "1" } },
                "volumeMounts": [{ "name": "secret", "mountPath": "/key" }],
                "livenessProbe": { "exec": { "command": ["true"] } },
            }],
        },
    })
}

#[test]
fn the_scheduler_sees_what_the_consumer_needs_and_nothing_that_runs() {
    let pod = made(json!({ "spec": { "template": needing() } }));
    let spec = &pod["spec"];
    assert_eq!(pod["metadata"]["name"], "web-placeholder");
    for field in [
        "nodeSelector",
        "priorityClassName",
        "resourceClaims",
        "topologySpreadConstraints",
    ] {
        assert_eq!(spec[field], needing()["spec"][field], "{field}");
    }
    let main = &spec["containers"][0];
    assert_eq!(main["resources"], needing()["spec"]["containers"][0]["resources"]);
    assert_eq!(main["ports"][0]["hostPort"], 8080);
    for field in ["command", "env", "livenessProbe"] {
        assert_eq!(main[field], Value::Null, "{field}");
    }
    assert_eq!(
        spec["initContainers"],
        json!([{ "name": "init", "image": "init" }])
    );
    assert_eq!(spec["schedulingGates"], Value::Null);
    let volumes: Vec<_> = spec["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["name"])
        .collect();
    assert_eq!(volumes, ["stoppablecontainer", "data"]);
}

/// A container that mounts our volume cannot start before the agent publishes it, which it never
/// does for this pod.
#[test]
fn it_mounts_the_volume_that_is_never_published() {
    let pod = made(json!({ "spec": { "template": needing() } }));
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts.as_array().unwrap().len(), 1);
    assert_eq!(mounts[0]["name"], "stoppablecontainer");
}

/// Other pods' affinity selects on the user's labels. Injectors stay away: nothing runs.
#[test]
fn it_carries_the_users_labels_and_the_opt_outs() {
    let pod = made(json!({ "spec": { "template": needing() } }));
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["app"], "web");
    assert_eq!(labels["sidecar.istio.io/inject"], "false");
    assert_eq!(labels[LABEL_ROLE], "placeholder");
}

#[test]
fn a_stopped_object_asks_for_devices_but_for_no_room() {
    let pod = made(json!({ "spec": { "running": false, "template": needing() } }));
    let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(*requests, json!({ "example.com/gpu": "1" }));
}

#[test]
fn nodes_that_were_given_up_are_avoided_and_the_template_has_its_way() {
    let mut template = needing();
    template["spec"]["nodeName"] = json!("n9");
    let pod = made(json!({
        "metadata": { "annotations": { ANNOTATION_AVOID_NODES: "n1,n2" } },
        "spec": { "template": template, "provider": { "nodeSelector": { "disk": "nvme" } } },
    }));
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
    let avoided = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        .as_array()
        .unwrap();
    let fields = avoided.last().unwrap()["preference"]["matchFields"]
        .as_array()
        .unwrap();
    let names: Vec<_> = fields.iter().map(|field| &field["values"][0]).collect();
    assert_eq!(names, ["n1", "n2"]);
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(required[0]["matchFields"][0]["values"], json!(["n9"]));
    assert_eq!(pod["spec"]["nodeSelector"]["disk"], "nvme");
}

/// Story: a template preferred the node that was given up with the weight 100. The preference for
/// other nodes had the same weight, and the object was bound to that node again and again.
#[test]
fn a_preference_of_the_template_does_not_outweigh_that_a_node_was_given_up() {
    let preferring = |node: &str| {
        json!({
            "weight": 100,
            "preference": { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] },
        })
    };
    let mut template = needing();
    template["spec"]["affinity"]["nodeAffinity"] = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": [preferring("n1"), preferring("n1")],
    });
    let pod = made(json!({
        "metadata": { "annotations": { ANNOTATION_AVOID_NODES: "n1" } },
        "spec": { "template": template },
    }));
    let terms = &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let weight = |node: &str| {
        let matches = |term: &&Value| {
            let field = &term["preference"]["matchFields"][0];
            (field["operator"] == "In") == (field["values"][0] == node)
        };
        let matching = terms.as_array().unwrap().iter().filter(matches);
        matching.filter_map(|term| term["weight"].as_i64()).sum::<i64>()
    };
    assert!(
        weight("n2") >= 10 * weight("n1"),
        "{} {}",
        weight("n2"),
        weight("n1")
    );
}

#[test]
fn a_template_with_very_many_preferences_is_not_multiplied() {
    let any =
        json!({ "weight": 1, "preference": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } });
    let mut template = needing();
    template["spec"]["affinity"]["nodeAffinity"] = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": vec![any; 1000],
    });
    let pod = made(json!({
        "metadata": { "annotations": { ANNOTATION_AVOID_NODES: "n1" } },
        "spec": { "template": template },
    }));
    let terms = &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(terms.as_array().unwrap().len(), 1100);
}
