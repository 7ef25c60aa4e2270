//! Templates that were stored before the bounds existed, that have fields of a newer Kubernetes,
//! and that were not checked.

use std::time::Duration;

use apiserver::watch;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::controller::Action;
use kube::runtime::watcher::{Config, Event};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::trimmed::Whole;

use crate::objects::{CONSUMER, INSTANCE, INSTANCE_STATUS, PODS, terminating};
use crate::world::{World, reasons};

/// The object of issue 10: 31,000 volumes `{"name":"a1"}`.
fn oversized(world: &mut World) {
    let volumes: Vec<_> = (0..31_000)
        .map(|at| json!({ "name": format!("a{at}") }))
        .collect();
    world.instance["spec"]["template"]["spec"]["volumes"] = json!(volumes);
}

const TOO_MANY: &str = "spec.template.spec.volumes: Too many: 31000 items, must have at most 512";

/// Story: it took both replicas of the controller down, and `kubectl delete` hung, until an
/// administrator took the finalizers off by hand.
#[tokio::test]
async fn i18_an_object_that_is_too_large_is_marked_and_can_be_deleted() {
    let mut world = World::new();
    oversized(&mut world);
    world.sync(&[]);
    let reconciling = world.reconcile();
    world.patched(INSTANCE).await;
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(
        reasons(&status),
        [
            "TemplateTooLarge",
            "TemplateTooLarge",
            "Preparing",
            "TemplateTooLarge"
        ]
    );
    assert_eq!(status["status"]["conditions"][0]["message"], json!(TOO_MANY));
    for _ in 0..2 {
        assert_eq!(world.event("TemplateTooLarge").await["type"], json!("Warning"));
    }
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
    world.sync(&[]);
    world.expect_no_requests().await;

    world.instance["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.sync(&[]);
    let reconciling = world.reconcile();
    world.observed_uncached().await;
    let patch = world.patched(INSTANCE).await;
    assert_eq!(patch["metadata"]["finalizers"], json!([]));
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
}

#[tokio::test]
async fn i18_an_object_that_is_too_large_can_be_stopped() {
    let (mut world, provider, consumer) = World::running();
    oversized(&mut world);
    world.instance["spec"]["running"] = json!(false);
    world.sync(&[provider.clone(), consumer.clone()]);
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    world
        .api
        .expect("DELETE", CONSUMER)
        .await
        .answer(&terminating(&consumer));
    assert_eq!(reasons(&status)[3], "Stopping");
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn i19_what_no_type_knows_reaches_the_api_server() {
    let mut world = World::prepared();
    let spec = json!({
        "schedulingGroup": { "podGroupName": "g" },
        "tolerations": [{ "key": "k", "operator": "Exists", "new": 1 }],
        "containers": [{
            "name": "main", "image": "nginx:1.25", "new": null, "ports": [{ "containerPort": 1, "new": {} }],
            "env": [{ "name": "A", "valueFrom": { "newRef": { "a": [1, "b", { "c": 0.5 }] } } }],
        }],
        "volumes": [{ "name": "v", "newSource": { "x": true } }],
    });
    world.instance["spec"]["template"]["spec"] = spec.clone();
    world.sync(&[World::provider()]);
    let reconciling = world.reconcile();
    let create = world.api.expect("POST", PODS).await;
    assert!(
        create.query.contains("fieldValidation=Strict"),
        "{}",
        create.query
    );
    let mut sent = create.body["spec"].clone();
    // Besides the template's own there are those that keep the pod on a silent node, and our gate.
    sent["tolerations"].as_array_mut().unwrap().truncate(1);
    sent.as_object_mut().unwrap().remove("schedulingGates");
    assert_eq!(sent, spec);
    create.create("consumer-uid");
    let status = world.patched(INSTANCE_STATUS).await;
    let check = &status["status"]["templateCheck"];
    assert!(
        check["templateHash"].is_string() && check["problem"].is_null(),
        "{check}"
    );
    reconciling.await.unwrap().unwrap();
}

/// A stopped object that was not checked, because the webhook's question timed out.
fn unchecked() -> (World, Value) {
    let mut world = World::prepared();
    world.instance["spec"]["running"] = json!(false);
    world.instance["status"]["templateCheck"] = Value::Null;
    let provider = World::provider();
    world.sync(std::slice::from_ref(&provider));
    (world, provider)
}

#[tokio::test]
async fn i12_i18_a_template_that_was_not_checked_is_tried_once() {
    let (mut world, provider) = unchecked();
    let reconciling = world.reconcile();
    let trial = world.api.expect("POST", PODS).await;
    assert!(
        trial.query.contains("dryRun=All") && trial.query.contains("fieldValidation=Strict"),
        "{}",
        trial.query
    );
    assert_eq!(trial.body["metadata"]["generateName"], json!("web-"));
    assert!(
        trial.body["metadata"]["labels"]["stoppablecontainer.xtlsoft.top/role"].is_null(),
        "I13: it is not told as ours"
    );
    trial.create("never");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Stopped"));
    assert_eq!(world.event("Stopped").await["type"], json!("Normal"));
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
    world.sync(&[provider]);
    world.expect_no_requests().await;
}

#[tokio::test]
async fn i12_i19_what_the_api_server_finds_later_is_reported_for_a_stopped_object() {
    let (mut world, provider) = unchecked();
    let reconciling = world.reconcile();
    let message = "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
                   \"spec.containers[0].imagge\"";
    let trial = world.api.expect("POST", PODS).await;
    trial.refuse(400, "BadRequest", message);
    let again = world.api.expect("POST", PODS).await;
    assert!(
        !again.query.contains("fieldValidation"),
        "what else is wrong: {}",
        again.query
    );
    again.create("never");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Failed"));
    assert_eq!(
        reasons(&status),
        ["TemplateInvalid", "AsRequested", "AsRequested", "Stopped"]
    );
    let words = status["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        words.starts_with("spec.template.spec.containers[0].imagge: unknown field"),
        "{words}"
    );
    assert_eq!(world.event("TemplateInvalid").await["type"], json!("Warning"));
    reconciling.await.unwrap().unwrap();
    world.sync(std::slice::from_ref(&provider));
    world.expect_no_requests().await;

    // Corrected: tried once more, and forgotten.
    world.instance["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:1.26");
    world.instance["metadata"]["generation"] = json!(2);
    let mut provider = provider;
    provider["metadata"]["annotations"] = json!({ "stoppablecontainer.xtlsoft.top/image": "nginx:1.26" });
    world.sync(&[provider]);
    let reconciling = world.reconcile();
    world.api.expect("POST", PODS).await.create("never");
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[0], "Stopped");
    reconciling.await.unwrap().unwrap();
}

#[tokio::test]
async fn i18_who_did_not_say_is_asked_again() {
    for code in [429, 500, 503] {
        let (mut world, _) = unchecked();
        let reconciling = world.reconcile();
        let trial = world.api.expect("POST", PODS).await;
        trial.refuse(code, "x", "come back later");
        let status = world.patched(INSTANCE_STATUS).await;
        assert_eq!(status["status"]["templateCheck"], Value::Null);
        assert_eq!(
            reconciling.await.unwrap().unwrap(),
            Action::requeue(Duration::from_mins(1))
        );
    }
    // A quota was asked about the pod as it is: that is an answer.
    let (mut world, _) = unchecked();
    let reconciling = world.reconcile();
    let trial = world.api.expect("POST", PODS).await;
    trial.refuse(403, "Forbidden", "exceeded quota");
    let status = world.patched(INSTANCE_STATUS).await;
    assert!(status["status"]["templateCheck"]["templateHash"].is_string());
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
}

/// The mistakes of the pod are those of the template; an obstacle of the moment is not.
#[tokio::test]
async fn i12_a_pod_that_no_api_server_takes_is_the_templates_mistake() {
    for (code, message, reason) in [
        (422, "spec.containers[0].image: Required value", "TemplateInvalid"),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.x\"",
            "TemplateInvalid",
        ),
        (403, "exceeded quota", "CreationRefused"),
        (
            422,
            "pods \"web\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: no",
            "CreationRefused",
        ),
        (
            422,
            "admission webhook \"v.example\" denied the request: no",
            "CreationRefused",
        ),
    ] {
        let mut world = World::prepared();
        world.sync(&[World::provider()]);
        let reconciling = world.reconcile();
        world.api.expect("POST", PODS).await.refuse(code, "x", message);
        let status = world.patched(INSTANCE_STATUS).await;
        assert_eq!(reasons(&status)[3], reason, "{message}");
        reconciling.await.unwrap().unwrap();
    }
}

