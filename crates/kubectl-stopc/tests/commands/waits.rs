//! `wait`.

use crate::world::{ALL, World, web};

#[tokio::test(start_paused = true)]
async fn a_wait_needs_no_change_and_no_first_read() {
    let mut world = World::run("wait web --for=ready");
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world.ended().await.printed("stoppablecontainer/web ready\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_deletion_is_met_by_an_absent_object() {
    let mut world = World::run("wait web --for=deleted");
    world.list(ALL, &[]).await;
    world.ended().await.printed("stoppablecontainer/web deleted\n");

    let mut world = World::run("wait web --for=deleted");
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world.change("DELETED", &web(true, 1, 1, "Running")).await;
    world.ended().await.printed("stoppablecontainer/web deleted\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_absent_object_fails_at_once() {
    let mut world = World::run("wait web --for=running");
    world.list(ALL, &[]).await;
    world.ended().await.failed(1, "web: the object does not exist");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_once_when_the_container_fails() {
    let mut world = World::run("wait web --for=ready");
    world.list(ALL, &[web(true, 1, 1, "Pending")]).await;
    world.change("MODIFIED", &web(true, 1, 1, "Failed")).await;
    world.ended().await.failed(1, "FilesystemLost: as the test says");
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_watch_ends_the_wait() {
    let mut world = World::run("wait web --for=ready");
    let message = "stoppablecontainers is forbidden: User \"jo\" cannot list resource";
    world
        .api
        .expect("GET", ALL)
        .await
        .refuse(403, "Forbidden", message);
    world.ended().await.failed(1, "stoppablecontainer-view");
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_opened_again() {
    let mut world = World::run("wait web --for=ready");
    world
        .api
        .expect("GET", ALL)
        .await
        .refuse(503, "ServiceUnavailable", "later");
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world.ended().await.printed("stoppablecontainer/web ready\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_no_time_looks_once() {
    let mut world = World::run("wait web --for=ready --timeout=0");
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world.ended().await.printed("stoppablecontainer/web ready\n");

    let mut world = World::run("wait web --for=ready --timeout=0");
    world.list(ALL, &[web(true, 1, 1, "Pending")]).await;
    world.ended().await.failed(3, "web: not ready after 0.0s");
}
