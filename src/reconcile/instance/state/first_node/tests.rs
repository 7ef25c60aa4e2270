//! The first node: chosen for the consumer, given up while there is nothing to lose, and never
//! afterwards.

// Tables read better without borrows.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::*;
use crate::reconcile::instance::fixtures::{backoff, changed, observed};
use crate::reconcile::instance::plan::{Action, plan};
use crate::reconcile::instance::state::Slot;
use crate::reconcile::instance::status::status;
use crate::reconcile::pods::fixtures::{instance, out_of_cpu, pod, prepared, up};
use crate::reconcile::pods::{OptOuts, Role};

fn words(observed: &Observed) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Create(role, _) => format!("create {role}"),
        Action::Delete(role, ..) => format!("delete {role}"),
        Action::GiveUp(why, _) => format!("give up: {}", why.reason),
        other => format!("{other:?}"),
    };
    plan(observed, &OptOuts::default()).iter().map(word).collect()
}

fn owned(mut change: Value) -> Value {
    change["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer", "name": "web",
        "uid": "container-uid", "controller": true,
    }]);
    change
}

/// Before anything was made.
fn new(change: Value) -> Observed {
    observed(instance(owned(change)))
}

/// Prepared on node `n1`, its provider up, and never started.
fn unstarted(change: Value) -> Observed {
    let mut status = json!({ "status": prepared() });
    status["status"]["neverStarted"] = json!(true);
    json_patch::merge(&mut status, &change);
    let instance = instance(owned(status));
    Observed {
        provider: Slot::Ours(pod(&instance, Role::Provider, up())),
        ..observed(instance)
    }
}

fn with_placeholder(observed: Observed, node: Option<&str>) -> Observed {
    let made = pod(
        &observed.instance,
        Role::Placeholder,
        json!({ "phase": "Pending" }),
    );
    let placeholder = changed(&made, |pod| {
        pod.spec.as_mut().unwrap().node_name = node.map(str::to_owned);
    });
    Observed {
        placeholder,
        ..observed
    }
}

fn with_consumer(observed: Observed, status: Value) -> Observed {
    let consumer = Slot::Ours(pod(&observed.instance, Role::Consumer, status));
    Observed { consumer, ..observed }
}

fn written(observed: &Observed) -> StoppableContainerInstanceStatus {
    status(observed, "2026-01-02T03:04:05Z".parse().unwrap())
}

#[test]
fn the_scheduler_chooses_for_the_consumer_before_anything_else_is_made() {
    assert_eq!(words(&new(json!({}))), ["create placeholder"]);
    let waiting = with_placeholder(new(json!({})), None);
    assert_eq!(words(&waiting), [""; 0]);
    let chosen = with_placeholder(new(json!({})), Some("n7"));
    assert_eq!(words(&chosen), ["create provider"]);
    let status = written(&chosen);
    assert_eq!(status.node_name.as_deref(), Some("n7"));
    assert!(status.never_started);
}

/// It holds the room while the image is pulled, until the consumer exists.
#[test]
fn the_placeholder_makes_way_for_the_consumer() {
    let pulling = with_placeholder(unstarted(json!({ "status": { "filesystem": null } })), Some("n1"));
    assert_eq!(words(&pulling), [""; 0]);
    let ready = with_placeholder(unstarted(json!({})), Some("n1"));
    assert_eq!(words(&ready), ["create consumer"]);
    let stopped = with_placeholder(unstarted(json!({ "spec": { "running": false } })), Some("n1"));
    assert_eq!(words(&stopped), ["delete placeholder"]);
}

/// A provider that does not fit beside its placeholder, or is kept away by its anti-affinity.
#[test]
fn h23_the_placeholder_makes_way_for_the_provider() {
    let pending = |observed: &Observed| {
        changed(observed.provider.pod().unwrap(), |pod| {
            pod.spec.as_mut().unwrap().node_name = None;
            pod.status = serde_json::from_value(json!({ "phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room",
            }] }))
            .unwrap();
        })
    };
    let alone = unstarted(json!({ "status": { "filesystem": null } }));
    let alone = Observed {
        provider: pending(&alone),
        ..alone
    };
    assert_eq!(
        unsuitable(&alone).map(|unsuitable| unsuitable.grace),
        Some(QUEUEING)
    );
    let both = with_placeholder(alone, Some("n1"));
    assert_eq!(words(&both), ["delete placeholder", "delete provider"]);
    assert_eq!(unsuitable(&both), None, "not before it was tried without");
}

#[test]
fn i12_what_the_scheduler_says_of_the_placeholder_is_why_nothing_runs() {
    let waiting = with_placeholder(new(json!({})), None);
    let placeholder = changed(waiting.placeholder.pod().unwrap(), |pod| {
        pod.status = serde_json::from_value(json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
        }] }))
        .unwrap();
    });
    let status = written(&Observed {
        placeholder,
        ..waiting
    });
    let ready = &status.conditions[0];
    assert_eq!(ready.reason, "Unschedulable");
    assert_eq!(ready.message, "pod web-placeholder: 0/3 nodes are available");
}

