//! The first node: chosen with a placeholder, and given up while there is nothing to lose.

use serde_json::{Value, json};
use stoppablecontainer_api::names::GATE_PLACEHOLDER;

use crate::container::patch;
use crate::objects::{
    self, CONTAINER, CONTAINER_STATUS, INSTANCE, INSTANCE_STATUS, INSTANCES, PODS, pod, terminating,
};
use crate::world::{World, merge, preconditions, put};

const PLACEHOLDER: &str = "/api/v1/namespaces/team/pods/web-placeholder";
const CONSUMER: &str = "/api/v1/namespaces/team/pods/web";
const CONSUMER_STATUS: &str = "/api/v1/namespaces/team/pods/web/status";

/// What the API server has after a pod was created and bound to node `n1`.
fn bound(created: &Value) -> Value {
    let mut pod = created.clone();
    merge(
        &mut pod,
        &json!({
            "metadata": { "namespace": "team", "resourceVersion": "50" },
            "spec": { "nodeName": "n1" },
            "status": { "phase": "Pending" },
        }),
    );
    pod
}

fn up(created: &Value) -> Value {
    let mut pod = bound(created);
    pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    pod
}

/// An instance that is prepared on node `n1` and was never started, with its provider.
fn unstarted() -> (World, Value) {
    let mut world = World::prepared();
    world.instance["status"]["neverStarted"] = json!(true);
    world.instance["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "name": "web", "uid": "container-uid", "controller": true,
    }]);
    (world, World::provider())
}

/// The container's instance, whose node does not exist any more.
fn on_a_node_that_is_gone(container: &Value) -> Value {
    let mut instance = objects::instance(container);
    instance["status"]["conditions"] = json!([{
        "type": "ProviderReady", "status": "False", "reason": "NodeGone", "message": "gone",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
    }]);
    instance
}

