//! A reset on request: the instance goes with its files, and another one takes its place.

use std::time::Duration;

use serde_json::{Value, json};

use crate::container::patch;
use crate::objects::{CONTAINER, CONTAINER_STATUS, INSTANCE, INSTANCES, container, deleted, instance};
use crate::world::{World, preconditions, put, reasons};

const RECOVERY: &str = "stoppablecontainer.xtlsoft.top/recovery";
const UID: &str = "0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c";

/// A running container with this answer, and its instance.
fn asked(answer: &str) -> (Value, Value) {
    let mut container = container();
    container["metadata"]["annotations"] = json!({ RECOVERY: answer });
    let mut instance = instance(&container);
    instance["metadata"]["uid"] = json!(UID);
    instance["status"]["filesystem"] = json!({ "state": "Ready", "nodeName": "n1" });
    container["status"] = json!({ "instanceUid": UID, "instanceName": "web", "phase": "Running" });
    (container, instance)
}

/// Though nothing is wrong with the files. That the answer is removed meanwhile does not matter.
#[tokio::test]
async fn i1_the_user_may_begin_with_an_empty_filesystem_at_any_time() {
    let (mut container, instance) = asked(&format!("reset-{UID}"));
    let mut world = World::new();
    put(&mut world.writers.instances, std::slice::from_ref(&instance));
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let noted = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(noted["status"], json!({ "resetInstanceUid": UID }));
    assert_eq!(
        noted["metadata"]["resourceVersion"], "1",
        "written on what was read"
    );
    let delete = world.api.expect("DELETE", INSTANCE).await;
    assert_eq!(preconditions(&delete), (UID, "5"));
    let mut going = deleted(instance);
    going["status"]["conditions"] = json!([{
        "type": "FilesystemReady", "status": "False", "reason": "Deleting", "message": "waiting for the node agent",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    delete.answer(&going);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(reasons(&status), ["Resetting"]);
    let message = status["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.ends_with("empty filesystem: waiting for the node agent"),
        "{message}"
    );
    assert_eq!(status["status"]["phase"], "Pending");
    reconciling.await.unwrap().unwrap();
    let kind = "StoppableContainer".to_owned();
    assert_eq!(world.told(), [(kind, "Resetting".to_owned())]);

    put(&mut world.writers.instances, &[going]);
    let reconciling = world.reconcile_container(&container);
    world.api.quiet(Duration::from_millis(20)).await;
    reconciling.await.unwrap().unwrap();

    container["metadata"]["annotations"] = json!({});
    put(&mut world.writers.instances, &[]);
    let reconciling = world.reconcile_container(&container);
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let created = world.api.expect("POST", INSTANCES).await;
    assert_eq!(created.body["spec"]["running"], true);
    created.create("another-uid");
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["instanceUid"], "another-uid");
    reconciling.await.unwrap().unwrap();
}

/// An answer that a tool applies again, or that names another instance, deletes nothing.
#[tokio::test]
async fn i1_an_answer_for_another_instance_resets_nothing() {
    for answer in [
        "reset-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4d",
        "accept-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c",
        "reset-0b6e9f3c",
        "reset",
    ] {
        let (mut container, instance) = asked(answer);
        let mut world = World::new();
        put(&mut world.writers.instances, std::slice::from_ref(&instance));
        let reconciling = world.reconcile_container(&container);
        let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
        assert_eq!(status["status"]["phase"], "Running", "{answer}");
        reconciling.await.unwrap().unwrap();
    }
}

/// The cache still has an answer that its user has taken back.
#[tokio::test]
async fn i17_an_answer_that_was_taken_back_resets_nothing() {
    let (container, instance) = asked(&format!("reset-{UID}"));
    let mut world = World::new();
    put(&mut world.writers.instances, &[instance]);
    let reconciling = world.reconcile_container(&container);
    let mut newest = container.clone();
    newest["metadata"]["annotations"] = json!({});
    world.api.expect("GET", CONTAINER).await.answer(&newest);
    world.starts_over(reconciling).await;
}
