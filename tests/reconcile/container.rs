//! StoppableContainer to instance, and the instance's status back.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::{Value, json};
use testkit::scripted::Call;

use crate::objects::{
    CONTAINER, CONTAINER_STATUS, INSTANCE, INSTANCES, container, deleted, instance, without_owner,
};
use crate::world::{World, merge, preconditions, put, reasons, retry};

pub(crate) fn patch(call: Call, container: &mut Value) -> Value {
    let patch = call.body.clone();
    merge(container, &patch);
    call.answer(container);
    patch
}

/// Expects the fresh reads of a pass over a container that is being deleted: itself first.
pub(crate) async fn fresh(world: &mut World, container: &Value, instance: Option<&Value>) {
    world.api.expect("GET", CONTAINER).await.answer(container);
    let call = world.api.expect("GET", INSTANCE).await;
    match instance {
        Some(instance) => call.answer(instance),
        None => call.refuse(404, "NotFound", "gone"),
    }
}

#[tokio::test]
async fn finalizer_then_instance_then_status() {
    let mut container = container();
    container["metadata"]["finalizers"] = json!([]);
    let mut world = World::new();
    let reconciling = world.reconcile_container(&container);
    let added = patch(world.api.expect("PATCH", CONTAINER).await, &mut container);
    assert_eq!(
        added["metadata"]["finalizers"],
        json!(["stoppablecontainer.xtlsoft.top/cleanup"])
    );
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let create = world.api.expect("POST", INSTANCES).await;
    assert_eq!(create.body["metadata"]["name"], json!("web"));
    assert_eq!(
        create.body["metadata"]["finalizers"],
        json!(["stoppablecontainer.xtlsoft.top/cleanup"])
    );
    assert_eq!(
        create.body["metadata"]["ownerReferences"][0]["uid"],
        json!("container-uid")
    );
    assert_eq!(
        create.body["metadata"]["ownerReferences"][0]["controller"],
        json!(true)
    );
    assert_eq!(create.body["spec"]["stoppableContainerName"], json!("web"));
    assert_eq!(create.body["spec"]["running"], json!(true));
    assert_eq!(
        create.body["spec"]["hostPathPrefix"],
        json!("/var/lib/stoppablecontainer")
    );
    create.create("instance-uid");
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["phase"], json!("Pending"));
    assert_eq!(status["status"]["instanceName"], json!("web"));
    assert_eq!(status["status"]["instanceUid"], json!("instance-uid"));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn i12_the_instances_status_is_shown_as_its_own() {
    let mut container = container();
    let mut world = World::new();
    put(&mut world.writers.instances, &[instance(&container)]);
    let reconciling = world.reconcile_container(&container);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["phase"], json!("Running"));
    assert_eq!(status["status"]["nodeName"], json!("n1"));
    assert_eq!(status["status"]["observedGeneration"], json!(4));
    assert_eq!(
        status["status"]["conditions"][0]["observedGeneration"],
        json!(4),
        "of this object, not of the other"
    );
    reconciling.await.unwrap().unwrap();
    let reconciling = world.reconcile_container(&container);
    world.api.quiet(Duration::from_millis(50)).await;
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn usage_is_shown_and_taken_back() {
    let mut container = container();
    container["status"] = json!({ "filesystem": { "usage": { "bytes": 1, "inodes": 1 } } });
    let mut world = World::new();
    let mut inner = instance(&container);
    inner["status"]["filesystem"] =
        json!({ "state": "Ready", "nodeName": "n1", "usage": { "bytes": 4096, "inodes": 3 } });
    put(&mut world.writers.instances, std::slice::from_ref(&inner));
    let reconciling = world.reconcile_container(&container);
    patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(
        container["status"]["filesystem"],
        json!({ "usage": { "bytes": 4096, "inodes": 3 } })
    );
    reconciling.await.unwrap().unwrap();
    inner["status"]["filesystem"] = json!({ "state": "Ready", "nodeName": "n1" });
    put(&mut world.writers.instances, &[inner]);
    let reconciling = world.reconcile_container(&container);
    patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(container["status"]["filesystem"]["usage"], Value::Null);
    reconciling.await.unwrap().unwrap();
}