/// Placeholder, node, provider, and the consumer when the placeholder has made way.
#[tokio::test]
async fn the_first_node_is_that_of_the_placeholder() {
    let mut world = World::new();
    world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
    world.instance["spec"]["template"]["spec"]["volumes"] =
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    world.check(None);
    world.instance["status"]["neverStarted"] = json!(true);
    world.sync(&[]);
    let reconciling = world.reconcile();
    let placeholder = world.api.expect("POST", PODS).await.create("placeholder-uid");
    assert_eq!(placeholder["spec"]["volumes"][1]["name"], "data");
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();

    let placeholder = bound(&placeholder);
    world.sync(std::slice::from_ref(&placeholder));
    let reconciling = world.reconcile();
    let provider = world.api.expect("POST", PODS).await.create("provider-uid");
    let nodes =
        &provider["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        nodes["nodeSelectorTerms"][0]["matchFields"][0]["values"],
        json!(["n1"])
    );
    assert_eq!(
        provider["spec"]["volumes"].as_array().unwrap().len(),
        1,
        "it holds no claim"
    );
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["nodeName"], "n1");
    assert_eq!(status["status"]["providerPodUid"], "provider-uid");
    reconciling.await.unwrap().unwrap();

    world.instance["status"]["filesystem"] = json!({
        "state": "Ready", "nodeName": "n1", "providerPodUid": "provider-uid",
        "image": { "reference": "nginx:1.25", "id": "sha256:1" },
        "identity": { "user": "", "uid": 0, "gid": 0 },
    });
    let provider = up(&provider);
    world.sync(&[provider.clone(), placeholder.clone()]);
    let reconciling = world.reconcile();
    let create = world.api.expect("POST", PODS).await;
    assert_eq!(create.body["metadata"]["name"], "web");
    let mut consumer = create.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], "consumer-uid");
    reconciling.await.unwrap().unwrap();

    merge(
        &mut consumer,
        &json!({ "metadata": { "namespace": "team", "resourceVersion": "60" } }),
    );
    consumer["spec"]["schedulingGates"] = json!([{ "name": GATE_PLACEHOLDER }]);
    world.sync(&[provider.clone(), placeholder.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let read = world.api.expect("GET", INSTANCE).await;
    read.answer(&world.instance);
    let nominate = world.api.expect("PATCH", CONSUMER_STATUS).await;
    assert_eq!(nominate.body["status"], json!({ "nominatedNodeName": "n1" }));
    assert_eq!(nominate.body["metadata"]["uid"], "consumer-uid");
    consumer["status"] = nominate.body["status"].clone();
    nominate.answer(&consumer);
    let delete = world.api.expect("DELETE", PLACEHOLDER).await;
    assert_eq!(delete.body["gracePeriodSeconds"], json!(0), "nothing of it runs");
    assert_eq!(preconditions(&delete).0, "placeholder-uid");
    delete.answer(&json!({ "kind": "Status", "status": "Success" }));
    let admit = world.api.expect("PATCH", CONSUMER).await;
    let removed = json!([{ "$patch": "delete", "name": GATE_PLACEHOLDER }]);
    assert_eq!(admit.body["spec"]["schedulingGates"], removed);
    consumer["spec"]["schedulingGates"] = json!([]);
    admit.answer(&consumer);
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["placeholderPodUid"], Value::Null);
    reconciling.await.unwrap().unwrap();

    // The binding and the end of the gate are recorded when the status is written anyway.
    for consumer in [consumer.clone(), bound(&consumer)] {
        world.sync(&[provider.clone(), consumer]);
        world.expect_no_requests().await;
    }
    world.sync(&[provider, up(&consumer)]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    let start = &status["status"]["lastStart"];
    for step in ["requestedAt", "consumerCreatedAt"] {
        assert!(start[step].is_string(), "{step}: {start}");
    }
    reconciling.await.unwrap().unwrap();
    let steps = ["Scheduled", "Pulling", "FilesystemPrepared", "Started"];
    let told: Vec<_> = world.told().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(told, steps);
}

/// A quota with room for only one of the two: the placeholder goes first.
#[tokio::test]
async fn a_quota_does_not_count_consumer_and_placeholder() {
    let (mut world, provider) = unstarted();
    world.instance["status"]["placeholderPodUid"] = json!("placeholder-uid");
    let placeholder = bound(&pod("web-placeholder", "placeholder", "placeholder-uid"));
    world.sync(&[provider, placeholder]);
    let reconciling = world.reconcile();
    let words = "pods \"web\" is forbidden: exceeded quota: small, requested: requests.cpu=1";
    let create = world.api.expect("POST", PODS).await;
    create.refuse(403, "Forbidden", words);
    let delete = world.api.expect("DELETE", PLACEHOLDER).await;
    delete.answer(&json!({ "kind": "Status", "status": "Success" }));
    world.api.expect("POST", PODS).await.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["consumerPodUid"], "consumer-uid");
    assert_eq!(status["status"]["placeholderPodUid"], Value::Null);
    reconciling.await.unwrap().unwrap();
}

/// The consumer is deleted in the state that was seen before anything else is written: it has not
/// started.
#[tokio::test]
async fn i1_a_consumer_that_the_kubelet_refused_gives_the_node_up() {
    let (mut world, provider) = unstarted();
    world.instance["status"]["consumerPodUid"] = json!("consumer-uid");
    let mut consumer = pod("web", "consumer", "consumer-uid");
    consumer["status"] = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "no room" });
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["givenUp"],
        Value::Null,
        "not before the consumer is gone"
    );
    let delete = world.api.expect("DELETE", CONSUMER).await;
    let (uid, version) = preconditions(&delete);
    assert_eq!(
        (uid, version),
        (
            "consumer-uid",
            consumer["metadata"]["resourceVersion"].as_str().unwrap()
        )
    );
    delete.answer(&terminating(&consumer));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(
        status["status"]["givenUp"],
        json!({ "reason": "OutOfcpu", "message": "no room" })
    );
    reconciling.await.unwrap().unwrap();
    world.sync(&[provider]);
}

