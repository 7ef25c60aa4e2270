//! Creation that the API server refuses, and names that belong to others.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE_STATUS, PODS};
use crate::world::{World, preconditions, reasons, retry};

const DOWN: &str =
    "Internal error occurred: failed calling webhook \"inject.example.com\": connection refused";

/// A webhook of the cluster is down: the object says so in the API server's words and with an
/// event, is not Failed, is tried again ever more slowly, and starts when the webhook is back.
#[tokio::test(start_paused = true)]
async fn i10_i12_refused_creation_is_reported_and_tried_again() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("POST", PODS)
        .await
        .refuse(500, "InternalError", DOWN);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    assert_eq!(
        reasons(&status),
        ["CreationRefused", "AsRequested", "AsRequested", "CreationRefused"]
    );
    assert_eq!(status["status"]["conditions"][3]["message"], json!(DOWN));
    let event = world.event("CreationRefused").await;
    assert_eq!(event["note"], json!(DOWN));
    assert_eq!(event["regarding"]["name"], json!("web"));
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        retry(Duration::from_millis(100), "instance-uid", 0)
    );

    // Woken by its own status write: it still waits.
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world.api.quiet(Duration::from_millis(10)).await;
    assert_ne!(reconciling.await.unwrap().unwrap(), Action::await_change());

    let mut waits = Vec::new();
    for _ in 0..12 {
        tokio::time::advance(Duration::from_secs(31)).await;
        let reconciling = world.reconcile();
        world
            .api
            .expect("POST", PODS)
            .await
            .refuse(500, "InternalError", DOWN);
        waits.push(reconciling.await.unwrap().unwrap());
    }
    assert_eq!(waits[0], retry(Duration::from_millis(200), "instance-uid", 1));
    assert_eq!(
        waits[11],
        retry(Duration::from_secs(30), "instance-uid", 12),
        "an outage costs at most this when it is over"
    );

    tokio::time::advance(Duration::from_secs(30)).await;
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "Starting");
    reconciling.await.unwrap().unwrap();
}

/// The user corrects the object: no waiting.
#[tokio::test(start_paused = true)]
async fn an_edit_is_tried_at_once() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    for _ in 0..8 {
        let reconciling = world.reconcile();
        world
            .api
            .expect("POST", PODS)
            .await
            .refuse(422, "Invalid", "spec.containers[0].ports[0]: Invalid");
        if world.instance["status"]["conditions"].is_null() {
            world.patched(INSTANCE_STATUS).await;
        }
        reconciling.await.unwrap().unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
    }
    let reconciling = world.reconcile();
    world
        .api
        .expect("POST", PODS)
        .await
        .refuse(422, "Invalid", "spec.containers[0].ports[0]: Invalid");
    reconciling.await.unwrap().unwrap();
    world.instance["metadata"]["generation"] = json!(2);
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-uid");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
}

/// A pod with our name that is not ours is left alone, and the object says whose it is.
#[tokio::test(start_paused = true)]
async fn name_conflict_touches_nothing() {
    let foreign = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "namespace": "team", "uid": "theirs", "resourceVersion": "9" },
    });
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("POST", PODS)
        .await
        .refuse(409, "AlreadyExists", "pods \"web\" already exists");
    world.api.expect("GET", CONSUMER).await.answer(&foreign);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(
        status["status"]["consumerPodUid"],
        Value::Null,
        "the agent must never serve it"
    );
    assert_eq!(
        reasons(&status),
        ["NameConflict", "AsRequested", "AsRequested", "NameConflict"]
    );
    assert_eq!(world.event("NameConflict").await["type"], json!("Warning"));
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        retry(Duration::from_millis(100), "instance-uid", 0)
    );

    // Until the wait is over the controller does not repeat the request or write anything.
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world.api.quiet(Duration::from_millis(10)).await;
    assert_ne!(
        reconciling.await.unwrap().unwrap(),
        Action::await_change(),
        "the pod is not watched"
    );

    tokio::time::advance(Duration::from_secs(1)).await;
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["phase"],
        json!("ProviderReady"),
        "the name is free again"
    );
    reconciling.await.unwrap().unwrap();
}

/// A pod of ours that lost its labels is found by its name and owner, and gets them back.
#[tokio::test]
async fn a_pod_that_lost_its_labels_is_found_again() {
    let (mut world, provider, mut consumer) = World::running();
    consumer["metadata"].as_object_mut().unwrap().remove("labels");
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("GET", CONSUMER).await.answer(&consumer);
    let patch = world.api.expect("PATCH", CONSUMER).await;
    assert_eq!(patch.body["metadata"]["uid"], json!("consumer-uid"));
    assert_eq!(
        patch.body["metadata"]["labels"]["stoppablecontainer.xtlsoft.top/role"],
        json!("consumer")
    );
    crate::world::merge(&mut consumer, &patch.body);
    patch.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Running"));
    reconciling.await.unwrap().unwrap();
}

/// No webhook of ours saw the consumer (its namespace is left out, the configuration is gone,
/// another webhook took the label away): it waits behind its gate, goes at once, is never recorded,
/// and the object says where to look.
#[tokio::test(start_paused = true)]
async fn i3_a_consumer_that_no_webhook_saw_is_deleted_and_told() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    let create = world.api.expect("POST", PODS).await;
    assert_eq!(
        create.body["spec"]["schedulingGates"],
        json!([{ "name": "stoppablecontainer.xtlsoft.top/rewrite" }])
    );
    let unseen = create.create_unseen("unseen");
    let discard = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&discard).0, "unseen");
    // The API server deletes a pod that is bound to no node at once, and answers with what it was.
    discard.answer(&unseen);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["consumerPodUid"],
        Value::Null,
        "the agent must never serve it"
    );
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    assert_eq!(
        reasons(&status),
        ["NotRewritten", "AsRequested", "AsRequested", "NotRewritten"]
    );
    let message = status["status"]["conditions"][3]["message"].as_str().unwrap();
    assert!(
        message.contains("namespace team") && message.contains("MutatingWebhookConfiguration"),
        "{message}"
    );
    assert_eq!(world.event("NotRewritten").await["type"], json!("Warning"));
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        retry(Duration::from_millis(100), "instance-uid", 0)
    );

    // It is tried again ever more slowly, and starts when the webhook sees it.
    tokio::time::advance(Duration::from_secs(1)).await;
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create_unseen("unseen-2");
    world
        .api
        .expect("DELETE", CONSUMER)
        .await
        .refuse(404, "NotFound", "gone");
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        retry(Duration::from_millis(200), "instance-uid", 1)
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-uid"));
    reconciling.await.unwrap().unwrap();
}

/// The controller died before it could delete such a pod: the next one does not know the pod's UID.
#[tokio::test]
async fn i3_i16_a_consumer_that_no_webhook_saw_is_not_adopted_later() {
    let mut world = World::prepared();
    let mut unseen = crate::objects::pod("web", "consumer", "unseen");
    unseen["spec"]["schedulingGates"] = json!([{ "name": "stoppablecontainer.xtlsoft.top/rewrite" }]);
    world.sync(&[World::provider(), unseen]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    let discard = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&discard).0, "unseen");
    discard.refuse(404, "NotFound", "gone");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
}