/// The user's decision is passed on while the instance asks for it, once; what a tool keeps in the
/// annotation is not.
#[tokio::test]
async fn i1_a_decision_is_passed_on_only_while_it_is_asked_for() {
    let mut container = container();
    container["metadata"]["annotations"] =
        json!({ "stoppablecontainer.xtlsoft.top/recovery": "reset-0123456789abcdef" });
    let mut world = World::new();
    let mut asking = instance(&container);
    asking["status"]["filesystem"] = json!({
        "state": "Failed", "nodeName": "n1", "recovery": { "id": "0123456789abcdef", "verbs": ["accept", "reset"] },
    });
    for other in [
        json!({ "id": "ffffffffffffffff", "verbs": ["accept", "reset"] }),
        json!({ "id": "0123456789abcdef", "verbs": ["accept"] }),
        Value::Null,
    ] {
        let mut other_failure = asking.clone();
        other_failure["status"]["filesystem"]["recovery"] = other;
        put(&mut world.writers.instances, &[other_failure]);
        let reconciling = world.reconcile_container(&container);
        if container["status"].is_null() {
            patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
        }
        world.api.quiet(Duration::from_millis(50)).await;
        reconciling.await.unwrap().unwrap();
    }

    put(&mut world.writers.instances, std::slice::from_ref(&asking));
    let reconciling = world.reconcile_container(&container);
    let call = world.api.expect("PATCH", INSTANCE).await;
    assert_eq!(
        call.body["metadata"],
        json!({
            "uid": "instance-uid",
            "annotations": { "stoppablecontainer.xtlsoft.top/recovery": "reset-0123456789abcdef" },
        })
    );
    patch(call, &mut asking);
    reconciling.await.unwrap().unwrap();

    put(&mut world.writers.instances, &[asking]);
    let reconciling = world.reconcile_container(&container);
    world.api.quiet(Duration::from_millis(50)).await;
    reconciling.await.unwrap().unwrap();
}

/// `kubectl wait` must not take the old state for the answer to the new wish.
#[tokio::test]
async fn i12_a_new_wish_is_not_reported_as_fulfilled_before_it_is() {
    let mut container = container();
    let mut world = World::new();
    let before = instance(&container);
    put(&mut world.writers.instances, std::slice::from_ref(&before));
    container["spec"]["running"] = json!(false);
    container["metadata"]["generation"] = json!(5);
    container["status"] = json!({ "observedGeneration": 4 });
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let update = world.api.expect("PATCH", INSTANCE).await;
    assert_eq!(
        update.body[0],
        json!({ "op": "test", "path": "/metadata/uid", "value": "instance-uid" })
    );
    assert_eq!(
        update.body[1],
        json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": "5" })
    );
    assert_eq!(update.body[2]["path"], json!("/spec"));
    assert_eq!(update.body[2]["value"]["running"], json!(false));
    let mut after = before.clone();
    after["spec"] = update.body[2]["value"].clone();
    after["metadata"]["generation"] = json!(3);
    update.answer(&after);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["observedGeneration"], json!(4));
    assert_eq!(status["status"]["conditions"][0]["observedGeneration"], json!(4));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn name_conflict_with_the_instance_of_another_owner() {
    let mut container = container();
    let foreign = without_owner(&instance(&container));
    let mut world = World::new();
    put(&mut world.writers.instances, std::slice::from_ref(&foreign));
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", INSTANCE).await.answer(&foreign);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(reasons(&status), ["NameConflict"]);
    let event = world.event("NameConflict").await;
    assert_eq!(event["type"], json!("Warning"));
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn i11_deletion_takes_the_instance_along_and_waits_for_it() {
    let mut container = deleted(container());
    let instance = instance(&container);
    let mut world = World::new();
    put(&mut world.writers.instances, std::slice::from_ref(&instance));
    let reconciling = world.reconcile_container(&container);
    fresh(&mut world, &container, Some(&instance)).await;
    let delete = world.api.expect("DELETE", INSTANCE).await;
    assert_eq!(preconditions(&delete), ("instance-uid", "5"));
    let going = deleted(instance);
    delete.answer(&going);
    patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    reconciling.await.unwrap().unwrap();

    put(&mut world.writers.instances, std::slice::from_ref(&going));
    let reconciling = world.reconcile_container(&container);
    fresh(&mut world, &container, Some(&going)).await;
    world.api.quiet(Duration::from_millis(50)).await;
    reconciling.await.unwrap().unwrap();

    put(&mut world.writers.instances, &[]);
    let reconciling = world.reconcile_container(&container);
    fresh(&mut world, &container, None).await;
    let released = patch(world.api.expect("PATCH", CONTAINER).await, &mut container);
    assert_eq!(released["metadata"]["finalizers"], json!([]));
    reconciling.await.unwrap().unwrap();

    let reconciling = world.reconcile_container(&container);
    world
        .api
        .expect("GET", CONTAINER)
        .await
        .refuse(404, "NotFound", "gone");
    reconciling.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_instance_is_reported_and_tried_again() {
    let mut container = container();
    let mut world = World::new();
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    world
        .api
        .expect("POST", INSTANCES)
        .await
        .refuse(403, "Forbidden", "exceeded quota");
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(reasons(&status), ["CreationRefused"]);
    assert_eq!(
        status["status"]["conditions"][0]["message"],
        json!("exceeded quota")
    );
    let next = reconciling.await.unwrap().unwrap();
    assert_eq!(next, retry(Duration::from_millis(100), "container-uid", 0));
}

/// Story: the leader died between the creation of an instance and the next event, and its
/// successor's cache lags behind. The reconciliation of the successor counted as failed, and the
/// next one waited.
#[tokio::test(start_paused = true)]
async fn an_instance_that_exists_already_is_no_failure() {
    let mut container = container();
    let mut world = World::new();
    let instance = json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "name": "web", "uid": "container-uid", "controller": true,
    }] } });
    merge(&mut world.instance, &instance);
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let call = world.api.expect("POST", INSTANCES).await;
    call.refuse(409, "AlreadyExists", "\"web\" already exists");
    world.api.expect("GET", INSTANCE).await.answer(&world.instance);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["instanceUid"], json!("instance-uid"));
    assert_eq!(
        reconciling.await.unwrap().unwrap(),
        kube::runtime::controller::Action::await_change(),
        "the watch brings the instance"
    );
}

