//! `create` and `resize`.

use serde_json::json;

use crate::world::{ALL, WEB, World, web};

#[tokio::test(start_paused = true)]
async fn a_created_container_is_waited_for() {
    let mut world = World::run("create web --image nginx:1.25 --stopped");
    let post = world.api.expect("POST", ALL).await;
    assert_eq!(post.body["spec"]["running"], false);
    assert_eq!(post.body["metadata"]["namespace"], "team");
    post.answer(&web(false, 1, 0, "Pending"));
    world.list(ALL, &[web(false, 1, 1, "Stopped")]).await;
    world
        .ended()
        .await
        .timeless()
        .printed("stoppablecontainer/web created, stopped\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_dry_run_asks_nothing_and_prints_the_manifest() {
    let world = World::run("create web --image nginx:1.25 --dry-run=client -o yaml");
    let ended = world.ended().await;
    assert_eq!(ended.code, 0);
    assert!(
        ended.out.contains("kind: StoppableContainer\n") && ended.out.contains("image: nginx:1.25\n"),
        "{}",
        ended.out
    );
}

#[tokio::test(start_paused = true)]
async fn an_existing_container_says_how_to_start_it() {
    let mut world = World::run("create web --image nginx:1.25");
    let post = world.api.expect("POST", ALL).await;
    post.refuse(409, "AlreadyExists", "stoppablecontainers \"web\" already exists");
    world
        .ended()
        .await
        .failed(1, "start it with `kubectl stopc start web`");
}

#[tokio::test(start_paused = true)]
async fn a_resize_says_when_it_takes_effect() {
    let mut world = World::run("resize web --memory 8Gi");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(patch.body[1]["value"]["limits"]["memory"], "8Gi");
    patch.answer(&web(true, 2, 1, "Running"));
    world.list(ALL, &[web(true, 2, 2, "Running")]).await;
    let mut edited = web(true, 2, 2, "Running");
    let condition = json!({
        "type": "RestartRequired", "status": "True", "reason": "TemplateEdited", "message": "resources",
        "lastTransitionTime": "2026-01-01T00:00:10Z",
    });
    edited["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition);
    world.api.expect("GET", WEB).await.answer(&edited);
    world.ended().await.printed(
        "stoppablecontainer/web resized; takes effect at the next start: kubectl stopc restart web\n",
    );
}
