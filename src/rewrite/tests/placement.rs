//! nodeName or affinity, and when which.

use super::*;

fn on_node(spec: &PodSpec) -> bool {
    spec.node_name.as_deref() == Some("node-1") && spec.affinity.is_none()
}

fn requirement() -> Value {
    json!({ "key": "metadata.name", "operator": "In", "values": ["node-1"] })
}

fn by_scheduler(spec: &PodSpec) -> bool {
    let affinity = json!({
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": [requirement()] }] },
        },
    });
    spec.node_name.is_none() && serde_json::to_value(&spec.affinity).unwrap() == affinity
}

fn spec_with(fields: &Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "main", "image": "i" }] });
    merge(&mut spec, fields);
    spec
}

#[rstest::rstest]
#[case::plain(json!({}))]
#[case::of_the_template(json!({ "nodeName": "elsewhere" }))]
#[case::bound_claim(json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "bound" } }] }))]
#[case::our_gate(json!({ "schedulingGates": [{ "name": "stoppablecontainer.xtlsoft.top/rewrite" }] }))]
fn by_name(#[case] fields: Value) {
    assert!(on_node(&Case::of_spec(&spec_with(&fields)).pod_spec()));
}

#[rstest::rstest]
#[case::gated(json!({ "schedulingGates": [{ "name": "kueue.x-k8s.io/admission" }] }))]
#[case::gated_by_us_and_another(json!({ "schedulingGates": [
    { "name": "stoppablecontainer.xtlsoft.top/rewrite" }, { "name": "kueue.x-k8s.io/admission" },
] }))]
#[case::devices(json!({ "resourceClaims": [{ "name": "gpu", "resourceClaimName": "gpu" }] }))]
#[case::ephemeral_volume(json!({ "volumes": [{ "name": "d", "ephemeral": {} }] }))]
#[case::unbound_claim(json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "unbound" } }] }))]
fn h23_by_the_scheduler_where_only_it_can(#[case] fields: Value) {
    let mut case = Case::of_spec(&spec_with(&fields));
    case.claims.insert("unbound".to_owned());
    assert!(by_scheduler(&case.pod_spec()));
}

/// The controller knows that the last consumer ended; the webhook's copy of the instance may not
/// say so yet, or any more when it is called again.
#[test]
fn h23_i4_by_the_scheduler_where_the_controller_asks_for_it() {
    let mut case = Case::of_spec(&spec_with(&json!({})));
    let asked = json!({ "stoppablecontainer.xtlsoft.top/placement": "Scheduler" });
    case.pod["metadata"]["annotations"] = asked;
    assert!(by_scheduler(&case.pod_spec()));
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    assert!(by_scheduler(&case.pod_spec()));
}

#[rstest::rstest]
#[case::free(json!({}), json!([]), true)]
#[case::cordoned(json!({ "unschedulable": true }), json!([]), false)]
#[case::cordon_tolerated(
    json!({ "unschedulable": true }), json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" }]), true
)]
#[case::tainted(json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] }), json!([]), false)]
#[case::evicting(json!({ "taints": [{ "key": "a", "effect": "NoExecute" }] }), json!([]), false)]
#[case::only_preferred(json!({ "taints": [{ "key": "a", "effect": "PreferNoSchedule" }] }), json!([]), true)]
#[case::tolerated(
    json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] }), json!([{ "key": "a", "value": "b" }]), true
)]
#[case::everything_tolerated(
    json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] }), json!([{ "operator": "Exists" }]), true
)]
#[case::other_value(
    json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] }), json!([{ "key": "a", "value": "c" }]), false
)]
#[case::other_effect(
    json!({ "taints": [{ "key": "a", "effect": "NoSchedule" }] }),
    json!([{ "key": "a", "operator": "Exists", "effect": "NoExecute" }]), false
)]
fn h23_cordons_and_taints_count_as_for_a_plain_pod(
    #[case] node: Value,
    #[case] tolerations: Value,
    #[case] by_name: bool,
) {
    let spec = Case::of_spec(&spec_with(&json!({ "tolerations": tolerations })))
        .node(&node)
        .pod_spec();
    assert!(if by_name {
        on_node(&spec)
    } else {
        by_scheduler(&spec)
    });
}

#[test]
fn h23_after_the_kubelet_refused_a_pod_the_next_one_queues() {
    let mut case = Case::new(&json!({}));
    case.instance["status"]["placement"] = json!("Scheduler");
    assert!(by_scheduler(&case.pod_spec()));
}

#[test]
fn h23_a_node_that_is_gone_leaves_the_pod_pending() {
    let mut case = Case::new(&json!({}));
    case.node = Value::Null;
    assert!(by_scheduler(&case.pod_spec()));
}

#[test]
fn every_alternative_of_an_affinity_gets_the_node_and_an_empty_one_stays_empty() {
    let term = json!({ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] });
    let selector = |terms: Value| json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
    let fields =
        json!({ "schedulingGates": [{ "name": "g" }], "affinity": selector(json!([term, {}, term])) });
    let affinity = Case::of_spec(&spec_with(&fields)).pod_spec().affinity;
    let mut narrowed = term.clone();
    narrowed["matchFields"] = json!([requirement()]);
    assert_eq!(
        serde_json::to_value(affinity).unwrap(),
        selector(json!([narrowed, {}, narrowed]))
    );
}

#[test]
fn i4_a_gate_that_came_after_us_takes_node_name_away_again() {
    let mut case = Case::new(&json!({}));
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    assert_eq!(case.pod["spec"]["nodeName"], "node-1");
    case.pod["spec"]["schedulingGates"] = json!([{ "name": "kueue.x-k8s.io/admission" }]);
    assert!(by_scheduler(&case.pod_spec()));
}

#[test]
fn the_final_validation_takes_either_placement() {
    let case = Case::new(&json!({})).node(&json!({ "unschedulable": true }));
    let pod: Pod = serde_json::from_value(case.pod.clone()).unwrap();
    for placement in [Placement::Node, Placement::Scheduler] {
        let rewritten = case.run_on(&pod, Some(placement)).unwrap().pod;
        let found = super::super::placement_of(&rewritten, "node-1");
        assert_eq!(found, Some(placement));
        assert_eq!(case.run_on(&rewritten, found).unwrap().pod, rewritten);
    }
}
