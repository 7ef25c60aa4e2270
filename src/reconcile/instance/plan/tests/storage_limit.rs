//! The limit of the main container's ephemeral storage.

use super::*;

fn too_large(limit: &str) -> serde_json::Value {
    json!({
        "spec": { "template": { "spec": { "containers": [{
            "name": "main", "image": "nginx:1.25", "resources": { "limits": { "ephemeral-storage": limit } },
        }]}}},
        "status": { "filesystem": { "usage": { "bytes": 2_000_000, "inodes": 10 } } },
    })
}

/// The kubelet does not see what is written below the kept root, so the limit is held here: stopped
/// once, and not started again before something was done about it.
#[test]
fn ephemeral_storage_over_the_limit_stops_the_consumer_and_keeps_it_from_starting() {
    assert_eq!(
        words(&with_both(too_large("1M"), up())),
        ["delete consumer: Evicted"]
    );
    assert_eq!(words(&with_both(too_large("2M"), up())), [""; 0]);
    assert_eq!(words(&with_provider(too_large("1M"))), [""; 0]);
    assert_eq!(words(&with_provider(too_large("2M"))), ["create consumer"]);
}

/// What runs has the limit that it was started with, as everything else of its template.
#[test]
fn ephemeral_storage_of_what_runs_is_held_to_its_own_limit() {
    let lowered = with_provider(too_large("1M"));
    let consumer = pod(&with_provider(too_large("1G")).instance, Role::Consumer, up());
    let lowered = Observed {
        consumer: Slot::Ours(consumer),
        ..lowered
    };
    assert_eq!(words(&lowered), [""; 0]);
}

/// A LimitRange puts its limit into the pod, where the template says nothing.
#[test]
fn ephemeral_storage_is_held_to_a_limit_that_others_gave() {
    let given = |limit: &str| {
        json!({ "status": {
            "storageLimit": limit, "filesystem": { "usage": { "bytes": 2_000_000, "inodes": 10 } },
        }})
    };
    assert_eq!(words(&with_provider(given("1M"))), [""; 0]);
    assert_eq!(words(&with_provider(given("2M"))), ["create consumer"]);
    let mut own = too_large("3M");
    own["status"]["storageLimit"] = json!("1M");
    assert_eq!(
        words(&with_provider(own)),
        ["create consumer"],
        "what the template says is how the user raises it"
    );
}
