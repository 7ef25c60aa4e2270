//! Restarts that the user asks for.

use stoppablecontainer_api::names::ANNOTATION_RESTARTED_AT;

use super::*;

/// A consumer that was created with the request `before` runs in this state, and the template has
/// the request `now`.
fn asked(before: Option<&str>, now: Option<&str>, status: serde_json::Value) -> Observed {
    let request =
        |at: Option<&str>| json!({ "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: at } } });
    let observed = with_both(json!({ "spec": { "template": request(before) } }), status);
    let mut instance = (*observed.instance).clone();
    edit(&mut instance, |template| {
        json_patch::merge(template, &request(now));
    });
    Observed {
        instance: Arc::new(instance),
        ..observed
    }
}

#[test]
fn a_new_request_stops_the_consumer_once() {
    for (before, now) in [(None, "1"), (Some("1"), "2")] {
        let running = asked(before, Some(now), up());
        assert_eq!(words(&running), ["delete consumer"]);
        let stopping = Observed {
            consumer: terminating(running.consumer.pod().unwrap()),
            ..running.clone()
        };
        assert!(words(&stopping).is_empty());
        let gone = Observed {
            consumer: Slot::Free,
            ..running
        };
        assert_eq!(words(&gone), ["create consumer"]);
    }
    let unready = json!({ "phase": "Pending" });
    assert_eq!(
        words(&asked(None, Some("1"), unready)),
        ["delete consumer"],
        "as after every edit"
    );
}

#[test]
fn a_request_that_was_answered_or_removed_stops_nothing() {
    for (before, now) in [(Some("1"), Some("1")), (Some("1"), None), (None, None)] {
        assert!(words(&asked(before, now, up())).is_empty(), "{before:?} {now:?}");
    }
    let unready = json!({ "phase": "Pending" });
    assert!(
        words(&asked(Some("1"), None, unready)).is_empty(),
        "it is not replaced either"
    );
}

#[test]
fn i14_a_request_starts_nothing_that_is_stopped() {
    let mut stopped = asked(None, Some("1"), up());
    Arc::make_mut(&mut stopped.instance).spec.running = false;
    assert_eq!(words(&stopped), ["delete consumer"]);
    let stopped = Observed {
        consumer: Slot::Free,
        ..stopped
    };
    assert!(words(&stopped).is_empty());
}

/// Another webhook removes annotations: a restart would be followed by another one.
#[test]
fn i18_a_consumer_that_does_not_show_its_request_is_not_restarted_for_ever() {
    let running = asked(None, Some("1"), up());
    let bare = Observed {
        consumer: changed(running.consumer.pod().unwrap(), |pod| {
            pod.metadata.annotations = None;
        }),
        ..running
    };
    assert!(words(&bare).is_empty());
}
