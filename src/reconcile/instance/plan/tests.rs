//! One case per state. What a case expects is a list of words, so that the table can be read.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use stoppablecontainer_api::names::ANNOTATION_IMAGE_ID;

use super::*;
use crate::reconcile::instance::fixtures::{
    backoff, changed, observed, terminating, with_both, with_provider,
};
use crate::reconcile::pods::fixtures::{edit, instance, out_of_cpu, pod, prepared, up};

mod change_over;
mod deletion;
mod lost_node;
mod ownership;
mod resize;
mod restart;
mod storage_limit;
mod upgrade;

fn words(observed: &Observed) -> Vec<String> {
    plan(observed, &OptOuts::default())
        .iter()
        .map(|action| match action {
            Action::AddFinalizer => "finalizer+".to_owned(),
            Action::RemoveFinalizer => "finalizer-".to_owned(),
            Action::Create(role, _) => format!("create {role}"),
            Action::Relabel(role, _) => format!("relabel {role}"),
            Action::Discard(role, _) => format!("discard {role}"),
            Action::KeepNode(_) => "keep node".to_owned(),
            Action::Nominate(_, node) => format!("nominate {node}"),
            Action::Admit(_) => "admit consumer".to_owned(),
            Action::Resize(..) => "resize consumer".to_owned(),
            Action::GiveUp(why, _) => format!("give up: {}", why.reason),
            Action::Delete(role, _, cause) => {
                format!(
                    "delete {role}{}",
                    cause
                        .as_ref()
                        .map(|t| format!(": {}", t.reason))
                        .unwrap_or_default()
                )
            }
        })
        .collect()
}

/// A consumer that runs, and what its pod and the agent say of its image.
fn of_image(image_id: Option<&str>, blocked: bool, state: &str) -> Observed {
    let report = blocked.then(|| json!({ "podUid": "consumer-uid", "message": "another image" }));
    let both = with_both(
        json!({ "status": { "filesystem": { "state": state, "announced": state == "Preparing", "blocked": report } } }),
        up(),
    );
    let consumer = changed(both.consumer.pod().unwrap(), |pod| {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.extend(image_id.map(|id| (ANNOTATION_IMAGE_ID.to_owned(), id.to_owned())));
    });
    Observed { consumer, ..both }
}

/// The name of the image was moved after the agent had announced the filesystem: the environment
/// and the command of the pod are those of the image before.
#[test]
fn i1_a_consumer_completed_for_another_image_is_replaced_while_it_waits() {
    assert_eq!(
        words(&of_image(Some("sha256:0"), true, "Ready")),
        ["delete consumer"]
    );
    for stays in [
        of_image(Some("sha256:0"), false, "Ready"),
        of_image(Some("sha256:1"), true, "Ready"),
        of_image(None, true, "Ready"),
        of_image(Some("sha256:0"), true, "Preparing"),
    ] {
        assert_eq!(words(&stays), [""; 0]);
    }
}

