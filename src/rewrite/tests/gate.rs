//! The gate that only the rewrite takes off, and how the controller judges the pod that was stored.

use stoppablecontainer_api::names::GATE;

use super::*;
use crate::rewrite::is_rewritten;

/// A consumer as the controller creates it, with these gates of others.
fn gated(others: &[&str]) -> Case {
    let mut case = Case::new(&json!({}));
    let gates: Vec<Value> = others
        .iter()
        .chain([&GATE])
        .map(|name| json!({ "name": name }))
        .collect();
    case.pod["spec"]["schedulingGates"] = Value::from(gates);
    case
}

#[rstest::rstest]
#[case::alone(&[])]
#[case::next_to_another(&["kueue.x-k8s.io/admission"])]
fn i3_i4_the_rewrite_takes_our_gate_off_and_leaves_those_of_others(#[case] others: &[&str]) {
    let spec = gated(others).pod_spec();
    let left: Vec<_> = spec
        .scheduling_gates
        .iter()
        .flatten()
        .map(|gate| gate.name.as_str())
        .collect();
    assert_eq!(left, others);
    assert_eq!(
        spec.scheduling_gates.is_none(),
        others.is_empty(),
        "an empty list counts as no list"
    );
}

#[test]
fn i3_what_the_rewrite_made_is_told_from_what_it_did_not_see() {
    let rewritten = gated(&[]).run().unwrap().pod;
    assert!(is_rewritten(&rewritten));
    let unseen: Pod = serde_json::from_value(gated(&[]).pod).unwrap();
    assert!(!is_rewritten(&unseen));
    let changes: [fn(&mut Pod); 6] = [
        |pod| {
            let spec = pod.spec.as_mut().unwrap();
            spec.scheduling_gates = serde_json::from_value(json!([{ "name": GATE }])).unwrap();
        },
        |pod| pod.spec.as_mut().unwrap().volumes = None,
        |pod| pod.spec.as_mut().unwrap().containers[0].volume_mounts = None,
        |pod| pod.spec.as_mut().unwrap().containers[0].command = Some(vec!["/bin/app".to_owned()]),
        |pod| pod.spec.as_mut().unwrap().containers[0].name = "other".to_owned(),
        |pod| pod.metadata.annotations = None,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = rewritten.clone();
        change(&mut changed);
        assert!(!is_rewritten(&changed), "change {at}");
    }
}
