//! Phases and conditions, one case per state; and that a status which says the same stays as it is.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rstest::rstest;
use serde_json::{Value, json};
use stoppablecontainer_api::Phase;

use super::*;
use crate::reconcile::instance::fixtures::{
    backoff, changed, observed, terminating, with_both, with_provider,
};
use crate::reconcile::instance::state::Slot;
use crate::reconcile::pods::Role;
use crate::reconcile::pods::fixtures::{instance, out_of_cpu, pod, prepared, up};

mod fields;
mod filesystem;
mod scheduled;

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// Of Ready and its parts. The others have tests of their own.
fn reasons(status: &StoppableContainerInstanceStatus) -> Vec<String> {
    let sign = |c: &Condition| match c.status.as_str() {
        "True" => '+',
        "False" => '-',
        _ => '?',
    };
    status
        .conditions
        .iter()
        .filter(|c| c.type_ != CONSUMER_SCHEDULED && c.type_ != STOPPED_CONDITION)
        .map(|c| format!("{}{}", sign(c), c.reason))
        .collect()
}

fn deleting() -> Value {
    json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })
}

fn blocked(pod_uid: &str) -> Value {
    json!({ "status": { "filesystem": { "blocked": { "podUid": pod_uid, "message": "process 7 uses it" } } } })
}

/// Kubernetes has not heard of the node of `observed` for a while, and has called its pods not
/// Ready.
fn silent(observed: Observed) -> Observed {
    let unready = |slot: &Slot| {
        slot.pod().map(|pod| {
            changed(pod, |pod| {
                let conditions = pod
                    .status
                    .iter_mut()
                    .flat_map(|s| s.conditions.iter_mut().flatten());
                conditions.for_each(|c| c.status = "False".to_owned());
            })
        })
    };
    Observed {
        node_unreachable: Some("Kubelet stopped posting node status.".to_owned()),
        provider: unready(&observed.provider).unwrap_or(observed.provider),
        consumer: unready(&observed.consumer).unwrap_or(observed.consumer),
        ..observed
    }
}

/// A consumer that was started again after its program could not be executed.
fn restarted() -> Value {
    let message = "stoppablecontainer: serve: executable file not found in $PATH";
    let mut status = up();
    let container = &mut status["containerStatuses"][0];
    container["containerID"] = json!("c2");
    container["restartCount"] = json!(1);
    container["lastState"] = json!({ "terminated": { "exitCode": 127, "message": message } });
    status
}

fn pending(status: Value) -> Observed {
    let instance = instance(json!({}));
    Observed {
        provider: Slot::Ours(pod(&instance, Role::Provider, status)),
        ..observed(instance)
    }
}

