use serde_json::json;

use super::*;
use crate::view::fixtures::{object, running, stopped, value};

fn text(object: &StoppableContainer, facts: &Facts) -> String {
    let now = "2026-01-01T00:03:20Z".parse().unwrap();
    anstream::adapter::strip_str(&status(object, facts, now)).to_string()
}

#[test]
fn a_running_container_has_its_steps_and_events() {
    let pod = |name: &str, container: &str, created: &str, started: &str, ready: &str| {
        serde_json::from_value(json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "status": {
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": ready }],
                "containerStatuses": [{
                    "name": container, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": { "running": { "startedAt": started } },
                }],
            },
        }))
        .unwrap()
    };
    let event = json!({
        "metadata": { "name": "e" }, "eventTime": null, "type": "Warning", "reason": "BackOff",
        "note": "Back-off pulling image", "deprecatedCount": 3,
        "deprecatedLastTimestamp": "2026-01-01T00:03:00Z",
        "regarding": { "kind": "Pod", "name": "web-provider" },
    });
    let facts = Facts {
        pod: Some(pod(
            "web",
            "main",
            "2026-01-01T00:00:05Z",
            "2026-01-01T00:00:07Z",
            "2026-01-01T00:00:08Z",
        )),
        provider: Some(pod(
            "web-provider",
            "provider",
            "2026-01-01T00:00:01Z",
            "2026-01-01T00:00:04Z",
            "2026-01-01T00:00:04Z",
        )),
        events: vec![serde_json::from_value(event).unwrap()],
        ..Facts::default()
    };
    assert_eq!(
        text(&running(), &facts),
        "\
team/web
  State:    Running on node1, ready
  Image:    nginx:1.25
  Files:    1.5 KiB in 12 entries
  Age:      3m20s
  Last start:
    UTC        TIME   STEP
    00:00:00   +0s    object created
    00:00:01   +1s    provider created
    00:00:04   +3s    image pulled, provider started
    00:00:05   +1s    pod created
    00:00:07   +2s    command started
    00:00:08   +1s    ready
  Events:
    AGE   TYPE      OBJECT             REASON    MESSAGE
    20s   Warning   Pod/web-provider   BackOff   Back-off pulling image (x3)"
    );
}

#[test]
fn a_stopped_container_says_how_to_go_on() {
    assert_eq!(
        text(&stopped(), &Facts::default()),
        "\
team/web
  State:    Stopped, files kept on node1
  Next:     start it: kubectl stopc start web
  Image:    nginx:1.25
  Files:    1.5 KiB in 12 entries
  Age:      3m20s"
    );
}

#[test]
fn a_failed_container_has_its_cause_and_the_way_out() {
    let failed = object(
        true,
        "Failed",
        &[("Ready", "False", "Evicted", "used 2Gi, the limit is 1Gi")],
    );
    let text = text(&failed, &Facts::default());
    assert!(
        text.contains("State:    Failed on node1 (requested: running)\n  Cause:    Evicted: used 2Gi"),
        "{text}"
    );
    assert!(
        text.contains("Next:     raise the limit: kubectl stopc resize web --size SIZE"),
        "{text}"
    );
}

#[test]
fn usage_has_its_share_of_the_limit() {
    let mut value = value(false, "Stopped", &[]);
    value["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "ephemeral-storage": "3Ki" } });
    let object: StoppableContainer = serde_json::from_value(value).unwrap();
    assert_eq!(files(&object), "1.5 KiB in 12 entries, 50% of the limit 3Ki");
}

#[test]
fn a_change_that_the_controller_has_not_seen_is_no_success() {
    let mut object = running();
    object.metadata.generation = Some(3);
    assert!(text(&object, &Facts::default()).contains("the controller has not seen the last change yet"));
}
