//! Which pods are the controller's.

use super::*;

#[test]
fn a_pod_without_our_labels_gets_them_back() {
    let both = with_both(json!({}), up());
    let stripped = changed(both.consumer.pod().unwrap(), |pod| pod.metadata.labels = None);
    assert_eq!(
        words(&Observed {
            consumer: stripped,
            ..both
        }),
        ["relabel consumer"]
    );
}

/// Every user who may change a pod can put an owner reference in; only the API server gives UIDs.
#[test]
fn i16_i8_a_pod_is_ours_by_the_uid_that_the_controller_wrote_down() {
    let fresh = instance(json!({}));
    let provider = pod(&fresh, Role::Provider, up());
    let of = |instance: &StoppableContainerInstance, role, created| {
        Slot::of(Arc::clone(&provider), instance, role, created)
    };
    assert!(matches!(of(&fresh, Role::Provider, None), Slot::Unrecorded(_)));
    assert!(matches!(
        of(&fresh, Role::Provider, Some("provider-uid")),
        Slot::Ours(_)
    ));
    assert!(matches!(
        of(&fresh, Role::Provider, Some("another")),
        Slot::Unrecorded(_)
    ));
    let recorded = instance(json!({ "status": { "providerPodUid": "provider-uid" } }));
    assert!(matches!(of(&recorded, Role::Provider, None), Slot::Ours(_)));
    assert!(
        matches!(of(&recorded, Role::Consumer, None), Slot::Unrecorded(_)),
        "each role has a record of its own"
    );
    let other = instance(json!({ "status": { "providerPodUid": "another" } }));
    assert!(matches!(of(&other, Role::Provider, None), Slot::Unrecorded(_)));

    let successor = instance(json!({ "metadata": { "uid": "another" } }));
    let Slot::Taken(whose) = of(&successor, Role::Provider, None) else {
        panic!("a pod of an earlier object of the name")
    };
    assert!(
        whose.contains("web-provider") && whose.contains("instance-uid"),
        "{whose}"
    );
    assert!(
        !whose.contains("delete this object"),
        "I17: that would cost the files: {whose}"
    );
}

/// What the controller created stays its own, whatever becomes of the reference: it is stopped with
/// the rest.
#[test]
fn i16_i2_a_recorded_pod_whose_owner_reference_was_cut_is_still_ours() {
    let recorded = instance(json!({ "status": { "consumerPodUid": "consumer-uid" } }));
    let mut cut = (*pod(&recorded, Role::Consumer, up())).clone();
    cut.metadata.owner_references = None;
    assert!(matches!(
        Slot::of(Arc::new(cut), &recorded, Role::Consumer, None),
        Slot::Ours(_)
    ));
}