#[rstest]
#[case::new(
    observed(instance(json!({}))),
    Phase::Pending, ["-Starting", "-Starting", "-Preparing", "-Starting"]
)]
#[case::provider_pulls(
    pending(json!({ "phase": "Pending" })),
    Phase::Pending, ["-Starting", "-Starting", "-Preparing", "-Starting"]
)]
#[case::provider_unschedulable(
    pending(json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes" }] })),
    Phase::Pending, ["-Unschedulable", "-Unschedulable", "-Preparing", "-Starting"]
)]
#[case::agent_missing(
    Observed { agent_missing: true, ..pending(json!({ "phase": "Pending" })) },
    Phase::Pending, ["-NodeAgentMissing", "-NodeAgentMissing", "-Preparing", "-Starting"]
)]
#[case::agent_away_while_everything_runs(
    Observed { agent_missing: true, ..with_both(json!({}), up()) },
    Phase::Running, ["+AsRequested", "+AsRequested", "+AsRequested", "+AsRequested"]
)]
#[case::creation_refused(
    Observed { provider_backoff: backoff("CreationRefused", "quota", Duration::ZERO), ..observed(instance(json!({ "status": { "nodeName": "n1" } }))) },
    Phase::Pending, ["-CreationRefused", "-CreationRefused", "-Preparing", "-Starting"]
)]
#[case::preparing(
    with_provider(json!({ "status": { "filesystem": { "state": "Preparing" } } })),
    Phase::Pending, ["-Preparing", "+AsRequested", "-Preparing", "-Starting"]
)]
#[case::about_to_start(
    with_provider(json!({})),
    Phase::ProviderReady, ["-Starting", "+AsRequested", "+AsRequested", "-Starting"]
)]
#[case::consumer_refused(
    Observed { consumer_backoff: backoff("CreationRefused", "webhook", Duration::ZERO), ..with_provider(json!({})) },
    Phase::ProviderReady, ["-CreationRefused", "+AsRequested", "+AsRequested", "-CreationRefused"]
)]
#[case::consumer_starts(
    with_both(json!({}), json!({ "phase": "Pending" })),
    Phase::ProviderReady, ["-Starting", "+AsRequested", "+AsRequested", "-Starting"]
)]
#[case::consumer_refused_by_the_kubelet(
    with_both(json!({}), out_of_cpu()),
    Phase::ProviderReady, ["-OutOfcpu", "+AsRequested", "+AsRequested", "-OutOfcpu"]
)]
#[case::consumer_not_ready(
    with_both(json!({}), json!({ "phase": "Running" })),
    Phase::Running, ["-Starting", "+AsRequested", "+AsRequested", "-Starting"]
)]
#[case::consumer_crashes(
    with_both(json!({}), json!({ "phase": "Running", "containerStatuses": [{
        "name": "main", "ready": false, "restartCount": 3, "image": "", "imageID": "",
        "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } },
    }] })),
    Phase::ProviderReady, ["-CrashLoopBackOff", "+AsRequested", "+AsRequested", "-CrashLoopBackOff"]
)]
#[case::consumer_ended_and_is_started_again(
    with_both(json!({}), json!({ "phase": "Running", "containerStatuses": [{
        "name": "main", "ready": false, "restartCount": 3, "image": "", "imageID": "",
        "state": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
    }] })),
    Phase::ProviderReady, ["-OOMKilled", "+AsRequested", "+AsRequested", "-OOMKilled"]
)]
#[case::a_sidecar_crashes(
    with_both(json!({}), json!({ "phase": "Running", "containerStatuses": [
        { "name": "side", "ready": false, "restartCount": 3, "image": "", "imageID": "",
          "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } } },
        { "name": "main", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": { "running": {} } },
    ] })),
    Phase::Running, ["-CrashLoopBackOff", "+AsRequested", "+AsRequested", "-CrashLoopBackOff"]
)]
#[case::consumer_whose_program_is_missing_is_started_again(
    Observed { unconfirmed_restart: Some(Duration::from_secs(5)), ..with_both(json!({}), restarted()) },
    Phase::ProviderReady, ["-ContainerCannotRun", "+AsRequested", "+AsRequested", "-ContainerCannotRun"]
)]
#[case::it_runs_this_time(
    Observed { unconfirmed_restart: Some(Duration::ZERO), ..with_both(json!({}), restarted()) },
    Phase::Running, ["+AsRequested", "+AsRequested", "+AsRequested", "+AsRequested"]
)]
#[case::node_not_ready_before_the_provider_started(
    Observed { node_not_ready: Some("no network".to_owned()), ..pending(json!({ "phase": "Pending" })) },
    Phase::Pending, ["-NodeNotReady", "-NodeNotReady", "-Preparing", "-NodeNotReady"]
)]
#[case::node_not_ready_and_called_so_by_the_scheduler(
    Observed { node_not_ready: Some("no network".to_owned()), ..with_both(json!({}), json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "untolerated taint" },
    ] })) },
    Phase::ProviderReady, ["-NodeNotReady", "+AsRequested", "+AsRequested", "-NodeNotReady"]
)]
#[case::node_not_ready_while_everything_runs(
    Observed { node_not_ready: Some("no network".to_owned()), ..with_both(json!({}), up()) },
    Phase::Running, ["+AsRequested", "+AsRequested", "+AsRequested", "+AsRequested"]
)]
#[case::node_not_ready_while_stopped(
    Observed { node_not_ready: Some("no network".to_owned()), ..with_provider(json!({ "spec": { "running": false } })) },
    Phase::Stopped, ["+Stopped", "+AsRequested", "+AsRequested", "-Stopped"]
)]
#[case::consumer_waits_for_its_filesystem(
    with_both(blocked("consumer-uid"), up()),
    Phase::ProviderReady, ["-WaitingForFilesystem", "+AsRequested", "+AsRequested", "-WaitingForFilesystem"]
)]
#[case::an_earlier_consumer_waited(
    with_both(blocked("earlier-uid"), up()),
    Phase::Running, ["+AsRequested", "+AsRequested", "+AsRequested", "+AsRequested"]
)]
#[case::is_running(
    with_both(json!({}), up()),
    Phase::Running, ["+AsRequested", "+AsRequested", "+AsRequested", "+AsRequested"]
)]
#[case::stop_asked(
    with_both(json!({ "spec": { "running": false } }), up()),
    Phase::ProviderReady, ["-Stopping", "+AsRequested", "+AsRequested", "-Stopping"]
)]
#[case::stopping(
    { let o = with_both(json!({ "spec": { "running": false } }), up()); let c = terminating(o.consumer.pod().unwrap()); Observed { consumer: c, ..o } },
    Phase::ProviderReady, ["-Stopping", "+AsRequested", "+AsRequested", "-Stopping"]
)]
#[case::stopped(
    with_provider(json!({ "spec": { "running": false } })),
    Phase::Stopped, ["+Stopped", "+AsRequested", "+AsRequested", "-Stopped"]
)]
#[case::announced_and_the_command_waits(
    with_both(json!({ "status": { "filesystem": { "state": "Preparing", "announced": true } } }), up()),
    Phase::Pending, ["-Preparing", "+AsRequested", "-Preparing", "-Starting"]
)]
#[case::stopped_and_provider_lost(
    Observed { provider: Slot::Free, ..with_provider(json!({ "spec": { "running": false } })) },
    Phase::Pending, ["-Starting", "-Starting", "-Preparing", "-Stopped"]
)]
#[case::running_and_provider_lost(
    Observed { provider: Slot::Free, ..with_both(json!({}), up()) },
    Phase::Running, ["+AsRequested", "-Starting", "-Preparing", "+AsRequested"]
)]
#[case::filesystem_lost(
    with_provider(json!({ "status": { "filesystem": { "state": "Failed", "reason": "FilesystemLost", "message": "gone" } } })),
    Phase::Failed, ["-FilesystemLost", "+AsRequested", "-FilesystemLost", "-Starting"]
)]
#[case::filesystem_failed_without_a_word(
    with_provider(json!({ "status": { "filesystem": { "state": "Failed" } } })),
    Phase::Failed, ["-FilesystemFailed", "+AsRequested", "-FilesystemFailed", "-Starting"]
)]
#[case::node_without_user_namespaces(
    Observed { users_obstacle: Some("node n1".to_owned()), ..with_provider(json!({})) },
    Phase::ProviderReady,
    ["-UserNamespacesUnsupported", "+AsRequested", "+AsRequested", "-UserNamespacesUnsupported"]
)]
#[case::node_gone(
    Observed { node_gone: true, ..observed(instance(json!({ "status": prepared() }))) },
    Phase::Failed, ["-NodeGone", "-NodeGone", "-Preparing", "-Starting"]
)]
#[case::node_gone_while_its_pods_are_left(
    Observed { node_gone: true, ..with_both(json!({}), up()) },
    Phase::Failed, ["-NodeGone", "-NodeGone", "+AsRequested", "-Stopping"]
)]
#[case::moved_while_the_pod_of_the_earlier_node_is_left(
    Observed { provider: Slot::Free, ..with_both(json!({ "status": { "nodeName": "n2" } }), up()) },
    Phase::ProviderReady, ["-Starting", "-Starting", "-Preparing", "-Stopping"]
)]
#[case::node_silent_while_it_runs(
    silent(with_both(json!({}), up())),
    Phase::Running, ["?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable"]
)]
#[case::node_silent_and_stop_asked(
    { let o = with_both(json!({ "spec": { "running": false } }), up()); let c = terminating(o.consumer.pod().unwrap()); silent(Observed { consumer: c, ..o }) },
    Phase::ProviderReady, ["?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable"]
)]
#[case::node_silent_while_stopped(
    silent(with_provider(json!({ "spec": { "running": false } }))),
    Phase::Stopped, ["?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable", "-Stopped"]
)]
#[case::node_silent_while_it_is_about_to_start(
    silent(with_provider(json!({}))),
    Phase::ProviderReady, ["?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable", "-Starting"]
)]
#[case::node_silent_while_the_provider_ends(
    { let o = with_provider(json!({ "spec": { "running": false } })); let p = terminating(o.provider.pod().unwrap()); silent(Observed { provider: p, ..o }) },
    Phase::Pending, ["?NodeUnreachable", "?NodeUnreachable", "?NodeUnreachable", "-Stopped"]
)]
#[case::node_silent_after_the_data_was_lost(
    silent(with_provider(json!({ "status": { "filesystem": { "state": "Failed", "reason": "FilesystemLost", "message": "gone" } } }))),
    Phase::Failed, ["-FilesystemLost", "?NodeUnreachable", "-FilesystemLost", "-Starting"]
)]
#[case::provider_name_taken(
    Observed { provider: Slot::Taken("pod x".to_owned()), ..observed(instance(json!({}))) },
    Phase::Failed, ["-NameConflict", "-NameConflict", "-Preparing", "-Starting"]
)]
#[case::consumer_name_taken(
    Observed { consumer: Slot::Taken("pod x".to_owned()), ..with_provider(json!({})) },
    Phase::Failed, ["-NameConflict", "+AsRequested", "+AsRequested", "-NameConflict"]
)]
#[case::consumer_name_taken_but_stopped(
    Observed { consumer: Slot::Taken("pod x".to_owned()), ..with_provider(json!({ "spec": { "running": false } })) },
    Phase::Stopped, ["+Stopped", "+AsRequested", "+AsRequested", "-Stopped"]
)]
#[case::provider_without_a_record(
    { let i = instance(json!({})); let p = pod(&i, Role::Provider, up()); Observed { provider: Slot::Unrecorded(p), ..observed(i) } },
    Phase::Pending, ["-Starting", "-Starting", "-Preparing", "-Starting"]
)]
#[case::consumer_without_a_record(
    { let o = with_provider(json!({})); let p = pod(&o.instance, Role::Consumer, up()); Observed { consumer: Slot::Unrecorded(p), ..o } },
    Phase::ProviderReady, ["-Starting", "+AsRequested", "+AsRequested", "-Starting"]
)]
#[case::deleting(
    Observed { provider: Slot::Free, ..with_provider(deleting()) },
    Phase::Pending, ["-Deleting", "-Deleting", "-Deleting", "-Stopped"]
)]
fn i12_phase_and_reasons(#[case] observed: Observed, #[case] phase: Phase, #[case] expected: [&str; 4]) {
    let status = status(&observed, now());
    assert_eq!(reasons(&status), expected);
    assert_eq!(status.phase, Some(phase));
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.observed_generation == Some(3) && !c.message.is_empty())
    );
}

#[test]
fn i12_the_words_of_others_pass_through() {
    let refused = Observed {
        consumer_backoff: backoff(
            "CreationRefused",
            "admission webhook \"x\" denied the request: no",
            Duration::ZERO,
        ),
        ..with_provider(json!({}))
    };
    let status = status(&refused, now());
    assert_eq!(
        status.conditions[3].message,
        "admission webhook \"x\" denied the request: no"
    );
    assert_eq!(
        status.conditions[0].message, status.conditions[3].message,
        "Ready says it too"
    );
}

#[test]
fn i12_a_node_that_is_not_ready_is_named_with_its_kubelets_words() {
    let starting = Observed {
        node_not_ready: Some("container runtime network not ready".to_owned()),
        ..with_both(json!({}), json!({ "phase": "Pending" }))
    };
    let status = status(&starting, now());
    let expected = "node n1 is not ready (container runtime network not ready); pod web is starting; ";
    let told = message(&status, CONSUMER_READY);
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(message(&status, READY), message(&status, CONSUMER_READY));
}

fn message<'a>(status: &'a StoppableContainerInstanceStatus, kind: &str) -> &'a str {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    found.map_or("", |c| c.message.as_str())
}
