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
    let status = world.patched(INSTANCE_STATUS).await;
    let delete = world.api.expect("DELETE", CONSUMER).await;
    assert_eq!(preconditions(&delete), ("consumer-uid", "50"));
    assert!(
        delete.body.get("gracePeriodSeconds").is_none(),
        "the grace period is the user's"
    );
    delete.answer(&terminating(&consumer));
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
    assert_eq!(world.event("Stopped").await["type"], json!("Normal"));
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
    assert_eq!(world.event("OutOfcpu").await["type"], json!("Warning"));
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
    assert_eq!(world.event("Evicted").await["type"], json!("Warning"));
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

/// What conditions, steps and events cost: no write of the status more than the pods' changes need,
/// and one event for each step, about the object that the user made.
#[tokio::test]
async fn i18_i12_a_stop_and_a_start_cost_as_many_writes_as_their_steps() {
    let (mut world, provider, consumer) = World::running();
    world.instance["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "name": "web", "uid": "container-uid", "controller": true,
    }]);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    world.told();

    stop(&mut world);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let asked = world.patched(INSTANCE_STATUS).await;
    assert_eq!(asked["status"]["lastStop"]["reason"], "Stopped");
    let delete = world.api.expect("DELETE", CONSUMER).await;
    delete.answer(&terminating(&consumer));
    // The status said so before.
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider.clone(), terminating(&consumer)]);
    world.expect_no_requests().await;
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    let gone = world.api.expect("GET", CONSUMER).await;
    gone.refuse(404, "NotFound", "pods \"web\" not found");
    let stopped = world.patched(INSTANCE_STATUS).await;
    assert!(stopped["status"]["lastStop"]["consumerGoneAt"].is_string());
    reconciling.await.unwrap().unwrap();
    let about = |reason: &str| ("StoppableContainer".to_owned(), reason.to_owned());
    assert_eq!(world.told(), ["Stopping", "Stopped"].map(about));

    world.instance["spec"]["running"] = json!(true);
    world.instance["metadata"]["generation"] = json!(3);
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    let mut consumer = world.api.expect("POST", PODS).await.create("consumer-2");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    consumer["spec"]["nodeName"] = json!("n1");
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z" });
    for conditions in [
        json!([]),
        json!([condition("PodScheduled", "True")]),
        json!([condition("PodScheduled", "True"), condition("Ready", "False")]),
    ] {
        consumer["status"] = json!({ "phase": "Pending", "conditions": conditions });
        world.sync(&[provider.clone(), consumer.clone()]);
        world.expect_no_requests().await;
    }
    consumer["status"] = json!({
        "phase": "Running", "conditions": [condition("PodScheduled", "True"), condition("Ready", "True")],
    });
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    let running = world.patched(INSTANCE_STATUS).await;
    for step in ["requestedAt", "scheduledAt", "consumerCreatedAt", "readyAt"] {
        assert!(running["status"]["lastStart"][step].is_string(), "{step}");
    }
    reconciling.await.unwrap().unwrap();
    assert_eq!(world.told(), ["Started"].map(about));
}

/// Story: the status showed that the data is lost, and then the deletion of the consumer was
/// refused because the kubelet had just written to the pod. The next pass found the status as it
/// should be, so there was no event.
#[tokio::test]
async fn i12_what_a_status_shows_is_an_event_although_the_next_step_fails() {
    let (mut world, provider, consumer) = World::running();
    let filesystem = &mut world.instance["status"]["filesystem"];
    filesystem["state"] = json!("Failed");
    filesystem["reason"] = json!("FilesystemLost");
    filesystem["message"] = json!("the data is not there");
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[2], "FilesystemLost");
    let delete = world.api.expect("DELETE", CONSUMER).await;
    delete.refuse(409, "Conflict", "the pod has been modified");
    world.starts_over(reconciling).await;
    assert_eq!(world.event("FilesystemLost").await["type"], json!("Warning"));
    assert_eq!(world.told(), [], "once");
}

/// An eviction has one event, with its reason.
#[tokio::test]
async fn i12_an_eviction_is_an_event() {
    let (mut world, provider, consumer) = World::running();
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    world.told();
    let mut evicted = terminating(&consumer);
    evicted["status"]["conditions"].as_array_mut().unwrap().push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    }));
    world.sync(&[provider, evicted]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["lastStop"]["reason"], "EvictionByEvictionAPI");
    let event = world.event("Evicted").await;
    assert_eq!(event["type"], "Warning");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("(EvictionByEvictionAPI: Eviction API: evicting)"),
        "{note}"
    );
    reconciling.await.unwrap().unwrap();
    assert!(world.told().is_empty());
}

/// The kubelet starts a container again, and again: one event each time, with the exit code.
#[tokio::test]
async fn i12_each_restart_of_the_container_is_an_event_with_its_exit_code() {
    let (mut world, provider, mut consumer) = World::running();
    let ended = |code: i32| json!({ "terminated": { "exitCode": code, "reason": "Error" } });
    let container = |count: i32, state: &Value, last: &Value| {
        json!([{
            "name": "main", "ready": true, "restartCount": count, "image": "", "imageID": "",
            "state": state, "lastState": last,
        }])
    };
    let running = json!({ "running": {} });
    consumer["status"]["containerStatuses"] = container(0, &running, &json!({}));
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    world.told();
    for (count, code) in [(1, 3), (2, 4)] {
        // The controller need not see that it was down.
        consumer["status"]["containerStatuses"] = container(count, &running, &ended(code));
        world.sync(&[provider.clone(), consumer.clone()]);
        for _ in 0..2 {
            let reconciling = world.reconcile();
            world.api.quiet(std::time::Duration::from_millis(20)).await;
            reconciling.await.unwrap().unwrap();
        }
        let told: Vec<_> = world.told().into_iter().map(|(_, reason)| reason).collect();
        assert_eq!(told, ["Restarted"], "restart {count}");
    }
}
