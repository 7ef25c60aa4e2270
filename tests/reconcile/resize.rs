//! CPU and memory of a consumer that runs: one request to the API server for each edit.

use serde_json::{Value, json};

use crate::objects::{CONSUMER, INSTANCE_STATUS, PODS};
use crate::world::{World, merge};

/// The path of the consumer's subresource.
const RESIZE: &str = "/api/v1/namespaces/team/pods/web/resize";
const FIELDS: &str = "stoppablecontainer.xtlsoft.top/template-fields";

/// A provider, and a consumer that the controller created and that runs. Then the limit is edited.
async fn edited() -> (World, Value, Value) {
    let mut world = World::prepared();
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    let reconciling = world.reconcile();
    let mut consumer = world.api.expect("POST", PODS).await.create("consumer-1");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    consumer["spec"]["nodeName"] = json!("n1");
    consumer["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    let containers = &mut world.instance["spec"]["template"]["spec"]["containers"];
    containers[0]["resources"] = json!({ "limits": { "cpu": "2" } });
    world.instance["metadata"]["generation"] = json!(9);
    world.check(None);
    world.sync(&[provider.clone(), consumer.clone()]);
    (world, provider, consumer)
}

#[tokio::test]
async fn an_edit_changes_the_pod_once() {
    let (mut world, provider, mut consumer) = edited().await;
    let reconciling = world.reconcile();
    let call = world.api.expect("PATCH", RESIZE).await;
    assert_eq!(
        call.body,
        json!({
            "metadata": { "uid": "consumer-1" },
            "spec": { "containers": [{ "name": "main", "resources": {
                "limits": { "cpu": "2" }, "requests": { "cpu": "2" },
            } }] },
        })
    );
    call.answer(&consumer);
    let call = world.api.expect("PATCH", CONSUMER).await;
    assert_eq!(call.body["metadata"]["uid"], "consumer-1");
    assert!(call.body["metadata"]["annotations"][FIELDS].is_string());
    merge(&mut consumer, &call.body);
    call.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["observedGeneration"], 9);
    assert!(!status.to_string().contains("RestartRequired"), "{status}");
    reconciling.await.unwrap().unwrap();
    world.event("Resized").await;
    world.sync(&[provider, consumer]);
    world.expect_no_requests().await;
}

/// The API server would refuse it again, so it is asked once; the user has the reason.
#[tokio::test]
async fn i12_a_refusal_is_in_the_condition_and_not_repeated() {
    let (mut world, provider, consumer) = edited().await;
    let reconciling = world.reconcile();
    let call = world.api.expect("PATCH", RESIZE).await;
    call.refuse(403, "Forbidden", "exceeded quota: team");
    let status = world.patched(INSTANCE_STATUS).await;
    let conditions = status["status"]["conditions"].as_array().unwrap();
    let required = conditions
        .iter()
        .find(|condition| condition["type"] == "RestartRequired");
    let message = required.unwrap()["message"].as_str().unwrap();
    assert!(
        message.contains("containers[0].resources.limits.cpu"),
        "{message}"
    );
    assert!(
        message.contains("not changed while it runs: exceeded quota: team"),
        "{message}"
    );
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider, consumer]);
    world.expect_no_requests().await;
}

/// An outage is not a refusal.
#[tokio::test]
async fn a_failure_is_an_error_that_is_repeated() {
    let (mut world, ..) = edited().await;
    let reconciling = world.reconcile();
    let call = world.api.expect("PATCH", RESIZE).await;
    call.refuse(500, "InternalError", "no");
    reconciling.await.unwrap().unwrap_err();
    let _again = world.reconcile();
    world.api.expect("PATCH", RESIZE).await;
}
