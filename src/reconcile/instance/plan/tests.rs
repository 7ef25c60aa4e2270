//! One case per state. What a case expects is a list of words, so that the table can be read.

use rstest::rstest;
use serde_json::json;

use std::time::Duration;

use super::*;
use crate::reconcile::fixtures::{
    changed, edit, hold, instance, leaving as leaving_pod, observed, out_of_cpu, pod, prepared, up,
    with_both, with_provider,
};

fn words(observed: &Observed) -> Vec<String> {
    plan(observed, &OptOuts::default())
        .iter()
        .map(|action| match action {
            Action::AddFinalizer => "finalizer+".to_owned(),
            Action::RemoveFinalizer => "finalizer-".to_owned(),
            Action::Create(role, _) => format!("create {role}"),
            Action::Relabel(role, _) => format!("relabel {role}"),
            Action::Discard(role, _) => format!("discard {role}"),
            Action::Delete(role, _, trouble) => {
                format!(
                    "delete {role}{}",
                    trouble
                        .as_ref()
                        .map(|t| format!(": {}", t.reason))
                        .unwrap_or_default()
                )
            }
        })
        .collect()
}

#[rstest]
#[case::new_object(
    observed(instance(json!({ "metadata": { "finalizers": null } }))),
    &["finalizer+", "create provider"]
)]
#[case::provider_on_its_way(
    { let i = instance(json!({})); Observed { provider: Slot::Ours(pod(&i, Role::Provider, json!({ "phase": "Pending" }))), ..observed(i) } },
    &[]
)]
#[case::provider_up_filesystem_not_ready(
    with_provider(json!({ "status": { "filesystem": { "state": "Preparing" } } })),
    &[]
)]
#[case::everything_in_place(with_provider(json!({})), &["create consumer"])]
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
    Observed { provider_hold: hold("CreationRefused", "no", Duration::from_secs(1)), ..observed(instance(json!({}))) },
    &[]
)]
#[case::provider_is_tried_again(
    Observed { provider_hold: hold("CreationRefused", "no", Duration::ZERO), ..observed(instance(json!({}))) },
    &["create provider"]
)]
#[case::node_gone(
    Observed { node_gone: true, ..observed(instance(json!({ "status": prepared() }))) },
    &[]
)]
#[case::consumer_waits_after_a_refusal(
    Observed { consumer_hold: hold("CreationRefused", "no", Duration::from_secs(1)), ..with_provider(json!({})) },
    &[]
)]
#[case::provider_name_taken(Observed { provider: Slot::Taken("x".to_owned()), ..observed(instance(json!({}))) }, &[])]
#[case::consumer_name_taken(Observed { consumer: Slot::Taken("x".to_owned()), ..with_provider(json!({})) }, &[])]
#[case::provider_without_a_record(
    { let i = instance(json!({})); Observed { provider: Slot::Stray(pod(&i, Role::Provider, up())), ..observed(i) } },
    &["discard provider"]
)]
#[case::consumer_without_a_record(
    { let o = with_provider(json!({})); let p = pod(&o.instance, Role::Consumer, up()); Observed { consumer: Slot::Stray(p), ..o } },
    &["discard consumer"]
)]
#[case::consumer_without_a_record_while_stopped(
    { let o = with_provider(json!({ "spec": { "running": false } })); let p = pod(&o.instance, Role::Consumer, up()); Observed { consumer: Slot::Stray(p), ..o } },
    &["discard consumer"]
)]
fn states(#[case] observed: Observed, #[case] expected: &[&str]) {
    assert_eq!(words(&observed), expected);
}

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
        consumer: leaving_pod(both.consumer.pod().unwrap()),
        ..both.clone()
    };
    assert!(
        words(&ending).is_empty(),
        "the provider stays while the consumer ends"
    );
    let provider_only = with_provider(deleting.clone());
    assert_eq!(words(&provider_only), ["delete provider"]);
    let ending = Observed {
        provider: leaving_pod(provider_only.provider.pod().unwrap()),
        ..provider_only.clone()
    };
    assert!(words(&ending).is_empty());
    let without_pods = Observed {
        provider: Slot::Free,
        ..provider_only
    };
    assert!(
        words(&without_pods).is_empty(),
        "the agent has still to remove the data"
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
        leaving_pod(&pod),
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

/// While anything with the consumer's name exists, dead or dying, there is no second one; and a dying one is not
/// deleted again, which could shorten its grace period.
#[test]
fn i2_no_second_consumer_while_the_first_exists() {
    let base = with_both(json!({}), up());
    let pod = base.consumer.pod().unwrap().clone();
    let running_and_leaving = leaving_pod(&pod);
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

#[test]
fn a_pod_that_never_ran_is_replaced_when_its_template_was_corrected() {
    let pending = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": { "waiting": { "reason": "ImagePullBackOff" } },
    }] });
    let corrected = |observed: Observed| {
        let mut instance = (*observed.instance).clone();
        edit(&mut instance, |template| {
            template["spec"]["containers"][0]["image"] = json!("nginx:1.26");
        });
        Observed {
            instance: Arc::new(instance),
            ..observed
        }
    };
    let before = with_both(json!({}), pending.clone());
    assert!(words(&before).is_empty());
    assert_eq!(words(&corrected(before)), ["delete consumer"]);
    // The provider was made of the image too.
    let i = instance(json!({ "spec": { "running": false } }));
    let stuck = Observed {
        provider: Slot::Ours(pod(&i, Role::Provider, pending)),
        ..observed(i)
    };
    assert!(words(&stuck).is_empty());
    assert_eq!(words(&corrected(stuck)), ["delete provider"]);
    assert!(
        words(&corrected(with_both(json!({}), up()))).is_empty(),
        "what runs takes the template at its next start"
    );
}

