//! Deletion of an instance: consumer, provider, data, finalizer.

use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE, INSTANCE_STATUS, PROVIDER, terminating};
use crate::world::{World, preconditions, reasons};

#[tokio::test]
async fn i11_everything_goes_in_order() {
    let (mut world, provider, consumer) = World::running();
    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    let delete = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&delete).0, "consumer-uid");
    delete.answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[0], "Deleting");
    reconciling.await.unwrap().unwrap();

    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "gone");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], Value::Null);
    let delete = world.api.expect("DELETE", PROVIDER).await;
    assert_eq!(preconditions(&delete).0, "provider-uid");
    delete.answer(&terminating(&provider));
    reconciling.await.unwrap().unwrap();

    world.sync(&[]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", PROVIDER)
        .await
        .refuse(404, "NotFound", "gone");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["providerPodUid"], Value::Null);
    let waits = status["status"]["conditions"][2]["message"].as_str().unwrap();
    assert!(waits.contains("node agent on node n1"), "{waits}");
    reconciling.await.unwrap().unwrap();
    world.sync(&[]);
    world.expect_no_requests().await;

    world.instance["status"]["filesystem"]["state"] = json!("Removed");
    world.sync(&[]);
    let reconciling = world.reconcile();
    world.observed_uncached().await;
    let patch = world.patched(INSTANCE).await;
    assert_eq!(patch["metadata"]["finalizers"], json!([]));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn finalizers_of_others_stay() {
    let mut world = World::new();
    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.instance["metadata"]["finalizers"] =
        json!(["a/b", "stoppablecontainer.xtlsoft.top/cleanup", "c/d"]);
    world.sync(&[]);
    let reconciling = world.reconcile();
    world.observed_uncached().await;
    let patch = world.patched(INSTANCE).await;
    assert_eq!(patch["metadata"]["finalizers"], json!(["a/b", "c/d"]));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_instance_that_is_gone_already_is_no_failure() {
    let mut world = World::new();
    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
    world.sync(&[]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    reconciling.await.unwrap().unwrap();

    let reconciling = world.reconcile();
    world.observed_uncached().await;
    world
        .api
        .expect("PATCH", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    reconciling.await.unwrap().unwrap();
}

/// The Node object is gone, and with it everything that could be removed.
#[tokio::test]
async fn i11_a_lost_node_does_not_keep_an_object() {
    let mut world = World::prepared();
    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.instance["status"]["providerPodUid"] = Value::Null;
    crate::world::put(&mut world.writers.nodes, &[]);
    world.sync(&[]);
    let node = "/api/v1/nodes/n1";
    // Only this cache does not have the node.
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", node)
        .await
        .answer(&json!({ "metadata": { "name": "n1" } }));
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();

    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", node)
        .await
        .refuse(404, "NotFound", "gone");
    world.observed_uncached().await;
    world
        .api
        .expect("GET", node)
        .await
        .refuse(404, "NotFound", "gone");
    world.patched(INSTANCE).await;
    reconciling.await.unwrap().unwrap();
}

/// The caches say that nothing is left; the API server has a provider that is still there, or data
/// that is.
#[tokio::test]
async fn i17_i11_the_finalizer_is_not_taken_off_on_a_caches_word() {
    let mut world = World::new();
    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
    world.sync(&[]);
    let mut newer = world.instance.clone();
    newer["status"] = World::prepared().instance["status"].clone();
    for (instance, provider) in [
        (newer.clone(), World::provider()),
        (newer, Value::Null),
        (world.instance.clone(), World::provider()),
    ] {
        let reconciling = world.reconcile();
        world.api.expect("GET", INSTANCE).await.answer(&instance);
        let call = world.api.expect("GET", PROVIDER).await;
        if provider.is_null() {
            call.refuse(404, "NotFound", "gone");
        } else {
            call.answer(&provider);
        }
        world
            .api
            .expect("GET", CONSUMER)
            .await
            .refuse(404, "NotFound", "gone");
        world.starts_over(reconciling).await;
    }
}