/// Story: an object whose template names its node gave up that node again and again.
#[tokio::test]
async fn h26_a_node_is_not_given_up_if_the_template_leaves_no_other() {
    for (of_other, expected) in [("slow", Value::Null), ("fast", json!("FilesystemUnusable"))] {
        let (mut world, provider) = unstarted();
        let nodes = [("n1", "fast"), ("n2", of_other)]
            .map(|(name, disk)| json!({ "metadata": { "name": name, "labels": { "disk": disk } } }));
        put(&mut world.writers.nodes, &nodes);
        world.instance["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "fast" });
        world.instance["status"]["filesystem"]["state"] = json!("Failed");
        world.instance["status"]["filesystem"]["reason"] = json!("FilesystemUnusable");
        world.instance["status"]["filesystem"]["message"] = json!("no extended attributes");
        world.sync(std::slice::from_ref(&provider));
        let reconciling = world.reconcile();
        let mut status = world.patched(INSTANCE_STATUS).await;
        if expected.is_string() {
            // The facts come first.
            status = world.patched(INSTANCE_STATUS).await;
        }
        assert_eq!(status["status"]["givenUp"]["reason"], expected, "{status}");
        reconciling.await.unwrap().unwrap();
    }
}

/// It started in the moment of the decision: the deletion fails, and with it the decision.
#[tokio::test]
async fn i1_a_consumer_that_changed_meanwhile_gives_nothing_up() {
    let (mut world, provider) = unstarted();
    world.instance["status"]["consumerPodUid"] = json!("consumer-uid");
    let mut consumer = pod("web", "consumer", "consumer-uid");
    consumer["status"] = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "no room" });
    world.sync(&[provider, consumer]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE_STATUS).await;
    let delete = world.api.expect("DELETE", CONSUMER).await;
    delete.refuse(409, "Conflict", "the object has been modified");
    assert!(reconciling.await.unwrap().unwrap_err().is_conflict());
    world.api.quiet(std::time::Duration::from_millis(20)).await;
}

/// The owner records it, deletes the instance, and makes one that avoids the node. Nothing counts
/// as lost.
#[tokio::test(start_paused = true)]
async fn an_instance_that_gave_its_node_up_is_replaced() {
    let mut world = World::new();
    let mut container = objects::container();
    container["status"] = json!({ "instanceUid": "instance-uid", "phase": "Pending" });
    let mut instance = objects::instance(&container);
    instance["status"]["neverStarted"] = json!(true);
    instance["status"]["givenUp"] = json!({ "reason": "OutOfcpu", "message": "no room" });
    put(&mut world.writers.instances, std::slice::from_ref(&instance));
    let reconciling = world.reconcile_container(&container);
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let written = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    let expected = json!({ "count": 1, "nodes": ["n1"], "instanceUid": "instance-uid" });
    assert_eq!(written["status"]["givenUpNodes"], expected);
    let delete = world.api.expect("DELETE", INSTANCE).await;
    assert_eq!(preconditions(&delete), ("instance-uid", "5"));
    delete.answer(&objects::deleted(instance.clone()));
    let written = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    let ready = &written["status"]["conditions"][0];
    assert_eq!(ready["reason"], "NodeGivenUp");
    assert!(
        ready["message"]
            .as_str()
            .unwrap()
            .contains("node n1 was given up"),
        "{ready}"
    );
    assert_eq!(written["status"]["givenUpNodes"], expected);
    world.event("NodeGivenUp").await;
    reconciling.await.unwrap().unwrap();

    put(&mut world.writers.instances, &[]);
    tokio::time::advance(std::time::Duration::from_millis(100)).await;
    let reconciling = world.reconcile_container(&container);
    let gone = || "stoppablecontainerinstances \"web\" not found";
    world
        .api
        .expect("GET", INSTANCE)
        .await
        .refuse(404, "NotFound", gone());
    world.api.expect("GET", CONTAINER).await.answer(&container);
    let create = world.api.expect("POST", INSTANCES).await;
    let annotations = &create.body["metadata"]["annotations"];
    assert_eq!(annotations["stoppablecontainer.xtlsoft.top/avoid-nodes"], "n1");
    create.create("second-uid");
    patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
    assert_eq!(container["status"]["instanceUid"], "second-uid");
    reconciling.await.unwrap().unwrap();
}