/// The instance's reconciler has published it about this object already.
#[tokio::test]
async fn i12_what_the_instance_shows_is_no_event_of_the_container() {
    let mut container = container();
    let mut blocked = instance(&container);
    blocked["status"]["conditions"] = json!(["Ready", "ConsumerReady"].map(|kind| json!({
        "type": kind, "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
    })));
    let mut world = World::new();
    put(&mut world.writers.instances, &[blocked]);
    let reconciling = world.reconcile_container(&container);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(reasons(&status), ["Unschedulable"; 2]);
    reconciling.await.unwrap().unwrap();
    assert!(world.told().is_empty());
}

/// What the user asked for is shown when it is there; the way to it only if it takes long.
#[tokio::test(start_paused = true)]
async fn i18_the_way_to_the_next_state_is_shown_after_a_second() {
    let condition = |status: &str, reason: &str| {
        json!([{
            "type": "Ready", "status": status, "reason": reason, "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }])
    };
    let mut container = container();
    let mut world = World::new();
    let mut inner = instance(&container);
    inner["metadata"]["generation"] = json!(2);
    inner["status"] = json!({ "phase": "ProviderReady", "observedGeneration": 2, "conditions": condition("False", "Starting") });
    put(&mut world.writers.instances, std::slice::from_ref(&inner));
    container["metadata"]["generation"] = json!(2);
    container["status"] = json!({
        "phase": "Stopped", "observedGeneration": 1, "conditions": condition("True", "Stopped"),
        "instanceName": "web", "instanceUid": inner["metadata"]["uid"],
    });
    let held = world.reconcile_container(&container);
    let again = held.await.unwrap().unwrap();
    assert_eq!(
        again,
        Action::requeue(Duration::from_secs(1)),
        "nothing is written"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    let late = world.reconcile_container(&container);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["observedGeneration"], json!(2));
    assert_eq!(status["status"]["conditions"][0]["reason"], json!("Starting"));
    late.await.unwrap().unwrap();

    container["metadata"]["resourceVersion"] = json!("101");
    inner["status"]["conditions"][0]["message"] = json!("a step further");
    put(&mut world.writers.instances, std::slice::from_ref(&inner));
    let held = world.reconcile_container(&container);
    let again = held.await.unwrap().unwrap();
    assert_eq!(
        again,
        Action::requeue(Duration::from_secs(1)),
        "one step in a second is enough"
    );
    inner["status"]["phase"] = json!("Running");
    inner["status"]["conditions"] = condition("True", "AsRequested");
    put(&mut world.writers.instances, std::slice::from_ref(&inner));
    let there = world.reconcile_container(&container);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["phase"], json!("Running"), "without a wait");
    there.await.unwrap().unwrap();
}

/// Without the UID, the end of the instance would not be seen as a loss.
#[tokio::test(start_paused = true)]
async fn i1_the_uid_of_the_instance_is_recorded_at_once() {
    let mut container = container();
    let mut world = World::new();
    let mut inner = instance(&container);
    let condition = json!([{
        "type": "Ready", "status": "False", "reason": "Starting", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    inner["status"] = json!({ "phase": "Pending", "observedGeneration": 1, "conditions": condition });
    put(&mut world.writers.instances, std::slice::from_ref(&inner));
    container["status"] = json!({ "phase": "Pending", "observedGeneration": 1, "conditions": condition });
    let shown = world.reconcile_container(&container);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["instanceUid"], inner["metadata"]["uid"]);
    shown.await.unwrap().unwrap();
}

/// An obstacle, and a change that the user did not ask for, are shown at once.
#[tokio::test(start_paused = true)]
async fn i12_an_obstacle_on_the_way_is_shown_at_once() {
    for (observed, reason) in [(1, "FilesystemLost"), (2, "Starting")] {
        let mut container = container();
        let mut world = World::new();
        let mut inner = instance(&container);
        inner["metadata"]["generation"] = json!(2);
        let condition = |status: &str, reason: &str| {
            json!([{
                "type": "Ready", "status": status, "reason": reason, "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }])
        };
        inner["status"] =
            json!({ "phase": "Pending", "observedGeneration": 2, "conditions": condition("False", reason) });
        put(&mut world.writers.instances, std::slice::from_ref(&inner));
        container["metadata"]["generation"] = json!(2);
        container["status"] = json!({
            "phase": "Running", "observedGeneration": observed, "conditions": condition("True", "AsRequested"),
            "instanceName": "web", "instanceUid": inner["metadata"]["uid"],
        });
        let shown = world.reconcile_container(&container);
        let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
        assert_eq!(status["status"]["conditions"][0]["reason"], json!(reason));
        shown.await.unwrap().unwrap();
    }
}