#[test]
fn a_node_that_does_not_do_is_given_up_while_nothing_ran() {
    let refused = with_consumer(unstarted(json!({})), out_of_cpu());
    let unsuitable = unsuitable(&refused).unwrap();
    assert_eq!(
        (unsuitable.cause.reason.as_str(), unsuitable.grace),
        ("OutOfcpu", NOTHING)
    );
    let due = Observed {
        unsuitable: backoff("OutOfcpu", "no room", Duration::ZERO),
        ..refused.clone()
    };
    assert_eq!(words(&due), ["give up: OutOfcpu"]);
    let waits = Observed {
        unsuitable: backoff("OutOfcpu", "no room", Duration::from_secs(1)),
        ..refused
    };
    assert_eq!(
        words(&waits),
        ["delete consumer"],
        "as ever while it is waited for"
    );
    let given_up =
        unstarted(json!({ "status": { "givenUp": { "reason": "OutOfcpu", "message": "no room" } } }));
    assert_eq!(words(&given_up), [""; 0], "its owner acts");
}

#[test]
fn i1_a_node_that_may_hold_data_is_never_given_up() {
    let ran = [
        // It runs.
        with_consumer(unstarted(json!({})), up()),
        // It was recorded and is not seen any more.
        unstarted(json!({ "status": { "consumerPodUid": "other" } })),
        // Another one than the recorded one.
        with_consumer(
            unstarted(json!({ "status": { "consumerPodUid": "other" } })),
            out_of_cpu(),
        ),
    ];
    for observed in ran {
        let gone = Observed {
            node_gone: true,
            ..observed
        };
        assert_eq!(unsuitable(&gone), None);
        assert!(!written(&gone).never_started);
    }
    // An object of an earlier version, which may have run.
    let earlier = Observed {
        node_gone: true,
        ..unstarted(json!({ "status": { "neverStarted": null } }))
    };
    assert_eq!(unsuitable(&earlier), None);
    assert!(!written(&earlier).never_started);
    // An instance without an owner would not be replaced.
    let mut alone = unstarted(json!({}));
    let mut instance = (*alone.instance).clone();
    instance.metadata.owner_references = None;
    alone.instance = Arc::new(instance);
    assert_eq!(
        unsuitable(&Observed {
            node_gone: true,
            ..alone
        }),
        None
    );
}

#[test]
fn what_another_node_would_not_change_is_no_reason() {
    let pulls = |reason: &str| {
        let pending = |observed: &Observed| {
            changed(observed.provider.pod().unwrap(), |pod| {
                pod.status = serde_json::from_value(json!({ "phase": "Pending", "containerStatuses": [{
                    "name": "provider", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                    "state": { "waiting": { "reason": reason, "message": "m" } },
                }] }))
                .unwrap();
            })
        };
        let observed = unstarted(json!({ "status": { "filesystem": null } }));
        Observed {
            provider: pending(&observed),
            ..observed
        }
    };
    let grace = |observed: &Observed| unsuitable(observed).map(|unsuitable| unsuitable.grace);
    assert_eq!(grace(&pulls("ImagePullBackOff")), Some(PULLING));
    assert_eq!(grace(&pulls("InvalidImageName")), None);
    let alone = Observed {
        other_nodes: false,
        ..pulls("ImagePullBackOff")
    };
    assert_eq!(grace(&alone), None);
    let mut tried = pulls("ImagePullBackOff");
    let mut instance = (*tried.instance).clone();
    instance.annotations_mut().insert(
        stoppablecontainer_api::names::ANNOTATION_AVOID_NODES.to_owned(),
        "n2,n3".to_owned(),
    );
    tried.instance = Arc::new(instance);
    assert_eq!(grace(&tried), None, "on three nodes already");
    let failed = |reason: &str| {
        unstarted(
            json!({ "status": { "filesystem": { "state": "Failed", "reason": reason, "message": "m" } } }),
        )
    };
    assert_eq!(grace(&failed("InsufficientDisk")), Some(NOTHING));
    assert_eq!(grace(&failed("UserUnknown")), None);
    let without_users = |other_nodes| Observed {
        users_obstacle: Some("m".to_owned()),
        other_nodes,
        ..unstarted(json!({}))
    };
    assert_eq!(grace(&without_users(true)), Some(NOTHING));
    assert_eq!(grace(&without_users(false)), None);
    let no_agent = Observed {
        agent_missing: true,
        ..unstarted(json!({ "status": { "filesystem": null } }))
    };
    assert_eq!(grace(&no_agent), Some(REGISTERING));
}

/// Autoscalers may remove a node as long as nothing is lost with it.
#[test]
fn i1_autoscalers_are_kept_away_from_nodes_that_hold_files() {
    let opt_outs = OptOuts {
        keep_node: [("autoscaler/keep".to_owned(), "true".to_owned())].into(),
        ..OptOuts::default()
    };
    let kept = |observed: &Observed| {
        plan(observed, &opt_outs)
            .iter()
            .any(|a| matches!(a, Action::KeepNode(_)))
    };
    assert!(!kept(&unstarted(json!({ "spec": { "running": false } }))));
    let started = unstarted(json!({ "spec": { "running": false }, "status": { "neverStarted": null } }));
    assert!(kept(&started));
    let annotated = changed(started.provider.pod().unwrap(), |pod| {
        pod.metadata
            .annotations
            .get_or_insert_default()
            .extend(opt_outs.keeping_node());
    });
    assert!(
        !kept(&Observed {
            provider: annotated,
            ..started.clone()
        }),
        "once"
    );
    assert_eq!(words(&started), [""; 0], "the administrator wants none");
}

/// Nothing was made on the node, so its agent does not have to remove anything.
#[test]
fn i11_deletion_does_not_wait_for_a_node_on_which_nothing_was_made() {
    let deleted = json!({
        "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" },
        "status": { "nodeName": "n1", "neverStarted": true },
    });
    assert_eq!(words(&new(deleted)), ["RemoveFinalizer"]);
}
