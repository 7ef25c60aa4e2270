//! Consumers that end by themselves, again and again, and those that are taken away.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE_STATUS, PODS, pod, terminating};
use crate::world::{World, reasons};

const MISSING: &str = "stoppablecontainer: serve: executable file not found in $PATH";

fn container(state: &Value, last: &Value) -> Value {
    json!([{
        "name": "main", "ready": true, "restartCount": 1, "image": "", "imageID": "", "containerID": "c2",
        "state": state, "lastState": last,
    }])
}

/// One life of a consumer with `activeDeadlineSeconds`: it is created, runs, and is ended. Returns
/// when the next one is due.
async fn life(world: &mut World, provider: &Value, uid: &str) -> Action {
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create(uid);
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();

    let mut consumer = pod("web", "consumer", uid);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();

    consumer["status"] = json!({
        "phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline",
        "containerStatuses": container(
            &json!({ "terminated": {
                "exitCode": 137, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z",
            }}),
            &json!({}),
        ),
    });
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["placement"], json!("Scheduler"));
    world
        .api
        .expect("DELETE", CONSUMER)
        .await
        .answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "Stopping");
    reconciling.await.unwrap().unwrap();

    world.sync(std::slice::from_ref(provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "pods \"web\" not found");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "DeadlineExceeded");
    let next = reconciling.await.unwrap().unwrap();
    world.sync(std::slice::from_ref(provider));
    next
}

/// Every one of them starts well and is ended after five seconds: the waits grow all the same.
#[tokio::test(start_paused = true)]
async fn f12_i18_a_pod_that_is_ended_again_and_again_is_started_ever_more_rarely() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let mut waits = Vec::new();
    for uid in ["c1", "c2", "c3", "c4"] {
        let next = life(&mut world, &provider, uid).await;
        waits.push(next.clone());
        tokio::time::advance(Duration::from_secs(40)).await;
    }
    let expected = [100, 10_000, 20_000, 40_000].map(|ms| Action::requeue(Duration::from_millis(ms)));
    assert_eq!(waits, expected);
}

/// Deleted by force while the controller did not look (a preemption, a drain): the next pod itself
/// says that it goes through the scheduler, as the webhook may hear of the instance later than of
/// the pod.
#[tokio::test]
async fn h23_a_consumer_that_was_taken_away_comes_back_through_the_scheduler() {
    let (mut world, provider, _) = World::running();
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "pods \"web\" not found");
    let create = world.api.expect("POST", PODS).await;
    let placement = &create.body["metadata"]["annotations"]["stoppablecontainer.xtlsoft.top/placement"];
    assert_eq!(*placement, json!("Scheduler"));
    create.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["placement"], json!("Scheduler"), "until it ran");
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-2"));
    reconciling.await.unwrap().unwrap();
}

/// The kubelet calls a container ready as soon as the wrapper runs in it. At a restart after a
/// program that could not be executed the controller does not repeat that before it lasts.
#[tokio::test(start_paused = true)]
async fn i12_a_program_that_never_ran_is_not_ready_at_each_retry() {
    let (mut world, provider, mut consumer) = World::running();
    let ended = json!({ "terminated": { "exitCode": 127, "reason": "Error", "message": MISSING } });
    consumer["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
    consumer["status"]["containerStatuses"] = container(
        &json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } }),
        &ended,
    );
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "ContainerCannotRun");
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    let event = world.event("ContainerCannotRun").await;
    let note = event["note"].as_str().unwrap_or_default().to_owned();
    assert!(
        note.contains("serve: executable file not found in $PATH"),
        "{note}"
    );
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());

    consumer["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    consumer["status"]["containerStatuses"] = container(&json!({ "running": {} }), &ended);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "ContainerCannotRun");
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        Action::requeue(Duration::from_secs(5))
    );

    tokio::time::advance(Duration::from_secs(5)).await;
    let running = consumer.clone();
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status), ["AsRequested"; 4]);
    assert_eq!(status["status"]["phase"], json!("Running"), "it runs this time");
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());

    // Another controller takes over, which has seen nothing of this.
    world.context.attempts.forget("instance-uid");
    world.sync(&[World::provider(), running]);
    world.expect_no_requests().await;
}