#[rstest]
#[case::new_object(
    observed(instance(json!({ "metadata": { "finalizers": null } }))),
    &["finalizer+", "create placeholder"]
)]
#[case::provider_on_its_way(
    { let i = instance(json!({})); Observed { provider: Slot::Ours(pod(&i, Role::Provider, json!({ "phase": "Pending" }))), ..observed(i) } },
    &[]
)]
#[case::provider_up_filesystem_not_ready(
    with_provider(json!({ "status": { "filesystem": { "state": "Preparing" } } })),
    &[]
)]
#[case::first_start_announced(
    { let o = with_provider(json!({ "status": { "neverStarted": true, "filesystem": { "state": "Preparing", "announced": true } } })); let p = changed(o.provider.pod().unwrap(), |p| p.status = None); Observed { provider: p, ..o } },
    &["create consumer"]
)]
#[case::announced_for_an_earlier_provider(
    with_provider(json!({ "status": { "neverStarted": true, "filesystem": { "state": "Preparing", "announced": true, "providerPodUid": "other" } } })),
    &[]
)]
#[case::failed_after_it_was_announced(
    with_provider(json!({ "status": { "neverStarted": true, "filesystem": { "state": "Failed", "announced": true } } })),
    &[]
)]
#[case::everything_in_place(with_provider(json!({})), &["create consumer"])]
#[case::the_node_cannot_run_it(
    Observed { users_obstacle: Some("node n1".to_owned()), ..with_provider(json!({})) },
    &[]
)]
#[case::not_asked_to_run(with_provider(json!({ "spec": { "running": false } })), &[])]
#[case::runs(with_both(json!({}), up()), &[])]
#[case::stop(with_both(json!({ "spec": { "running": false } }), up()), &["delete consumer"])]
#[case::filesystem_of_an_earlier_provider(
    with_provider(json!({ "status": { "filesystem": { "providerPodUid": "other" } } })),
    &[]
)]
#[case::provider_replaced_but_not_recorded_yet(
    { let o = with_provider(json!({})); let p = changed(o.provider.pod().unwrap(), |p| p.metadata.uid = Some("new".to_owned())); Observed { provider: p, ..o } },
    &[]
)]
#[case::user_not_looked_up_yet(
    with_provider(json!({ "spec": { "template": { "spec": { "securityContext": { "runAsUser": 1000 } } } } })),
    &[]
)]
#[case::user_looked_up(
    with_provider(json!({
        "spec": { "template": { "spec": { "securityContext": { "runAsUser": 1000 } } } },
        "status": { "filesystem": { "identity": { "user": "1000", "uid": 1000 } } },
    })),
    &["create consumer"]
)]
#[case::filesystem_lost(with_provider(json!({ "status": { "filesystem": { "state": "Failed" } } })), &[])]
#[case::provider_not_ready_any_more(
    { let o = with_provider(json!({})); let p = changed(o.provider.pod().unwrap(), |p| p.status = None); Observed { provider: p, ..o } },
    &[]
)]
#[case::first_start_before_the_kubelet_reports_the_provider(
    { let o = with_provider(json!({ "status": { "neverStarted": true } })); let p = changed(o.provider.pod().unwrap(), |p| p.status = None); Observed { provider: p, ..o } },
    &["create consumer"]
)]
#[case::first_start_with_a_provider_that_ends(
    { let o = with_provider(json!({ "status": { "neverStarted": true } })); let p = terminating(o.provider.pod().unwrap()); Observed { provider: p, ..o } },
    &[]
)]
#[case::provider_lost_while_the_consumer_runs(
    Observed { provider: Slot::Free, ..with_both(json!({}), up()) },
    &["create provider"]
)]
#[case::provider_evicted(
    { let o = with_both(json!({}), up()); let p = changed(o.provider.pod().unwrap(), |p| p.status = serde_json::from_value(json!({ "phase": "Failed", "reason": "Evicted" })).unwrap()); Observed { provider: p, ..o } },
    &["delete provider: Evicted"]
)]
#[case::provider_on_another_node(
    { let o = with_provider(json!({ "spec": { "running": false } })); let p = changed(o.provider.pod().unwrap(), |p| p.spec.as_mut().unwrap().node_name = Some("n2".to_owned())); Observed { provider: p, ..o } },
    &["delete provider: Starting"]
)]
#[case::provider_waits_after_a_refusal(
    Observed { provider_backoff: backoff("CreationRefused", "no", Duration::from_secs(1)), ..observed(instance(json!({ "status": { "nodeName": "n1" } }))) },
    &[]
)]
#[case::provider_is_tried_again(
    Observed { provider_backoff: backoff("CreationRefused", "no", Duration::ZERO), ..observed(instance(json!({ "status": { "nodeName": "n1" } }))) },
    &["create provider"]
)]
#[case::node_gone(
    Observed { node_gone: true, ..observed(instance(json!({ "status": prepared() }))) },
    &[]
)]
#[case::consumer_waits_after_a_refusal(
    Observed { consumer_backoff: backoff("CreationRefused", "no", Duration::from_secs(1)), ..with_provider(json!({})) },
    &[]
)]
#[case::provider_name_taken(Observed { provider: Slot::Taken("x".to_owned()), ..observed(instance(json!({}))) }, &[])]
#[case::consumer_name_taken(Observed { consumer: Slot::Taken("x".to_owned()), ..with_provider(json!({})) }, &[])]
#[case::provider_without_a_record(
    { let i = instance(json!({})); Observed { provider: Slot::Unrecorded(pod(&i, Role::Provider, up())), ..observed(i) } },
    &["discard provider"]
)]
#[case::consumer_without_a_record(
    { let o = with_provider(json!({})); let p = pod(&o.instance, Role::Consumer, up()); Observed { consumer: Slot::Unrecorded(p), ..o } },
    &["discard consumer"]
)]
#[case::consumer_without_a_record_while_stopped(
    { let o = with_provider(json!({ "spec": { "running": false } })); let p = pod(&o.instance, Role::Consumer, up()); Observed { consumer: Slot::Unrecorded(p), ..o } },
    &["discard consumer"]
)]
fn states(#[case] observed: Observed, #[case] expected: &[&str]) {
    assert_eq!(words(&observed), expected);
}

