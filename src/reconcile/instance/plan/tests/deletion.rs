//! The order of a deletion, and what it leaves alone.

use super::*;

#[rstest]
#[case::asked(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), &["delete consumer"])]
#[case::without_our_finalizer(
    json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["other"] } }),
    &[]
)]
fn i11_deletion_begins_with_the_consumer(#[case] change: serde_json::Value, #[case] expected: &[&str]) {
    assert_eq!(words(&with_both(change, up())), expected);
}

#[test]
fn i11_deletion_goes_in_order_and_waits_for_each_step() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let both = with_both(deleting.clone(), up());
    let ending = Observed {
        consumer: terminating(both.consumer.pod().unwrap()),
        ..both.clone()
    };
    assert!(
        words(&ending).is_empty(),
        "the provider stays while the consumer ends"
    );
    let provider_only = with_provider(deleting.clone());
    assert_eq!(words(&provider_only), ["delete provider"]);
    let ending = Observed {
        provider: terminating(provider_only.provider.pod().unwrap()),
        ..provider_only.clone()
    };
    assert!(words(&ending).is_empty());
    let without_pods = Observed {
        provider: Slot::Free,
        ..provider_only
    };
    assert!(
        words(&without_pods).is_empty(),
        "the agent has not removed the data yet"
    );
    let mut removed = json!({ "status": { "filesystem": { "state": "Removed" } } });
    json_patch::merge(&mut removed, &deleting);
    assert_eq!(
        words(&Observed {
            provider: Slot::Free,
            ..with_provider(removed)
        }),
        ["finalizer-"]
    );
    assert_eq!(
        words(&Observed {
            node_gone: true,
            ..without_pods
        }),
        ["finalizer-"],
        "the data went with its node"
    );
}

#[test]
fn i11_an_object_that_never_had_a_node_needs_no_agent_to_go() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    assert_eq!(words(&observed(instance(deleting.clone()))), ["finalizer-"]);
    let mut scheduled = json!({ "status": { "nodeName": "n1" } });
    json_patch::merge(&mut scheduled, &deleting);
    assert!(
        words(&observed(instance(scheduled))).is_empty(),
        "its agent may have begun"
    );
}

#[test]
fn deletion_leaves_pods_of_others_alone() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let taken = Observed {
        provider: Slot::Taken("x".to_owned()),
        consumer: Slot::Taken("x".to_owned()),
        ..observed(instance(deleting))
    };
    assert_eq!(words(&taken), ["finalizer-"]);
}

#[test]
fn i11_pods_without_a_record_go_with_the_instance() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let i = instance(deleting);
    let unrecorded = pod(&i, Role::Provider, up());
    let Slot::Ours(gone) = terminating(&unrecorded) else {
        panic!("a fixture")
    };
    let with = |provider| Observed {
        provider,
        ..observed(Arc::clone(&i))
    };
    assert_eq!(words(&with(Slot::Unrecorded(unrecorded))), ["discard provider"]);
    assert!(
        words(&with(Slot::Unrecorded(gone))).is_empty(),
        "it is waited for"
    );
}