/// The node of the data is gone. Only the answer to exactly this makes the controller delete the
/// instance, and then its end does not count as a loss.
#[tokio::test]
async fn f24_an_instance_whose_node_is_gone_is_given_up_by_its_user_alone() {
    for (answer, deletes) in [("reset-instanceuid", true), ("reset-otherinstance", false)] {
        let mut world = World::new();
        let mut container = objects::container();
        container["metadata"]["annotations"]["stoppablecontainer.xtlsoft.top/recovery"] = json!(answer);
        container["status"] = json!({ "instanceUid": "instance-uid", "phase": "Failed" });
        let instance = on_a_node_that_is_gone(&container);
        put(&mut world.writers.instances, std::slice::from_ref(&instance));
        let reconciling = world.reconcile_container(&container);
        if deletes {
            world.api.expect("GET", CONTAINER).await.answer(&container);
            let noted = patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
            assert_eq!(noted["status"]["resetInstanceUid"], "instance-uid");
            let delete = world.api.expect("DELETE", INSTANCE).await;
            assert_eq!(preconditions(&delete), ("instance-uid", "5"));
            delete.answer(&objects::deleted(instance.clone()));
        }
        let status = world.api.expect("PATCH", CONTAINER_STATUS).await;
        patch(status, &mut container);
        reconciling.await.unwrap().unwrap();
        world.api.quiet(std::time::Duration::from_millis(20)).await;
    }
}

/// The user names the node that has the disk. The instance goes there only if its own node is still
/// gone and the other one exists, as the API server has them.
#[tokio::test]
async fn f24_an_instance_goes_to_the_node_that_has_its_disk() {
    let exists = |name: &str| json!({ "kind": "PartialObjectMetadata", "metadata": { "name": name } });
    for (old_exists, new_exists) in [(false, true), (true, true), (false, false)] {
        let mut world = World::new();
        let mut container = objects::container();
        container["metadata"]["annotations"]["stoppablecontainer.xtlsoft.top/moved-to"] = json!("n2");
        container["status"] = json!({ "instanceUid": "instance-uid", "phase": "Failed" });
        let mut instance = on_a_node_that_is_gone(&container);
        put(&mut world.writers.instances, std::slice::from_ref(&instance));
        let reconciling = world.reconcile_container(&container);
        world.api.expect("GET", CONTAINER).await.answer(&container);
        for (name, is_there) in [("n1", old_exists), ("n2", new_exists)] {
            let read = world.api.expect("GET", &format!("/api/v1/nodes/{name}")).await;
            if is_there {
                read.answer(&exists(name));
            } else {
                read.refuse(404, "NotFound", "nodes not found");
            }
        }
        if !old_exists && new_exists {
            let moved = world.api.expect("PATCH", INSTANCE_STATUS).await;
            assert_eq!(moved.body["status"], json!({ "nodeName": "n2" }));
            assert_eq!(moved.body["metadata"]["resourceVersion"], "5");
            patch(moved, &mut instance);
        }
        patch(world.api.expect("PATCH", CONTAINER_STATUS).await, &mut container);
        reconciling.await.unwrap().unwrap();
        let told: Vec<_> = world.told().into_iter().map(|(_, reason)| reason).collect();
        assert_eq!(
            told.contains(&"Moved".to_owned()),
            !old_exists && new_exists,
            "{told:?}"
        );
    }
}
