//! Pods of an instance whose Node object does not exist any more.

use super::*;

fn on_a_lost_node(consumer: Slot) -> Observed {
    Observed {
        consumer,
        node_gone: true,
        ..with_provider(json!({}))
    }
}

/// Story: the pods of a node that is gone vanish one after the other. In between the controller
/// created the next consumer, and later the user moved the disk to another node. The consumer was
/// pinned to the old node, and waited for it for ever.
#[test]
fn h23_a_consumer_does_not_wait_for_a_node_that_is_gone() {
    assert_eq!(words(&on_a_lost_node(Slot::Free)), [""; 0]);
    let observed = on_a_lost_node(Slot::Free);
    let unbound = pod(&observed.instance, Role::Consumer, json!({ "phase": "Pending" }));
    let unbound = changed(&unbound, |pod| pod.spec.get_or_insert_default().node_name = None);
    assert_eq!(words(&on_a_lost_node(unbound.clone())), ["delete consumer"]);
    assert_eq!(
        words(&Observed {
            node_gone: false,
            ..on_a_lost_node(unbound)
        }),
        [""; 0]
    );
}

/// The same with the provider that was created a moment before.
#[test]
fn h23_a_provider_does_not_wait_for_a_node_that_is_gone() {
    let observed = on_a_lost_node(Slot::Free);
    let unbound = changed(observed.provider.pod().unwrap(), |pod| {
        pod.spec.get_or_insert_default().node_name = None;
        pod.status = None;
    });
    let observed = Observed {
        provider: unbound,
        ..observed
    };
    assert_eq!(words(&observed), ["delete provider"]);
}

/// What runs there may still run: only its user decides about it.
#[test]
fn f28_pods_that_are_bound_to_a_node_that_is_gone_are_kept() {
    let bound = with_both(json!({}), up());
    assert_eq!(
        words(&Observed {
            node_gone: true,
            ..bound
        }),
        [""; 0]
    );
}
