//! The consumer takes the place of its placeholder.

use stoppablecontainer_api::names::{GATE, GATE_PLACEHOLDER};

use super::*;

/// A consumer with these gates, and its placeholder.
fn waiting(gates: &[&str]) -> Observed {
    let mut observed = with_both(json!({}), json!({ "phase": "Pending" }));
    let gates: Vec<_> = gates.iter().map(|name| json!({ "name": name })).collect();
    observed.consumer = changed(observed.consumer.pod().unwrap(), |pod| {
        pod.spec.as_mut().unwrap().scheduling_gates = serde_json::from_value(json!(gates)).unwrap();
    });
    let placeholder = pod(
        &observed.instance,
        Role::Placeholder,
        json!({ "phase": "Pending" }),
    );
    Observed {
        placeholder: Slot::Ours(placeholder),
        ..observed
    }
}

#[test]
fn the_consumer_is_created_while_the_placeholder_reserves_the_room() {
    let observed = Observed {
        consumer: Slot::Free,
        ..waiting(&[])
    };
    let actions = plan(&observed, &OptOuts::default());
    let [Action::Create(Role::Consumer, pod)] = &actions[..] else {
        panic!("{actions:?}")
    };
    let pod = serde_json::to_value(pod).unwrap();
    assert_eq!(
        pod["spec"]["schedulingGates"],
        json!([{ "name": GATE }, { "name": GATE_PLACEHOLDER }])
    );
}

#[test]
fn the_node_is_nominated_before_the_placeholder_goes() {
    assert_eq!(
        words(&waiting(&[GATE_PLACEHOLDER])),
        ["nominate n1", "delete placeholder", "admit consumer"]
    );
}

/// A crash between two steps.
#[test]
fn i14_a_change_over_that_was_interrupted_goes_on() {
    let mut nominated = waiting(&[GATE_PLACEHOLDER]);
    nominated.consumer = changed(nominated.consumer.pod().unwrap(), |pod| {
        pod.status.get_or_insert_default().nominated_node_name = Some("n1".to_owned());
    });
    assert_eq!(words(&nominated), ["delete placeholder", "admit consumer"]);
    let gone = Observed {
        placeholder: Slot::Free,
        ..nominated
    };
    assert_eq!(words(&gone), ["admit consumer"]);
}

/// Story: the process ended between the creation of the consumer and the record. The next process
/// deleted the placeholder and that consumer, and another pod took the room of the next one.
#[test]
fn f13_the_room_is_kept_while_an_unrecorded_consumer_is_replaced() {
    let waiting = waiting(&[GATE_PLACEHOLDER]);
    let consumer = Slot::Unrecorded(Arc::clone(waiting.consumer.pod().unwrap()));
    let observed = Observed { consumer, ..waiting };
    assert_eq!(words(&observed), ["discard consumer"]);
}

/// It may wait for hours, and would keep others away.
#[test]
fn a_consumer_that_waits_for_a_queue_reserves_nothing() {
    assert_eq!(
        words(&waiting(&["kueue.x-k8s.io/admission", GATE_PLACEHOLDER])),
        ["delete placeholder", "admit consumer"]
    );
}

#[test]
fn i2_a_consumer_that_leaves_is_not_admitted() {
    let waiting = waiting(&[GATE_PLACEHOLDER]);
    let leaving = terminating(waiting.consumer.pod().unwrap());
    let observed = Observed {
        consumer: leaving,
        ..waiting
    };
    assert_eq!(words(&observed), ["delete placeholder"]);
}

/// Story: the first node was removed, and the next process began with a list of instances from
/// before the node was chosen. It made another placeholder, which the scheduler bound to another
/// node, where it reserved the consumer's room for ever.
#[test]
fn f12_a_placeholder_of_an_old_list_goes() {
    let waiting = waiting(&[GATE_PLACEHOLDER]);
    for bound in [Some("n2"), None] {
        let placeholder = changed(waiting.placeholder.pod().unwrap(), |pod| {
            pod.spec.get_or_insert_default().node_name = bound.map(str::to_owned);
        });
        let observed = Observed {
            placeholder,
            consumer: Slot::Free,
            provider: Slot::Free,
            node_gone: true,
            ..waiting.clone()
        };
        assert_eq!(words(&observed), ["delete placeholder"], "{bound:?}");
    }
}
