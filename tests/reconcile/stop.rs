//! Stop, start again, and consumers that the kubelet ended.

use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE_STATUS, PODS, terminating};
use crate::world::{World, preconditions, reasons};

fn stop(world: &mut World) {
    world.instance["spec"]["running"] = json!(false);
    world.instance["metadata"]["generation"] = json!(2);
}

/// Stop is the deletion of the consumer with its own grace period. It is Stopped when the pod is
/// gone.
#[tokio::test]
async fn stop_and_start() {
    let (mut world, provider, consumer) = World::running();
    stop(&mut world);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    let delete = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&delete), ("consumer-uid", "50"));
    assert!(
        delete.body.get("gracePeriodSeconds").is_none(),
        "the grace period is the user's"
    );
    delete.answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    assert_eq!(
        status["status"]["consumerPodUid"],
        json!("consumer-uid"),
        "the agent may still need it"
    );
    assert_eq!(reasons(&status)[3], "Stopping");
    reconciling.await.unwrap().unwrap();

    world.sync(&[provider.clone(), terminating(&consumer)]);
    world.expect_no_requests().await;

    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "pods \"web\" not found");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Stopped"));
    assert_eq!(status["status"]["consumerPodUid"], Value::Null);
    assert_eq!(world.event().await, ("Normal".to_owned(), "Stopped".to_owned()));
    reconciling.await.unwrap().unwrap();
    world.sync(std::slice::from_ref(&provider));
    world.expect_no_requests().await;

    world.instance["spec"]["running"] = json!(true);
    world.instance["metadata"]["generation"] = json!(3);
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-2"));
    reconciling.await.unwrap().unwrap();
}

/// Asked to start again while the old consumer is still leaving: the new one has to wait.
#[tokio::test]
async fn i2_start_waits_for_the_old_consumer_to_be_gone() {
    let (mut world, provider, consumer) = World::running();
    world.sync(&[provider.clone(), terminating(&consumer)]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider, terminating(&consumer)]);
    world.expect_no_requests().await;
}

/// The pod changed since it was seen: nothing is deleted, the pass starts over.
#[tokio::test]
async fn deletion_insists_on_what_was_seen() {
    let (mut world, provider, consumer) = World::running();
    stop(&mut world);
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    world
        .api
        .expect("DELETE", CONSUMER)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    assert!(reconciling.await.unwrap().unwrap_err().is_conflict());
}

/// No room on the node: the placement is written down before the evidence goes, the next try waits,
/// and then queues through the scheduler.
#[tokio::test(start_paused = true)]
async fn refused_by_the_kubelet_queues_through_the_scheduler() {
    let (mut world, provider, mut consumer) = World::running();
    consumer["status"] = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "no room" });
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
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    reconciling.await.unwrap().unwrap();

    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "pods \"web\" not found");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "OutOfcpu");
    assert_eq!(world.event().await, ("Warning".to_owned(), "OutOfcpu".to_owned()));
    let next = reconciling.await.unwrap().unwrap();
    assert_ne!(
        next,
        kube::runtime::controller::Action::await_change(),
        "it is tried again"
    );

    tokio::time::advance(std::time::Duration::from_millis(100)).await;
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["placement"],
        json!("Scheduler"),
        "the webhook reads it at the creation"
    );
    reconciling.await.unwrap().unwrap();
}

/// More files than `ephemeral-storage` allows: stopped with the kubelet's reason, not started again
/// by itself, and started at once when the limit is raised.
#[tokio::test(start_paused = true)]
async fn i12_a_container_over_its_storage_limit_is_stopped_once() {
    let (mut world, provider, mut consumer) = World::running();
    let limit = |limit: &str| json!({ "limits": { "ephemeral-storage": limit } });
    world.instance["status"]["filesystem"]["usage"] = json!({ "bytes": 2_000_000, "inodes": 5 });
    consumer["spec"]["containers"] = json!([{ "name": "main", "resources": limit("1M") }]);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["storageLimit"],
        json!("1M"),
        "a LimitRange gave it; the pod is about to go"
    );
    let delete = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&delete), ("consumer-uid", "50"));
    delete.answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "Stopping");
    reconciling.await.unwrap().unwrap();

    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "pods \"web\" not found");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(reasons(&status)[3], "Evicted");
    assert_eq!(world.event().await, ("Warning".to_owned(), "Evicted".to_owned()));
    reconciling.await.unwrap().unwrap();
    tokio::time::advance(std::time::Duration::from_mins(10)).await;
    world.sync(std::slice::from_ref(&provider));
    world.expect_no_requests().await;

    world.instance["spec"]["template"]["spec"]["containers"][0]["resources"] = limit("3M");
    world.instance["metadata"]["generation"] = json!(2);
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-2");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
}