#[rstest]
#[case::stopped(json!({ "spec": { "running": false } }))]
#[case::about_to_start(json!({}))]
fn f25_another_image_gets_another_provider_once_nothing_runs(#[case] change: serde_json::Value) {
    let other = |observed: Observed| {
        let mut instance = (*observed.instance).clone();
        edit(&mut instance, |template| {
            template["spec"]["containers"][0]["image"] = json!("nginx:1.26");
        });
        Observed {
            instance: Arc::new(instance),
            ..observed
        }
    };
    assert_eq!(words(&other(with_provider(change))), ["delete provider"]);
    let running = with_both(json!({}), up());
    assert!(words(&other(running)).is_empty(), "the provider holds what runs");
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
fn the_node_that_came_with_the_first_provider_is_no_correction() {
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
    assert!(matches!(of(&fresh, Role::Provider, None), Slot::Stray(_)));
    assert!(matches!(
        of(&fresh, Role::Provider, Some("provider-uid")),
        Slot::Ours(_)
    ));
    assert!(matches!(
        of(&fresh, Role::Provider, Some("another")),
        Slot::Stray(_)
    ));
    let recorded = instance(json!({ "status": { "providerPodUid": "provider-uid" } }));
    assert!(matches!(of(&recorded, Role::Provider, None), Slot::Ours(_)));
    assert!(
        matches!(of(&recorded, Role::Consumer, None), Slot::Stray(_)),
        "each role has a record of its own"
    );
    let other = instance(json!({ "status": { "providerPodUid": "another" } }));
    assert!(matches!(of(&other, Role::Provider, None), Slot::Stray(_)));

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

/// What the controller created stays its own, whatever becomes of the reference: it is stopped with the rest.
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

#[test]
fn i11_pods_without_a_record_go_with_the_instance() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let i = instance(deleting);
    let stray = pod(&i, Role::Provider, up());
    let Slot::Ours(gone) = leaving_pod(&stray) else {
        panic!("a fixture")
    };
    let with = |provider| Observed {
        provider,
        ..observed(Arc::clone(&i))
    };
    assert_eq!(words(&with(Slot::Stray(stray))), ["discard provider"]);
    assert!(words(&with(Slot::Stray(gone))).is_empty(), "it is waited for");
}

fn too_large(limit: &str) -> serde_json::Value {
    json!({
        "spec": { "template": { "spec": { "containers": [{
            "name": "main", "image": "nginx:1.25", "resources": { "limits": { "ephemeral-storage": limit } },
        }]}}},
        "status": { "filesystem": { "usage": { "bytes": 2_000_000, "inodes": 10 } } },
    })
}

/// The kubelet does not see what is written below the kept root, so the limit is held here: stopped once, and not
/// started again before something was done about it.
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

/// Without its template no other provider could be made, so the one that keeps node and image stays.
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
