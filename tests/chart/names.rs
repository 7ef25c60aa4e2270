//! Names, namespaces, labels and service accounts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{NAMESPACE, Objects, container, name, refused, render, strings};

/// Names of all objects except those whose names are not the chart's choice.
fn prefixes(objects: &Objects) -> BTreeSet<&str> {
    let fixed = ["CustomResourceDefinition", "CSIDriver"];
    let own = objects
        .0
        .iter()
        .filter(|object| !fixed.contains(&object["kind"].as_str().unwrap()));
    own.map(name).collect()
}

#[test]
fn the_names_have_the_prefix_of_the_values() {
    for (value, prefix) in [
        ("nameOverride=boxes", "stoppablecontainer-boxes"),
        ("fullnameOverride=boxes", "boxes"),
        ("nameOverride=container", "stoppablecontainer"),
    ] {
        let objects = render(&[value]);
        for name in prefixes(&objects) {
            assert!(
                name == prefix || name.starts_with(&format!("{prefix}-")),
                "{name}"
            );
        }
    }
    assert!(refused(&["nameOverride=a-name-that-is-too-long"]).contains("nameOverride"));
}

/// `kubectl stopc` finds the programs by this label.
#[test]
fn the_label_with_the_name_of_the_product_never_changes() {
    for object in render(&["nameOverride=boxes"]).0 {
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/name"],
            "stoppablecontainer"
        );
    }
}

#[test]
fn the_namespace_can_be_another_one() {
    let objects = render(&["namespaceOverride=other"]);
    for object in &objects.0 {
        let namespace = &object["metadata"]["namespace"];
        assert!(
            namespace.is_null() || namespace == "other" || namespace == "default",
            "{object}"
        );
        let left = strings(object).into_iter().find(|text| text.contains(NAMESPACE));
        assert_eq!(left, None, "{} {}", object["kind"], name(object));
    }
}

#[test]
fn all_objects_and_pods_have_the_common_labels() {
    let objects = render(&[
        "commonLabels.team=storage",
        "controller.podLabels.team=other",
        "agent.podLabels.own=yes",
    ]);
    for object in &objects.0 {
        assert_eq!(
            object["metadata"]["labels"]["team"],
            "storage",
            "{}",
            name(object)
        );
    }
    for workload in objects.workloads() {
        assert_eq!(
            workload["spec"]["template"]["metadata"]["labels"]["team"],
            "storage"
        );
    }
    assert_eq!(objects.agent()["metadata"]["labels"]["own"], "yes");
}

#[test]
fn labels_of_the_chart_cannot_be_replaced() {
    for label in [
        "app\\.kubernetes\\.io/component",
        "stoppablecontainer\\.xtlsoft\\.top/role",
    ] {
        for values in ["commonLabels", "controller.podLabels", "agent.podLabels"] {
            let message = refused(&[&format!("{values}.{label}=x")]);
            assert!(message.contains("invalid propertyName"), "{values}: {message}");
        }
    }
}

#[test]
fn selectors_match_the_pods_and_ignore_labels_of_the_values() {
    let objects = render(&[
        "commonLabels.a=b",
        "controller.podLabels.c=d",
        "agent.podLabels.e=f",
    ]);
    for kind in ["Deployment", "DaemonSet"] {
        for workload in objects.of(kind) {
            let selector = workload["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert_eq!(selector.len(), 3, "{selector:?}");
            assert!(
                selector.iter().all(|(key, value)| labels[key] == *value),
                "{selector:?}"
            );
        }
    }
}

/// Every place that names a program's service account.
fn accounts(objects: &Objects, kind: &str) -> Vec<String> {
    let subjects = objects
        .of(kind)
        .flat_map(|binding| binding["subjects"].as_array().unwrap().clone());
    subjects
        .map(|subject| subject["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn existing_service_accounts_are_used_everywhere() {
    let objects = render(&[
        "controller.serviceAccount.create=false",
        "controller.serviceAccount.name=own-controller",
        "agent.serviceAccount.create=false",
        "agent.serviceAccount.name=own-agent",
    ]);
    let created: Vec<_> = objects.of("ServiceAccount").map(name).collect();
    assert!(
        created
            .iter()
            .all(|name| !name.ends_with("-controller") && !name.ends_with("-agent")),
        "{created:?}"
    );
    assert_eq!(
        objects.controller()["spec"]["serviceAccountName"],
        "own-controller"
    );
    assert_eq!(objects.agent()["spec"]["serviceAccountName"], "own-agent");
    let bound = accounts(&objects, "ClusterRoleBinding");
    assert!(bound.contains(&"own-controller".to_owned()) && bound.contains(&"own-agent".to_owned()));
    let users = |object: &Value| {
        let all = strings(object).join(" ");
        all.contains(":stoppablecontainer-controller") || all.contains(":stoppablecontainer-node-agent")
    };
    for kind in ["ValidatingAdmissionPolicy", "FlowSchema"] {
        for object in objects.of(kind) {
            assert!(!users(object), "{} names the default account", name(object));
        }
    }
    let schemas = objects.of("FlowSchema").flat_map(strings).collect::<Vec<_>>();
    assert!(
        schemas.contains(&"own-controller") && schemas.contains(&"own-agent"),
        "{schemas:?}"
    );
}

#[test]
fn service_accounts_have_their_names_and_annotations() {
    let objects = render(&[
        "controller.serviceAccount.name=own",
        "controller.serviceAccount.annotations.key=value",
    ]);
    assert_eq!(
        objects.get("ServiceAccount", "own")["metadata"]["annotations"],
        json!({"key": "value"})
    );
    assert!(objects.get("ServiceAccount", "-node-agent")["metadata"]["annotations"].is_null());
    let message = refused(&["agent.serviceAccount.create=false"]);
    assert!(
        message.contains("agent.serviceAccount.name: name the existing service account"),
        "{message}"
    );
}

/// `helm uninstall` and GitOps tools find the programs' own pods by this name.
#[test]
fn containers_keep_their_names() {
    let objects = render(&["fullnameOverride=x"]);
    assert_eq!(container(objects.controller())["name"], "operator");
    assert_eq!(container(objects.agent())["name"], "node-agent");
}