/// Without an instance, the object itself says it, and the controller does not ask for an instance
/// that it could not make.
#[tokio::test]
async fn i18_a_container_that_is_too_large_is_marked() {
    let mut world = World::new();
    oversized(&mut world);
    let path = "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainers/web/status";
    let container = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "container-uid", "generation": 1, "resourceVersion": "1",
            "finalizers": ["stoppablecontainer.xtlsoft.top/cleanup"],
        },
        "spec": { "running": false, "template": world.instance["spec"]["template"] },
    });
    let reconciling = world.reconcile_container(&container);
    let call = world.api.expect("PATCH", path).await;
    let status = call.body["status"].clone();
    call.answer(&container);
    assert_eq!(status["phase"], json!("Failed"));
    assert_eq!(status["conditions"][0]["reason"], json!("TemplateTooLarge"));
    assert_eq!(status["conditions"][0]["message"], json!(TOO_MANY));
    world.event("TemplateTooLarge").await;
    assert_eq!(reconciling.await.unwrap().unwrap(), Action::await_change());
}

/// A list comes in small pages, and an object that is too large, or does not fit its type, does not
/// hide the others.
#[tokio::test]
async fn i18_a_list_comes_in_small_pages_and_every_object_that_can_be_read_is_seen() {
    let mut world = World::new();
    oversized(&mut world);
    let named = |object: &Value, name: &str| {
        let mut object = object.clone();
        object["metadata"]["name"] = json!(name);
        object
    };
    let large = named(&world.instance, "large");
    let small = named(&World::new().instance, "small");
    let mut odd = named(&small, "odd");
    odd["spec"]["running"] = json!("perhaps");
    let client = world.context.client.clone();
    let events = watch::<StoppableContainerInstance, Whole>(&client, Config::default());
    let seen = tokio::spawn(events.take(4).try_collect::<Vec<_>>());
    let path = "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/stoppablecontainerinstances";
    let page = |more: &str, items: &[&Value]| {
        json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstanceList",
            "metadata": { "resourceVersion": "9", "continue": more }, "items": items,
        })
    };
    let call = world.api.expect("GET", path).await;
    assert!(call.query.contains("limit=16"), "{}", call.query);
    call.answer(&page("more", &[&large, &odd]));
    let call = world.api.expect("GET", path).await;
    assert!(call.query.contains("continue=more"), "{}", call.query);
    call.answer(&page("", &[&small]));
    let seen = seen.await.unwrap().unwrap();
    let names: Vec<_> = seen
        .iter()
        .filter_map(|event| match event {
            Event::InitApply(object) => object.metadata.name.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["large", "small"]);
}
