//! `reset` and `accept`.

use serde_json::{Value, json};

use crate::world::{ALL, INSTANCES, WEB, World, list, web};

const RECOVERY: &str = "stoppablecontainer.xtlsoft.top/recovery";

fn instance(recovery: &Value) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
        "metadata": { "name": "web", "namespace": "team", "resourceVersion": "3" },
        "spec": { "stoppableContainerName": "web", "template": {} },
        "status": {
            "image": { "name": "nginx:1.24", "digest": "nginx@sha256:old" },
            "filesystem": { "state": "Failed", "nodeName": "node1", "recovery": recovery },
        },
    })
}

async fn read(world: &mut World, object: &Value, instance: &Value) {
    world.api.expect("GET", WEB).await.answer(object);
    world
        .api
        .expect("GET", &format!("{INSTANCES}/web"))
        .await
        .answer(instance);
}

#[tokio::test(start_paused = true)]
async fn a_reset_answers_the_offer_and_waits_until_it_is_taken() {
    let offer = json!({ "id": "4be1d1a2f07c93e5", "verbs": ["reset"] });
    let mut world = World::run("reset web -y");
    read(&mut world, &web(true, 1, 1, "Failed"), &instance(&offer)).await;
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(
        patch.body["metadata"]["annotations"][RECOVERY],
        "reset-4be1d1a2f07c93e5"
    );
    assert_eq!(patch.body["metadata"]["uid"], "u1");
    patch.answer(&web(true, 1, 1, "Failed"));
    let lists = [(INSTANCES, instance(&offer)), (ALL, web(true, 1, 1, "Failed"))];
    world.lists(lists).await;
    // The object may be as requested before the agent has taken the answer.
    world.change("MODIFIED", &web(true, 1, 1, "Running")).await;
    world.change("MODIFIED", &instance(&Value::Null)).await;
    world
        .ended()
        .await
        .timeless()
        .printed("stoppablecontainer/web reset\n");
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_healthy_files_names_their_instance() {
    let mut world = World::run_with_answer("reset web --no-wait", "y\n");
    read(&mut world, &web(false, 1, 1, "Stopped"), &instance(&Value::Null)).await;
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(
        patch.body["metadata"]["annotations"][RECOVERY],
        "reset-11111111222233334444555555555555"
    );
    patch.answer(&web(false, 1, 1, "Stopped"));
    let ended = world.ended().await;
    ended.printed("stoppablecontainer/web reset\n");
    assert!(ended.err.contains("Reset web (1.5 KiB)? All its files are lost."));
}

#[tokio::test(start_paused = true)]
async fn an_accept_shows_both_images() {
    let offer = json!({ "id": "4be1d1a2f07c93e5", "verbs": ["accept", "reset"] });
    let mut world = World::run_with_answer("accept web --no-wait", "yes\n");
    read(&mut world, &web(false, 1, 1, "Failed"), &instance(&offer)).await;
    let provider = json!({
        "metadata": { "name": "web-provider" },
        "status": { "containerStatuses": [{
            "name": "provider", "image": "", "imageID": "nginx@sha256:new", "ready": true, "restartCount": 0,
        }] },
    });
    let call = world
        .api
        .expect("GET", "/api/v1/namespaces/team/pods/web-provider")
        .await;
    call.answer(&provider);
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(
        patch.body["metadata"]["annotations"][RECOVERY],
        "accept-4be1d1a2f07c93e5"
    );
    patch.answer(&web(false, 1, 1, "Failed"));
    let ended = world.ended().await;
    ended.printed("stoppablecontainer/web accepted\n");
    for digest in ["nginx@sha256:old", "nginx@sha256:new"] {
        assert!(ended.err.contains(digest), "{}", ended.err);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_offer_there_is_nothing_to_accept() {
    let mut world = World::run("accept web -y");
    read(&mut world, &web(false, 1, 1, "Stopped"), &instance(&Value::Null)).await;
    world.ended().await.failed(1, "nothing to accept");
}

#[tokio::test(start_paused = true)]
async fn files_are_not_reset_without_a_yes() {
    let mut world = World::run("reset --all");
    let call = world.api.expect("GET", ALL).await;
    call.answer(&list(&[web(false, 1, 1, "Stopped")]));
    let call = world.api.expect("GET", &format!("{INSTANCES}/web")).await;
    call.answer(&instance(&Value::Null));
    world.ended().await.failed(2, "repeat the command with -y");
}
