//! From nothing to a running consumer, and the same with a crash after each step.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE, INSTANCE_STATUS, PODS, PROVIDER, pod, terminating};
use crate::world::{World, preconditions, reasons};

#[tokio::test]
async fn finalizer_then_placeholder_then_its_uid() {
    let mut world = World::new();
    world.sync(&[]);
    let reconciling = world.reconcile();
    let patch = world.patched(INSTANCE).await;
    assert_eq!(
        patch["metadata"]["finalizers"],
        json!(["stoppablecontainer.xtlsoft.top/cleanup"])
    );
    let create = world.api.expect("POST", PODS).await;
    assert_eq!(create.body["metadata"]["name"], json!("web-placeholder"));
    assert!(
        create
            .query
            .contains("fieldManager=stoppablecontainer-controller")
    );
    create.create("placeholder-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["placeholderPodUid"], json!("placeholder-uid"));
    assert_eq!(status["status"]["neverStarted"], json!(true));
    assert_eq!(status["status"]["phase"], json!("Pending"));
    assert_eq!(status["status"]["observedGeneration"], json!(1));
    assert!(
        status["status"].get("filesystem").is_none(),
        "that is the agent's"
    );
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn consumer_then_its_uid_once_the_filesystem_is_ready() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    let create = world.api.expect("POST", PODS).await;
    assert_eq!(create.body["metadata"]["name"], json!("web"));
    assert_eq!(create.body["metadata"]["labels"]["app"], json!("web"));
    assert_eq!(
        create.body["metadata"]["labels"]["stoppablecontainer.xtlsoft.top/role"],
        json!("consumer")
    );
    assert_eq!(
        create.body["metadata"]["ownerReferences"][0]["uid"],
        json!("instance-uid")
    );
    let mut spec = create.body["spec"].clone();
    spec.as_object_mut().unwrap().remove("tolerations");
    assert_eq!(
        spec.as_object_mut().unwrap().remove("schedulingGates"),
        Some(json!([{ "name": "stoppablecontainer.xtlsoft.top/rewrite" }])),
        "it runs nowhere before the rewrite"
    );
    assert_eq!(
        spec, world.instance["spec"]["template"]["spec"],
        "the rewrite is the webhook's"
    );
    create.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-uid"));
    assert_eq!(status["status"]["phase"], json!("ProviderReady"));
    reconciling.await.unwrap().unwrap();
}

/// The controller died between the creation and the record: the next one finds the pod in its
/// cache, or, when the cache is behind, learns of it from the API server's refusal. It cannot tell
/// it from a forgery, and the agent served neither: the pod goes and another is made. Never two.
#[tokio::test(start_paused = true)]
async fn i16_f13_crash_between_creation_and_record() {
    let consumer = pod("web", "consumer", "consumer-uid");
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], Value::Null);
    let discard = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&discard).0, "consumer-uid");
    discard.answer(&terminating(&consumer));
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider.clone(), terminating(&consumer)]);
    world.expect_no_requests().await;
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-2"));
    reconciling.await.unwrap().unwrap();

    let mut world = World::prepared();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("POST", PODS)
        .await
        .refuse(409, "AlreadyExists", "pods \"web\" already exists");
    world.api.expect("GET", CONSUMER).await.answer(&consumer);
    world.api.expect("GET", INSTANCE).await.answer(&world.instance);
    let discard = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&discard).0, "consumer-uid");
    discard.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], Value::Null);
    assert_eq!(reasons(&status)[3], "Starting");
    assert_ne!(
        reconciling.await.unwrap().unwrap(),
        Action::await_change(),
        "it may be in no watch"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-2"));
    reconciling.await.unwrap().unwrap();
}

