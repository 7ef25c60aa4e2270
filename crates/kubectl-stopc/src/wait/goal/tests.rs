use serde_json::json;

use super::*;
use crate::view::fixtures::{object, running, stopped};

fn target() -> Target {
    Target {
        uid: Some("u1".to_owned()),
        old_pod: Some("old".to_owned()),
        ..Target::named("web", "team")
    }
}

fn judge(goal: &Goal, object: Option<StoppableContainer>) -> Verdict {
    verdict(
        goal,
        &target(),
        &Seen {
            object,
            ..Seen::default()
        },
    )
}

fn pending(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Pending { step, cause } => (step, cause.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_state_counts_only_if_it_describes_the_newest_spec() {
    assert_eq!(judge(&Goal::Running, Some(running())), Verdict::Met);
    let mut old = running();
    old.metadata.generation = Some(3);
    let (step, cause) = pending(judge(&Goal::Running, Some(old)));
    assert_eq!(step, "waiting for the controller");
    assert!(cause.contains("doctor"), "{cause}");
}

#[test]
fn ready_is_more_than_running() {
    let unready = object(
        true,
        "Running",
        &[
            ("Ready", "False", "Starting", "pod web runs and is not ready yet"),
            ("ProviderReady", "True", "AsRequested", ""),
            ("FilesystemReady", "True", "AsRequested", ""),
        ],
    );
    assert_eq!(judge(&Goal::Running, Some(unready.clone())), Verdict::Met);
    let (step, cause) = pending(judge(&Goal::Ready, Some(unready)));
    assert_eq!(step, "waiting for the pod to be ready");
    assert_eq!(cause, "Starting: pod web runs and is not ready yet");
    assert_eq!(judge(&Goal::Ready, Some(running())), Verdict::Met);
}

/// A start after the image was edited: the failure was reported for the provider before.
#[test]
fn a_failure_counts_when_the_new_provider_has_decided() {
    let starting = object(
        true,
        "Failed",
        &[
            ("Ready", "False", "Starting", "pod web-provider is starting"),
            (
                "ProviderReady",
                "False",
                "Starting",
                "pod web-provider is starting",
            ),
            (
                "FilesystemReady",
                "False",
                "ImageChanged",
                "nginx:1.26 is another image",
            ),
        ],
    );
    pending(judge(&Goal::Running, Some(starting)));
}

#[test]
fn a_failed_start_ends_with_the_cause_and_the_way_out() {
    let failed = object(
        true,
        "Failed",
        &[("Ready", "False", "ImageChanged", "nginx:1.26 is another image")],
    );
    let Verdict::Failed(cause) = judge(&Goal::Running, Some(failed.clone())) else {
        panic!("not failed")
    };
    assert!(
        cause.starts_with("ImageChanged: nginx:1.26 is another image; "),
        "{cause}"
    );
    assert!(cause.contains("kubectl stopc accept web"), "{cause}");
    // Nothing is wrong with a stop of it, and a recovery begins there.
    pending(judge(&Goal::Stopped, Some(failed.clone())));
    pending(judge(
        &Goal::Recovered(Recovery::Answered("0123abcd".to_owned())),
        Some(failed),
    ));
}

#[test]
fn steps_follow_the_conditions() {
    let at = |conditions: &[(&str, &str, &str, &str)]| {
        pending(judge(&Goal::Running, Some(object(true, "Pending", conditions)))).0
    };
    let provider = ("ProviderReady", "True", "AsRequested", "");
    let filesystem = ("FilesystemReady", "True", "AsRequested", "");
    assert_eq!(at(&[]), "choosing the node and pulling the image");
    assert_eq!(at(&[provider]), "preparing the filesystem");
    assert_eq!(at(&[provider, filesystem]), "starting the pod");
    let stopping = ("ConsumerReady", "False", "Stopping", "");
    assert_eq!(
        at(&[provider, filesystem, stopping]),
        "waiting for the old pod to end"
    );
}

#[test]
fn a_wait_that_no_one_has_ordered_says_so() {
    let (_, cause) = pending(judge(&Goal::Running, Some(stopped())));
    assert!(cause.contains("kubectl stopc start web"), "{cause}");
    let (_, cause) = pending(judge(&Goal::Stopped, Some(running())));
    assert!(cause.contains("kubectl stopc stop web"), "{cause}");
}

#[test]
fn deleted_is_gone_or_another_object() {
    assert_eq!(judge(&Goal::Deleted, None), Verdict::Met);
    pending(judge(&Goal::Deleted, Some(running())));
    let mut other = running();
    other.metadata.uid = Some("u2".to_owned());
    assert_eq!(judge(&Goal::Deleted, Some(other.clone())), Verdict::Met);
    assert_eq!(
        judge(&Goal::Running, Some(other)),
        Verdict::Failed("the object was deleted meanwhile".to_owned())
    );
    let unknown = Target::named("web", "team");
    assert_eq!(
        verdict(&Goal::Ready, &unknown, &Seen::default()),
        Verdict::Failed("the object does not exist".to_owned())
    );
}

#[test]
fn restarted_needs_another_pod_that_runs() {
    let with_pod = |uid: &str, phase: &str| {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "uid": uid }, "status": { "phase": phase },
        }));
        let seen = Seen {
            object: Some(running()),
            pod: Some(pod.unwrap()),
            ..Seen::default()
        };
        verdict(&Goal::Restarted, &target(), &seen)
    };
    assert_eq!(pending(with_pod("old", "Running")).0, "replacing the pod");
    pending(with_pod("new", "Pending"));
    assert_eq!(with_pod("new", "Running"), Verdict::Met);
}

#[test]
fn a_reset_of_healthy_files_is_done_with_a_new_instance() {
    let uid = "11111111-2222-3333-4444-555555555555";
    let answer = RecoveryAnswer::abandoning(uid);
    let recovery = Recovery::after(&answer, Some(uid));
    assert_eq!(recovery, Recovery::Replaced(uid.to_owned()));
    pending(judge(&Goal::Recovered(recovery.clone()), Some(stopped())));
    let mut new = stopped();
    new.status.as_mut().unwrap().instance_uid = Some("9999".to_owned());
    assert_eq!(judge(&Goal::Recovered(recovery), Some(new)), Verdict::Met);
    let offered = RecoveryAnswer::parse("reset-0123abcd").unwrap();
    let answered = Recovery::after(&offered, Some(uid));
    assert_eq!(answered, Recovery::Answered("0123abcd".to_owned()));
    // The state was as requested before, so only the offer shows that the answer was taken.
    let with_offer = |id: &str| {
        let mut instance = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web" },
            "spec": { "stoppableContainerName": "web", "template": {} },
            "status": { "filesystem": { "state": "Ready", "nodeName": "node1" } },
        });
        instance["status"]["filesystem"]["recovery"] = json!({ "id": id, "verbs": ["reset"] });
        let seen = Seen {
            object: Some(stopped()),
            instance: Some(serde_json::from_value(instance).unwrap()),
            ..Seen::default()
        };
        verdict(&Goal::Recovered(answered.clone()), &target(), &seen)
    };
    pending(with_offer("0123abcd"));
    assert_eq!(with_offer("4567abcd"), Verdict::Met);
}
