//! Runs, ends and last words, as the kubelet writes them.

use serde_json::{Value, json};

use super::*;
use crate::reconcile::pods::blocking_cause;

const MISSING: &str = "stoppablecontainer: serve: executable file not found in $PATH";

fn pod(status: &Value) -> Pod {
    let mut container =
        json!({ "name": "main", "ready": false, "restartCount": 1, "image": "", "imageID": "" });
    json_patch::merge(&mut container, status);
    serde_json::from_value(json!({ "status": { "phase": "Running", "containerStatuses": [container] } }))
        .unwrap()
}

fn terminated(exit_code: i32, message: &str) -> Value {
    json!({ "terminated": { "exitCode": exit_code, "reason": "Error", "message": message } })
}

fn told(status: &Value) -> (String, String) {
    let Cause { reason, message } = blocking_cause(&pod(status)).unwrap();
    (reason, message)
}

#[test]
fn i12_a_crash_loop_names_the_last_exit_code_and_reason() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    let (reason, message) = told(&json!({ "state": waiting, "lastState": terminated(3, "no config\n") }));
    assert_eq!(reason, "CrashLoopBackOff");
    assert_eq!(
        message,
        "container main: ended with exit code 3 (Error): no config; it is started again with growing pauses"
    );
    let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    let (reason, message) = told(&json!({ "state": waiting, "lastState": killed }));
    assert_eq!(reason, "CrashLoopBackOff");
    assert!(message.contains("exit code 137 (OOMKilled)"), "{message}");
    // Nothing is known of the end.
    assert_eq!(
        told(&json!({ "state": waiting })).1,
        "container main: it is started again with growing pauses"
    );
}

#[test]
fn i12_an_end_is_reported_before_the_kubelet_waits() {
    let (reason, message) = told(&json!({ "state": terminated(3, "") }));
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("Error", "container main: ended with exit code 3 (Error)")
    );
    let done = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
    assert_eq!(
        told(&json!({ "state": done })).0,
        "Completed",
        "it is to run for ever"
    );
}

/// As a plain pod's status names the file, with a reason of its own.
#[test]
fn i12_a_program_that_cannot_be_executed_is_named() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    for state in [
        json!({ "state": terminated(127, MISSING) }),
        json!({ "state": waiting, "lastState": terminated(127, MISSING) }),
    ] {
        let (reason, message) = told(&state);
        assert_eq!(reason, "ContainerCannotRun");
        let expected = "container main: serve: executable file not found in $PATH (exit code 127)";
        assert!(message.starts_with(expected), "{message}");
    }
    // A shell that did not find something has run.
    assert_eq!(
        told(&json!({ "state": terminated(127, "sh: 1: serve: not found") })).0,
        "Error"
    );
    assert_eq!(told(&json!({ "state": terminated(1, MISSING) })).0, "Error");
}

#[test]
fn i18_what_a_program_says_is_cut() {
    let (_, message) = told(&json!({ "state": terminated(1, &"ü".repeat(4000)) }));
    assert!(message.len() < 1200, "{}", message.len());
    let (_, message) = told(&json!({ "state": terminated(127, &format!("{MISSING}{}", "ü".repeat(4000))) }));
    assert!(message.len() < 1200, "{}", message.len());
}

#[test]
fn only_a_long_run_is_health() {
    let ran = |from: &str, to: &str| json!({ "terminated": { "exitCode": 1, "startedAt": from, "finishedAt": to } });
    let (short, long) = (
        ran("2026-01-01T00:00:00Z", "2026-01-01T00:09:59Z"),
        ran("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
    );
    assert!(!was_healthy(&pod(&json!({ "state": short })), "main"));
    assert!(was_healthy(&pod(&json!({ "state": long })), "main"));
    assert!(was_healthy(
        &pod(&json!({ "state": short, "lastState": long })),
        "main"
    ));
    assert!(!was_healthy(&pod(&json!({ "state": long })), "side"));
    assert!(!was_healthy(&pod(&json!({ "state": terminated(1, "") })), "main"));
    assert!(!was_healthy(&Pod::default(), "main"));
}

#[test]
fn only_a_restart_after_a_program_that_could_not_be_executed_is_doubtful() {
    let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    let of = |last: Value| pod(&json!({ "containerID": "c1", "state": running, "lastState": last }));
    let missing = of(terminated(127, MISSING));
    let (id, why) = unconfirmed(&missing, "main").unwrap();
    assert_eq!((id, why.reason.as_str()), ("c1", "ContainerCannotRun"));
    assert!(unconfirmed(&of(terminated(3, "")), "main").is_none());
    assert!(unconfirmed(&pod(&json!({ "containerID": "c1", "state": running })), "main").is_none());
    assert!(unconfirmed(&pod(&json!({ "state": terminated(127, MISSING) })), "main").is_none());
}