/// A tenant put our labels and an owner reference to the instance on another pod: the controller
/// never records it, so the agent never serves it, and it does not count as this object's.
#[tokio::test]
async fn i16_a_pod_by_hand_is_never_provider() {
    let forged = pod("web-provider", "provider", "forged");
    let mut world = World::new();
    world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
    world.sync(std::slice::from_ref(&forged));
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["providerPodUid"], Value::Null);
    assert_eq!(status["status"]["nodeName"], Value::Null);
    let discard = world.api.expect("DELETE", PROVIDER).await;
    assert_eq!(preconditions(&discard).0, "forged");
    discard.answer(&terminating(&forged));
    reconciling.await.unwrap().unwrap();
    world.sync(&[terminating(&forged)]);
    world.expect_no_requests().await;
}

/// The cache of instances is behind the record: the pod looks unrecorded, and is not touched.
#[tokio::test]
async fn i17_i16_a_stale_leader_deletes_no_recorded_pod() {
    let (mut world, provider, consumer) = World::running();
    let newest = world.instance.clone();
    world.instance["status"]["consumerPodUid"] = Value::Null;
    world.instance["metadata"]["resourceVersion"] = json!("0");
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("PATCH", INSTANCE_STATUS)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    world.starts_over(reconciling).await;

    // Where there is nothing to write that would show it, the API server is asked.
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    world
        .api
        .expect("DELETE", CONSUMER)
        .await
        .refuse(409, "Conflict", "another pod by now");
    world.starts_over(reconciling).await;
    let reconciling = world.reconcile();
    world.api.expect("GET", INSTANCE).await.answer(&newest);
    world.starts_over(reconciling).await;
}

/// A cache that still has the pod before does not make the recorded one unknown.
#[tokio::test]
async fn i2_i16_a_cached_pod_that_is_not_the_recorded_one_is_looked_up() {
    let (mut world, provider, consumer) = World::running();
    world.sync(&[provider, pod("web", "consumer", "the-one-before")]);
    let reconciling = world.reconcile();
    world.api.expect("GET", CONSUMER).await.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-uid"));
    reconciling.await.unwrap().unwrap();
}

/// The record of a pod that was just created could not be written: this process knows it all the
/// same.
#[tokio::test]
async fn i16_f13_a_record_that_failed_is_repeated() {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    let created = world.api.expect("POST", PODS).await.create("consumer-uid");
    world
        .api
        .expect("PATCH", INSTANCE_STATUS)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    world.starts_over(reconciling).await;
    world.sync(&[provider, created]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], json!("consumer-uid"));
    reconciling.await.unwrap().unwrap();
}

/// A recorded pod that is not in the cache is asked for before another is made.
#[tokio::test]
async fn i2_a_cache_that_is_behind_makes_no_second_pod() {
    let (mut world, provider, consumer) = World::running();
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("GET", CONSUMER).await.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Running"));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn i12_nothing_is_written_when_nothing_changed() {
    let (mut world, provider, consumer) = World::running();
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status), ["AsRequested"; 4]);
    assert_eq!(world.event("Started").await["type"], json!("Normal"));
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider, consumer]);
    world.expect_no_requests().await;
}

/// The consumer goes on while its provider is lost and comes back to the node of the data.
#[tokio::test]
async fn i1_lost_provider_comes_back_to_its_node() {
    let (mut world, _, consumer) = World::running();
    world.sync(&[consumer]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", PROVIDER)
        .await
        .refuse(404, "NotFound", "pods \"web-provider\" not found");
    let create = world.api.expect("POST", PODS).await;
    let required =
        &create.body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        required["nodeSelectorTerms"][0]["matchFields"][0]["values"],
        json!(["n1"])
    );
    create.create("provider-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["providerPodUid"], json!("provider-2"));
    assert_eq!(status["status"]["phase"], json!("Running"));
    assert_eq!(status["status"]["nodeName"], json!("n1"));
    reconciling.await.unwrap().unwrap();
}

/// A write on what has changed since is refused, and decided anew.
#[tokio::test]
async fn conflict_ends_the_pass_and_does_no_harm() {
    let mut world = World::new();
    world.sync(&[]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("PATCH", INSTANCE)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    let failure = reconciling.await.unwrap().unwrap_err();
    assert!(failure.is_conflict());
    world.api.quiet(Duration::from_millis(20)).await;
}
