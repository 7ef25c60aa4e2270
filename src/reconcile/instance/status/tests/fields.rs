//! The fields beside the conditions, and what of an earlier status stays.

use super::*;
use crate::reconcile::instance::state::Slot;

#[test]
fn i12_a_status_that_says_the_same_is_the_same() {
    let first = with_both(json!({}), up());
    let mut written = (*first.instance).clone();
    written.status = Some(status(&first, now()));
    let second = Observed {
        instance: Arc::new(written),
        ..first
    };
    let later: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        Some(status(&second, later)),
        second.instance.status,
        "nothing to write"
    );
    let stopping = Observed {
        consumer: terminating(second.consumer.pod().unwrap()),
        ..second
    };
    let changed = status(&stopping, later);
    assert_eq!(
        changed.conditions[0].last_transition_time.0, later,
        "Ready became false now"
    );
    assert_eq!(
        changed.conditions[1].last_transition_time.0,
        now(),
        "ProviderReady is what it was"
    );
}

#[test]
fn i12_unknown_conditions_are_removed() {
    let stale = json!({ "status": { "conditions": [{
        "type": "Ancient", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": NOW,
    }] } });
    let kinds: Vec<_> = status(&with_provider(stale), now())
        .conditions
        .into_iter()
        .map(|condition| condition.type_)
        .collect();
    assert_eq!(
        kinds,
        [
            "Ready",
            "ProviderReady",
            "FilesystemReady",
            "ConsumerReady",
            "ConsumerScheduled",
            "Stopped"
        ]
    );
}

#[test]
fn node_is_recorded_once_and_uids_follow_the_pods() {
    let fresh = status(&pending(json!({ "phase": "Pending" })), now());
    assert_eq!(fresh.node_name.as_deref(), Some("n1"));
    assert_eq!(fresh.provider_pod_uid.as_deref(), Some("provider-uid"));
    let o = with_both(json!({}), up());
    let elsewhere = changed(o.provider.pod().unwrap(), |p| {
        p.spec.as_mut().unwrap().node_name = Some("n2".to_owned());
    });
    let status = status(
        &Observed {
            provider: elsewhere,
            consumer: Slot::Free,
            ..o
        },
        now(),
    );
    assert_eq!(status.node_name.as_deref(), Some("n1"), "the data does not move");
    assert_eq!(status.consumer_pod_uid, None);
}

#[test]
fn i1_the_agents_part_is_handed_back_untouched() {
    let o = with_both(json!({}), up());
    assert_eq!(status(&o, now()).filesystem, o.status().filesystem);
}
