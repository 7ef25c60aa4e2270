//! A restart on request: the consumer is stopped and started once, whatever ends in between.

use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE, INSTANCE_STATUS, PODS, terminating};
use crate::world::{World, merge, preconditions, reasons};

const RESTARTED_AT: &str = "stoppablecontainer.xtlsoft.top/restartedAt";

/// Changes the template's request, as the StoppableContainer's reconciler passes it on.
fn request(world: &mut World, at: &Value) {
    let annotations = json!({ "metadata": { "annotations": { RESTARTED_AT: at } } });
    merge(&mut world.instance["spec"]["template"], &annotations);
    let generation = world.instance["metadata"]["generation"].as_i64().unwrap() + 1;
    world.instance["metadata"]["generation"] = json!(generation);
}

/// A provider, and a consumer that the controller created and that runs.
async fn running() -> (World, Value, Value) {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let consumer = start(&mut world, &provider, "consumer-1").await;
    (world, provider, consumer)
}

/// Expects the creation of a consumer, and lets it run.
async fn start(world: &mut World, provider: &Value, uid: &str) -> Value {
    let reconciling = world.reconcile();
    let mut consumer = world.api.expect("POST", PODS).await.create(uid);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["placement"],
        Value::Null,
        "without the scheduler, as any start"
    );
    reconciling.await.unwrap().unwrap();
    consumer["spec"]["nodeName"] = json!("n1");
    consumer["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider.clone(), consumer.clone()]);
    world.expect_no_requests().await;
    consumer
}

#[tokio::test]
async fn i14_a_request_restarts_the_consumer_once() {
    let (mut world, provider, consumer) = running().await;
    world.told();
    request(&mut world, &json!("2026-01-01T00:00:00Z"));
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["lastStop"]["reason"], "Restarted");
    let delete = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&delete).0, "consumer-1");
    assert!(
        delete.body.get("gracePeriodSeconds").is_none(),
        "the grace period is the user's"
    );
    delete.answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[3], "Stopping");
    assert_eq!(
        status["status"]["conditions"][3]["message"],
        "pod web is terminating; it is restarted as requested"
    );
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider.clone(), terminating(&consumer)]);
    world.expect_no_requests().await;

    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", CONSUMER)
        .await
        .refuse(404, "NotFound", "gone");
    let create = world.api.expect("POST", PODS).await;
    assert_eq!(
        create.body["metadata"]["annotations"][RESTARTED_AT],
        "2026-01-01T00:00:00Z"
    );
    let mut successor = create.create("consumer-2");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["placement"], Value::Null, "as after a stop");
    assert!(status["status"]["lastStop"]["consumerGoneAt"].is_string());
    reconciling.await.unwrap().unwrap();
    successor["spec"]["nodeName"] = json!("n1");
    successor["status"] =
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    world.sync(&[provider.clone(), successor.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["conditions"].as_array().unwrap().len(),
        6,
        "nothing requires a restart"
    );
    reconciling.await.unwrap().unwrap();
    let told: Vec<_> = world.told().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(told, ["Stopping", "Started"]);

    // A tool takes the annotation out again, and puts the same one in.
    for same in [Value::Null, json!("2026-01-01T00:00:00Z")] {
        request(&mut world, &same);
        world.sync(&[provider.clone(), successor.clone()]);
        let reconciling = world.reconcile();
        let status = world.patched(INSTANCE_STATUS).await;
        assert_eq!(
            status["status"]["conditions"].as_array().unwrap().len(),
            6,
            "{same}"
        );
        reconciling.await.unwrap().unwrap();
    }
}

/// The controller dies after each of its requests. Its successor knows only what the API has.
#[tokio::test]
async fn f13_a_restart_is_neither_lost_nor_made_twice_by_a_crash() {
    for calls in 0..4 {
        let (mut world, provider, consumer) = running().await;
        request(&mut world, &json!("1"));
        world.sync(&[provider.clone(), consumer.clone()]);
        let reconciling = world.reconcile();
        let mut leaving = false;
        // Status, deletion, status; and none of them.
        for call in 0..calls {
            if call == 1 {
                let delete = world.api.expect("DELETE", CONSUMER).await;
                delete.answer(&terminating(&consumer));
                leaving = true;
            } else {
                world.patched(INSTANCE_STATUS).await;
            }
        }
        reconciling.abort();
        let _ = reconciling.await;
        if !leaving {
            world = successor_of(world);
            world.sync(&[provider.clone(), consumer.clone()]);
            let reconciling = world.reconcile();
            let mut call = world.api.expect_any("status, or a look at the instance").await;
            while call.method != "DELETE" {
                if call.method == "GET" {
                    assert_eq!(call.path, INSTANCE);
                    call.answer(&world.instance);
                } else {
                    world.answer_patch(call);
                }
                call = world.api.expect_any("the deletion").await;
            }
            assert_eq!(preconditions(&call).0, "consumer-1");
            call.answer(&terminating(&consumer));
            world.patched(INSTANCE_STATUS).await;
            reconciling.await.unwrap().unwrap();
        }
        world = successor_of(world);
        world.sync(std::slice::from_ref(&provider));
        let reconciling = world.reconcile();
        world
            .api
            .expect("GET", CONSUMER)
            .await
            .refuse(404, "NotFound", "gone");
        let mut next = world.api.expect("POST", PODS).await.create("consumer-2");
        world.patched(INSTANCE_STATUS).await;
        reconciling.await.unwrap().unwrap();
        next["spec"]["nodeName"] = json!("n1");
        next["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        world = successor_of(world);
        world.sync(&[provider.clone(), next.clone()]);
        let reconciling = world.reconcile();
        world.patched(INSTANCE_STATUS).await;
        reconciling.await.unwrap().unwrap();
        world.sync(&[provider, next]);
        world.expect_no_requests().await;
    }
}

/// Another controller process, with the same objects.
fn successor_of(world: World) -> World {
    let mut successor = World::new();
    successor.continue_with(world);
    successor
}

/// The request came with the object: there is nothing to restart.
#[tokio::test]
async fn a_request_that_the_object_is_created_with_restarts_nothing() {
    let mut world = World::prepared();
    request(&mut world, &json!("1"));
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    start(&mut world, &provider, "consumer-1").await;
}

/// A leader that is behind does not restart for a request that was taken back by a stop.
#[tokio::test]
async fn i17_a_stale_request_restarts_nothing() {
    let (mut world, provider, consumer) = running().await;
    request(&mut world, &json!("1"));
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("PATCH", INSTANCE_STATUS)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    world.starts_over(reconciling).await;
}
