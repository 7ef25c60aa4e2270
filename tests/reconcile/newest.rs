//! Parents and instances where a cache, a leader or the garbage collector is behind or ahead: the
//! controller carries out only the newest wish, and does not delete or forget data for an older
//! one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::container::{fresh, patch};
use crate::objects::{
    CONTAINER, CONTAINER_STATUS, INSTANCE, INSTANCE_STATUS, INSTANCES, PODS, container, deleted, instance,
    without_owner,
};
use crate::world::{World, merge, put, reasons};

const LABEL: &str = "stoppablecontainer.xtlsoft.top/managed-by";

/// The user has stopped it since; the leader whose cache does not know writes the newest wish, not
/// its own.
#[tokio::test]
async fn i17_a_cache_that_is_behind_does_not_undo_the_user() {
    let seen = container();
    let mut world = World::new();
    let mut before = instance(&seen);
    before["spec"]["template"]["metadata"]["labels"]["app"] = json!("old");
    put(&mut world.writers.instances, std::slice::from_ref(&before));
    let mut newest = seen.clone();
    newest["spec"]["running"] = json!(false);
    newest["metadata"]["generation"] = json!(5);
    let reconciling = world.reconcile_container(&seen);
    world.api.expect("GET", CONTAINER).await.answer(&newest);
    let update = world.api.expect("PATCH", INSTANCE).await;
    assert_eq!(update.body[2]["value"]["running"], json!(false));
    // The instance was written to since it was read: by whom the newest wish may be.
    update.refuse(409, "Conflict", "the object has been modified");
    world.starts_over(reconciling).await;
}

/// An object that was deleted, or deleted and made again, since it was seen gets no instance of the
/// old one.
#[tokio::test]
async fn i17_what_is_deleted_meanwhile_is_not_written_for() {
    let seen = container();
    let mut successor = seen.clone();
    successor["metadata"]["uid"] = json!("another");
    for newest in [deleted(seen.clone()), successor] {
        let mut world = World::new();
        let reconciling = world.reconcile_container(&seen);
        world.api.expect("GET", CONTAINER).await.answer(&newest);
        world.starts_over(reconciling).await;
    }
}

/// `kubectl delete --cascade=orphan` keeps the instance and the data: the garbage collector cuts
/// the instance loose and then takes its finalizer off. Events of both arrive in any order.
#[tokio::test]
async fn i17_orphaning_keeps_the_instance_whatever_the_caches_say() {
    let cleanup = "stoppablecontainer.xtlsoft.top/cleanup";
    let mut begun = deleted(container());
    begun["metadata"]["finalizers"] = json!([cleanup, "orphan"]);
    let mut done = deleted(container());
    let owned = instance(&done);
    let loose = without_owner(&owned);

    // The garbage collector is not yet done with it.
    let mut world = World::new();
    for cached in [&owned, &loose] {
        put(&mut world.writers.instances, std::slice::from_ref(cached));
        let reconciling = world.reconcile_container(&begun);
        fresh(&mut world, &begun, Some(&owned)).await;
        if begun["status"].is_null() {
            patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut begun);
        }
        world.api.quiet(Duration::from_millis(20)).await;
        reconciling.await.unwrap().unwrap();
    }

    // It is through; this cache still shows the owner.
    put(&mut world.writers.instances, std::slice::from_ref(&owned));
    let reconciling = world.reconcile_container(&done);
    fresh(&mut world, &done, Some(&loose)).await;
    let released = patch(world.api.expect("PATCH", CONTAINER).await, &mut done);
    assert_eq!(released["metadata"]["finalizers"], json!([]));
    reconciling.await.unwrap().unwrap();
}

/// The cache has no instance (any more); the API server has.
#[tokio::test]
async fn i17_i11_the_finalizer_is_not_taken_off_on_a_caches_word() {
    let container = deleted(container());
    let instance = instance(&container);
    let mut world = World::new();
    let reconciling = world.reconcile_container(&container);
    fresh(&mut world, &container, Some(&instance)).await;
    world
        .api
        .expect("DELETE", INSTANCE)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    world.starts_over(reconciling).await;
}

/// The instance that an orphan deletion left belongs to the next object of its name, with its data.
#[tokio::test]
async fn i17_an_orphan_is_taken_over_with_its_data() {
    let mut container = container();
    container["metadata"]["uid"] = json!("new-container");
    container["spec"]["running"] = json!(false);
    let mut left = without_owner(&instance(&container));
    left["metadata"]["labels"] = json!({ LABEL: "stoppablecontainer" });
    left["spec"]["running"] = json!(true);
    let mut world = World::new();
    put(&mut world.writers.instances, std::slice::from_ref(&left));
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", INSTANCE).await.answer(&left);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let adopt = world.api.expect("PATCH", INSTANCE).await;
    let operations: Vec<_> = adopt
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["path"].clone())
        .collect();
    assert_eq!(
        operations,
        [
            "/metadata/uid",
            "/metadata/resourceVersion",
            "/spec",
            "/metadata/ownerReferences"
        ]
    );
    assert_eq!(adopt.body[1]["value"], json!("5"));
    assert_eq!(adopt.body[2]["value"]["running"], json!(false));
    let owner = &adopt.body[3]["value"][0];
    assert_eq!(
        (&owner["uid"], &owner["controller"]),
        (&json!("new-container"), &json!(true))
    );
    let mut after = left.clone();
    after["spec"] = adopt.body[2]["value"].clone();
    after["metadata"]["ownerReferences"] = adopt.body[3]["value"].clone();
    adopt.answer(&after);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["instanceUid"], json!("instance-uid"));
    assert_eq!(
        status["status"]["nodeName"],
        json!("n1"),
        "the data is where it was"
    );
    reconciling.await.unwrap().unwrap();
}

