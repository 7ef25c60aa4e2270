use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::reconcile::pods::fixtures::{self, container};

/// An instance that an orphan deletion left.
fn instance(change: &Value) -> Arc<StoppableContainerInstance> {
    let mut orphan = json!({ "metadata": {
        "uid": "0123-4567-89ab", "labels": { "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer" },
    } });
    json_patch::merge(&mut orphan, change);
    fixtures::instance(orphan)
}

fn owned_by(uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer", "name": "web",
        "uid": uid, "controller": true,
    }]}})
}

fn word(slot: &Slot) -> &'static str {
    match slot {
        Slot::Free => "free",
        Slot::Ours(_) => "ours",
        Slot::Orphan(_) => "orphan",
        Slot::Lost(_) => "lost",
        Slot::Taken(_) => "taken",
    }
}

const RECORDED: &str = "0123-4567-89ab";

#[rstest]
#[case::nothing(json!({}), None, "free")]
#[case::patch_params(json!({}), Some(instance(&owned_by("container-uid"))), "ours")]
#[case::ours_and_recorded(
    json!({ "status": { "instanceUid": RECORDED } }), Some(instance(&owned_by("container-uid"))), "ours"
)]
#[case::of_an_earlier_object(json!({}), Some(instance(&owned_by("earlier"))), "taken")]
#[case::left_by_an_orphan_deletion(json!({}), Some(instance(&json!({}))), "orphan")]
#[case::cut_loose_by_hand(json!({ "status": { "instanceUid": RECORDED } }), Some(instance(&json!({}))), "orphan")]
#[case::made_by_hand(json!({}), Some(instance(&json!({ "metadata": { "labels": null } }))), "taken")]
#[case::of_another_parent(json!({}), Some(instance(&json!({ "spec": { "stoppableContainerName": "other" } }))), "taken")]
#[case::data_elsewhere(json!({}), Some(instance(&json!({ "spec": { "hostPathPrefix": "/data" } }))), "taken")]
#[case::on_its_way_out(
    json!({}), Some(instance(&json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }))), "taken"
)]
#[case::vanished(json!({ "status": { "instanceUid": RECORDED } }), None, "lost")]
#[case::vanished_and_another_made(
    json!({ "status": { "instanceUid": "gone-gone" } }), Some(instance(&owned_by("container-uid"))), "lost"
)]
#[case::vanished_and_another_left(json!({ "status": { "instanceUid": "gone-gone" } }), Some(instance(&json!({}))), "lost")]
#[case::vanished_while_the_object_goes(
    json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "status": { "instanceUid": RECORDED } }),
    None,
    "free"
)]
fn i1_i17_what_an_instance_is(
    #[case] change: Value,
    #[case] found: Option<Arc<StoppableContainerInstance>>,
    #[case] expected: &str,
) {
    assert_eq!(word(&Slot::of(found, &container(&change))), expected);
}

/// The annotation that the message names gives up this instance's data, and no other's.
#[test]
fn h19_i1_a_loss_is_answered_once() {
    let lost = |annotation: Option<&str>| {
        let change = json!({
            "metadata": { "annotations": { ANNOTATION_RECOVERY: annotation } },
            "status": { "instanceUid": RECORDED },
        });
        Slot::of(None, &container(&change))
    };
    let Slot::Lost(message) = lost(None) else {
        panic!("another instance would begin with an empty root")
    };
    let answer = "reset-0123456789ab";
    assert!(
        message.ends_with(&format!(
            "kubectl annotate --overwrite -n team stoppablecontainer web {ANNOTATION_RECOVERY}={answer}"
        )),
        "{message}"
    );
    assert_eq!(word(&lost(Some(answer))), "free");
    for other in ["accept-0123456789ab", "reset-0123456789ac", "reset"] {
        assert_eq!(word(&lost(Some(other))), "lost", "{other}");
    }
    // The controller that carried it out may have died before it recorded the new one.
    let successor = instance(
        &json!({ "metadata": { "uid": "new", "ownerReferences": owned_by("container-uid")["metadata"]["ownerReferences"] } }),
    );
    let answered = json!({
        "metadata": { "annotations": { ANNOTATION_RECOVERY: answer } }, "status": { "instanceUid": RECORDED },
    });
    assert_eq!(word(&Slot::of(Some(successor), &container(&answered))), "ours");
}

#[test]
fn i17_no_advice_costs_data() {
    for found in [
        owned_by("earlier"),
        json!({ "metadata": { "labels": null } }),
        json!({ "spec": { "hostPathPrefix": "/data" } }),
    ] {
        let Slot::Taken(advice) = Slot::of(Some(instance(&found)), &container(&json!({}))) else {
            panic!("{found}")
        };
        assert!(
            advice.contains("delete this object, which has no data") && !advice.contains("delete it"),
            "{advice}"
        );
    }
}
