//! Fields of the pods, and their disruption budget.

use serde_json::json;

use crate::{args, container, evaluate, refused, render, variable};

#[test]
fn arguments_and_variables_of_the_values_come_last() {
    let objects = render(&[
        "controller.extraArgs[0]=--drain-seconds=5",
        "controller.extraEnv[0].name=A",
        "controller.extraEnv[0].value=b",
        "agent.extraArgs[0]=--x",
        "agent.extraEnv[0].name=C",
        "agent.extraEnv[0].value=d",
    ]);
    let env = |template| {
        container(template)["env"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    assert_eq!(args(objects.controller()).last(), Some(&"--drain-seconds=5"));
    assert_eq!(env(objects.controller()), json!({"name": "A", "value": "b"}));
    assert_eq!(args(objects.agent()).last(), Some(&"--x"));
    assert_eq!(env(objects.agent()), json!({"name": "C", "value": "d"}));
}

#[test]
fn both_programs_accept_the_same_log_formats() {
    for format in ["text", "json"] {
        let values = [
            format!("controller.logFormat={format}"),
            format!("agent.logFormat={format}"),
        ];
        let objects = render(&values.each_ref().map(String::as_str));
        for template in [objects.controller(), objects.agent()] {
            assert_eq!(variable(template, "LOG_FORMAT"), Some(format));
        }
    }
}

#[test]
fn placement_is_that_of_the_values() {
    let spread = "controller.topologySpreadConstraints[0].topologyKey=zone";
    let objects = render(&[
        spread,
        "agent.affinity.nodeAffinity.x=y",
        "controller.affinity.podAffinity.x=y",
    ]);
    let spec = &objects.controller()["spec"];
    assert_eq!(
        spec["topologySpreadConstraints"],
        json!([{"topologyKey": "zone"}])
    );
    assert_eq!(spec["affinity"], json!({"podAffinity": {"x": "y"}}));
    assert_eq!(
        objects.agent()["spec"]["affinity"],
        json!({"nodeAffinity": {"x": "y"}})
    );
    let objects = render(&[]);
    assert!(objects.controller()["spec"]["affinity"]["podAntiAffinity"].is_object());
    assert!(objects.agent()["spec"]["affinity"].is_null());
}

#[test]
fn the_webhook_is_served_on_the_port_of_the_values() {
    let objects = render(&["webhook.securePort=10250", "controller.adminPort=9090"]);
    let controller = objects.controller();
    let ports =
        json!([{"name": "webhook", "containerPort": 10250}, {"name": "admin", "containerPort": 9090}]);
    assert_eq!(container(controller)["ports"], ports);
    assert!(args(controller).contains(&"--webhook-address=0.0.0.0:10250"));
    assert!(args(controller).contains(&"--admin-address=0.0.0.0:9090"));
    assert!(controller["spec"]["hostNetwork"].is_null());
    let service = objects.get("Service", "-webhook");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "webhook", "port": 443, "targetPort": "webhook"}])
    );
    for values in ["webhook.securePort=0", "webhook.securePort=65536"] {
        assert!(refused(&[values]).contains("securePort"));
    }
}

#[test]
fn on_the_network_of_the_node_a_replica_ends_before_the_next_one_starts() {
    let objects = render(&["webhook.hostNetwork=true"]);
    let spec = &objects.controller()["spec"];
    assert_eq!(
        (&spec["hostNetwork"], &spec["dnsPolicy"]),
        (&json!(true), &json!("ClusterFirstWithHostNet"))
    );
    let update =
        |objects: &crate::Objects| objects.get("Deployment", "")["spec"]["strategy"]["rollingUpdate"].clone();
    assert_eq!(update(&objects), json!({"maxUnavailable": 1, "maxSurge": 0}));
    assert_eq!(update(&render(&[])), json!({"maxUnavailable": 0, "maxSurge": 1}));
}

#[test]
fn the_disruption_budget_has_one_of_its_two_fields() {
    let budget = |values: &[&str]| {
        let objects = render(values);
        let spec = objects.get("PodDisruptionBudget", "")["spec"].clone();
        (spec["minAvailable"].clone(), spec["maxUnavailable"].clone())
    };
    let key = "controller.podDisruptionBudget";
    assert_eq!(budget(&[]), (json!(null), json!(1)));
    assert_eq!(
        budget(&[&format!("{key}.maxUnavailable=50%")]),
        (json!(null), json!("50%"))
    );
    assert_eq!(
        budget(&[&format!("{key}.minAvailable=1")]),
        (json!(1), json!(null))
    );
    assert_eq!(
        budget(&[&format!("{key}.minAvailable=0")]),
        (json!(0), json!(null))
    );
    assert!(!render(&[&format!("{key}.enabled=false")]).has("PodDisruptionBudget"));
    assert!(refused(&[&format!("{key}.minAvailable=all")]).contains("minAvailable"));
}

#[test]
fn the_quota_allows_the_priority_classes_where_the_cluster_restricts_them() {
    let classes = |objects: &crate::Objects| {
        let selector = &objects.get("ResourceQuota", "")["spec"]["scopeSelector"]["matchExpressions"][0];
        assert_eq!(selector["scopeName"], "PriorityClass");
        selector["values"].clone()
    };
    let both = json!(["system-cluster-critical", "system-node-critical"]);
    assert!(!render(&[]).has("ResourceQuota"));
    assert_eq!(classes(&render(&["resourceQuota.enabled=true"])), both);
    let one = render(&["resourceQuota.enabled=true", "agent.priorityClassName="]);
    assert_eq!(classes(&one), json!(["system-cluster-critical"]));
    let none = [
        "resourceQuota.enabled=true",
        "agent.priorityClassName=",
        "controller.priorityClassName=",
    ];
    assert!(!render(&none).has("ResourceQuota"));
}

/// Helm knows the whole version only of a cluster.
#[test]
fn on_gke_the_quota_is_there_by_default() {
    for (enabled, version, expected) in [
        ("\"auto\"", "v1.34.1-gke.100", "true"),
        ("\"auto\"", "v1.34.1", ""),
        ("true", "v1.34.1", "true"),
        ("false", "v1.34.1-gke.100", ""),
    ] {
        let call = format!("include \"stoppablecontainer.quota\" (list {enabled} \"{version}\")");
        assert_eq!(evaluate(&call, &[]), expected, "{enabled} {version}");
    }
}