/// Whatever state a stopped object is in, no plan creates its consumer.
#[test]
fn i14_stopped_stays_stopped() {
    let stopped = json!({ "spec": { "running": false } });
    let base = with_both(stopped.clone(), up());
    let pod = base.consumer.pod().unwrap().clone();
    let failed = changed(&pod, |p| p.status = serde_json::from_value(out_of_cpu()).unwrap());
    for consumer in [
        Slot::Free,
        base.consumer.clone(),
        terminating(&pod),
        failed,
        Slot::Taken(String::new()),
    ] {
        for provider in [Slot::Free, base.provider.clone(), Slot::Taken(String::new())] {
            for node_gone in [false, true] {
                let observed = Observed {
                    consumer: consumer.clone(),
                    provider: provider.clone(),
                    node_gone,
                    ..base.clone()
                };
                assert!(
                    !words(&observed).contains(&"create consumer".to_owned()),
                    "{observed:?}"
                );
            }
        }
    }
}

/// While a pod with the consumer's name exists, finished or terminating, the plan does not create
/// another one, and does not delete a terminating one again, which could shorten its grace period.
#[test]
fn i2_no_second_consumer_while_the_first_exists() {
    let base = with_both(json!({}), up());
    let pod = base.consumer.pod().unwrap().clone();
    let running_and_leaving = terminating(&pod);
    let failed_and_leaving = changed(&pod, |p| {
        p.status = serde_json::from_value(out_of_cpu()).unwrap();
        p.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    });
    for consumer in [running_and_leaving, failed_and_leaving] {
        assert!(
            words(&Observed {
                consumer,
                ..base.clone()
            })
            .is_empty()
        );
    }
}

#[rstest]
#[case::no_room(out_of_cpu(), "OutOfcpu")]
#[case::device_missing(json!({ "phase": "Failed", "reason": "UnexpectedAdmissionError" }), "UnexpectedAdmissionError")]
#[case::evicted(json!({ "phase": "Failed", "reason": "Evicted", "message": "disk" }), "Evicted")]
#[case::node_shut_down(json!({ "phase": "Succeeded" }), "Succeeded")]
fn a_consumer_that_the_kubelet_ended_is_replaced(#[case] status: serde_json::Value, #[case] reason: &str) {
    assert_eq!(
        words(&with_both(json!({}), status)),
        [format!("delete consumer: {reason}")]
    );
}

/// The same, with another image in the template.
fn with_another_image(observed: Observed) -> Observed {
    let mut instance = (*observed.instance).clone();
    edit(&mut instance, |template| {
        template["spec"]["containers"][0]["image"] = json!("nginx:1.26");
    });
    Observed {
        instance: Arc::new(instance),
        ..observed
    }
}

#[test]
fn a_pod_that_never_ran_is_replaced_when_its_template_was_with_another_image() {
    let pending = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": { "waiting": { "reason": "ImagePullBackOff" } },
    }] });
    let before = with_both(json!({}), pending.clone());
    assert!(words(&before).is_empty());
    assert_eq!(words(&with_another_image(before)), ["delete consumer"]);
    // The provider was made of the image too.
    let i = instance(json!({ "spec": { "running": false } }));
    let stuck = Observed {
        provider: Slot::Ours(pod(&i, Role::Provider, pending)),
        ..observed(i)
    };
    assert!(words(&stuck).is_empty());
    assert_eq!(words(&with_another_image(stuck)), ["delete provider"]);
    assert!(
        words(&with_another_image(with_both(json!({}), up()))).is_empty(),
        "what runs takes the template at its next start"
    );
}

#[rstest]
#[case::stopped(json!({ "spec": { "running": false } }))]
#[case::about_to_start(json!({}))]
fn f25_another_image_gets_another_provider_once_nothing_runs(#[case] change: serde_json::Value) {
    assert_eq!(
        words(&with_another_image(with_provider(change))),
        ["delete provider"]
    );
    let running = with_both(json!({}), up());
    assert!(
        words(&with_another_image(running)).is_empty(),
        "the provider holds what runs"
    );
    // A registry's webhook changed the pod's image: it is still the one that was asked for.
    let rewritten = with_provider(json!({ "spec": { "running": false } }));
    let provider = changed(rewritten.provider.pod().unwrap(), |pod| {
        pod.spec.as_mut().unwrap().containers[0].image = Some("mirror.example/nginx:1.25".to_owned());
    });
    assert!(
        words(&Observed {
            provider,
            ..rewritten
        })
        .is_empty()
    );
}