/// The instance went although its object did not. No other one is made before the user gives the
/// data up.
#[tokio::test]
async fn h19_i1_a_vanished_instance_is_a_loss_and_no_fresh_start() {
    let mut container = container();
    container["status"] = json!({ "instanceName": "web", "instanceUid": "0123-4567-89ab" });
    let mut world = World::new();
    let reconciling = world.reconcile_container(&container);
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(reasons(&status), ["FilesystemLost", "FilesystemLost"]);
    assert_eq!(
        status["status"]["instanceUid"],
        json!("0123-4567-89ab"),
        "it is remembered"
    );
    let message = status["status"]["conditions"][1]["message"].as_str().unwrap();
    let command = "kubectl annotate --overwrite -n team stoppablecontainer web \
                   stoppablecontainer.xtlsoft.top/recovery=reset-0123456789ab";
    assert!(message.ends_with(command), "{message}");
    world.event("FilesystemLost").await;
    reconciling.await.unwrap().unwrap();
    let reconciling = world.reconcile_container(&container);
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    world.api.quiet(Duration::from_millis(20)).await;
    reconciling.await.unwrap().unwrap();

    container["metadata"]["annotations"] =
        json!({ "stoppablecontainer.xtlsoft.top/recovery": "reset-0123456789ab" });
    let reconciling = world.reconcile_container(&container);
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", "gone");
    world.api.expect("GET", CONTAINER).await.answer(&container);
    world.api.expect("POST", INSTANCES).await.create("new-instance");
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(status["status"]["instanceUid"], json!("new-instance"));
    reconciling.await.unwrap().unwrap();
}

/// The leader's copy of the object is from before an instance was recorded: the record decides.
#[tokio::test]
async fn h19_i1_a_stale_copy_makes_no_instance_in_place_of_a_recorded_one() {
    let seen = container();
    let mut newest = seen.clone();
    newest["status"] = json!({ "instanceName": "web", "instanceUid": "0123-4567-89ab" });
    let mut world = World::new();
    let reconciling = world.reconcile_container(&seen);
    world.api.expect("GET", CONTAINER).await.answer(&newest);
    world.starts_over(reconciling).await;
}

/// An instance by hand whose owner reference has another UID is not this object's.
#[tokio::test]
async fn i16_an_instance_by_hand_is_left_alone() {
    let mut container = container();
    let mut foreign = instance(&container);
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("another");
    let mut world = World::new();
    put(&mut world.writers.instances, std::slice::from_ref(&foreign));
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", INSTANCE).await.answer(&foreign);
    let status = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(reasons(&status), ["NameConflict"]);
    assert_eq!(status["status"]["instanceUid"], Value::Null);
    reconciling.await.unwrap().unwrap();
}

/// An event of a pod starts a pass before the watch delivers the controller's own write. The pass
/// knows what it wrote: it asks about the pod that its cache has not, and writes nothing again,
/// which the API server would refuse.
#[tokio::test]
async fn f13_i18_a_pass_knows_its_own_write_before_the_cache_has_it() {
    let mut world = World::new();
    world.sync(&[]);
    let before = world.instance.clone();
    let reconciling = world.reconcile();
    world.patched(INSTANCE).await;
    let create = world.api.expect("POST", PODS).await;
    create.create("placeholder-uid");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();
    world.instance = before;
    let reconciling = world.reconcile();
    let placeholder = format!("{PODS}/web-placeholder");
    world.api.expect("GET", &placeholder).await;
    reconciling.abort();
}

#[tokio::test]
async fn f13_i18_a_container_knows_its_own_write_before_the_cache_has_it() {
    let seen = container();
    let mut world = World::new();
    put(&mut world.writers.instances, &[instance(&seen)]);
    let reconciling = world.reconcile_container(&seen);
    let status = world.api.expect("PATCH", CONTAINER_STATUS).await;
    let mut written = seen.clone();
    merge(&mut written, &status.body);
    written["metadata"]["resourceVersion"] = json!("2");
    status.answer(&written);
    reconciling.await.unwrap().unwrap();

    let reconciling = world.reconcile_container(&seen);
    world.api.quiet(Duration::from_millis(20)).await;
    reconciling.await.unwrap().unwrap();
}