#[test]
fn the_node_that_came_with_the_first_provider_is_not_a_correction() {
    let fresh = instance(json!({ "spec": { "running": false } }));
    let provider = pod(&fresh, Role::Provider, json!({ "phase": "Pending" }));
    let scheduled = instance(json!({ "spec": { "running": false }, "status": { "nodeName": "n1" } }));
    assert!(
        words(&Observed {
            provider: Slot::Ours(provider),
            ..observed(scheduled)
        })
        .is_empty()
    );
}

#[test]
fn i1_lost_data_is_a_stop_and_another_image_is_none_for_what_runs() {
    let failed =
        |reason: &str| json!({ "status": { "filesystem": { "state": "Failed", "reason": reason } } });
    assert_eq!(
        words(&with_both(failed("FilesystemLost"), up())),
        ["delete consumer"]
    );
    assert_eq!(words(&with_provider(failed("FilesystemLost"))), [""; 0]);
    assert_eq!(words(&with_both(failed("ImageChanged"), up())), [""; 0]);
}

/// Without its template no other provider could be made, so the one that keeps node and image
/// stays.
#[test]
fn i18_a_provider_stays_while_its_template_is_too_large() {
    let mut observed = with_provider(json!({ "spec": { "running": false } }));
    edit(Arc::make_mut(&mut observed.instance), |template| {
        template["spec"]["containers"][0]["image"] = json!("nginx:1.26");
        template["spec"]["volumes"] = json!(vec![json!({}); 31_000]);
    });
    assert!(words(&observed).is_empty());
}

/// The template's annotation is the user's and does not count.
#[test]
fn h19_h23_only_the_controller_asks_for_the_scheduler() {
    let asked = |observed: &Observed| -> Option<String> {
        let actions = plan(observed, &OptOuts::default());
        let Some(Action::Create(Role::Consumer, pod)) = actions.first() else {
            panic!("{actions:?}")
        };
        let pod = serde_json::to_value(pod).unwrap();
        let placement = &pod["metadata"]["annotations"]["stoppablecontainer.xtlsoft.top/placement"];
        placement.as_str().map(str::to_owned)
    };
    let own = json!({ "stoppablecontainer.xtlsoft.top/placement": "Scheduler" });
    let own = json!({ "spec": { "template": { "metadata": { "annotations": own } } } });
    assert_eq!(asked(&with_provider(own)), None);
    let ended = json!({ "status": { "placement": "Scheduler" } });
    assert_eq!(asked(&with_provider(ended)).as_deref(), Some("Scheduler"));
    let gone = json!({ "status": { "consumerPodUid": "gone" } });
    assert_eq!(asked(&with_provider(gone)).as_deref(), Some("Scheduler"));
}

fn released(change: &serde_json::Value) -> Observed {
    let mut object = json!({ "spec": { "running": false, "provider": { "whileStopped": "Release" } } });
    json_patch::merge(&mut object, change);
    with_provider(object)
}

/// A stopped object costs no pod, and its filesystem is kept: not before the agent has prepared it,
/// and the provider comes back for the next start.
#[test]
fn i1_a_released_object_has_no_provider_while_it_is_stopped() {
    let stopped = released(&json!({}));
    assert_eq!(words(&stopped), ["delete provider"]);
    let gone = Observed {
        provider: Slot::Free,
        ..stopped.clone()
    };
    assert_eq!(words(&gone), [""; 0]);
    let now = || "2026-01-02T03:04:05Z".parse().unwrap();
    let phase = |observed: &Observed| {
        let status = crate::reconcile::instance::status::status(observed, now());
        let ready = status.conditions[0].clone();
        (status.phase.unwrap().to_string(), ready.status, ready.reason)
    };
    let expected =
        |phase: &str, status: &str, reason: &str| (phase.to_owned(), status.to_owned(), reason.to_owned());
    assert_eq!(phase(&stopped), expected("ProviderReady", "False", "Released"));
    assert_eq!(phase(&gone), expected("Stopped", "True", "Stopped"));
    let preparing = released(&json!({ "status": { "filesystem": { "state": "Preparing" } } }));
    assert_eq!(words(&preparing), [""; 0]);
    let starting = released(&json!({ "spec": { "running": true } }));
    let starting = Observed {
        provider: Slot::Free,
        ..starting
    };
    assert_eq!(words(&starting), ["create provider"]);
    let kept = released(&json!({ "spec": { "provider": { "whileStopped": "Keep" } } }));
    assert_eq!(words(&kept), [""; 0]);
    let lost =
        released(&json!({ "status": { "filesystem": { "state": "Failed", "reason": "FilesystemLost" } } }));
    assert_eq!(
        words(&Observed {
            provider: Slot::Free,
            ..lost
        }),
        ["create provider"],
        "the agent has to look"
    );
}
