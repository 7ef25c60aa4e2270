//! `delete`.

use crate::world::{ALL, WEB, World, web};

#[tokio::test(start_paused = true)]
async fn a_deletion_is_of_the_object_that_was_asked_about() {
    let mut world = World::run_with_answer("delete web", "y\n");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let delete = world.api.expect("DELETE", WEB).await;
    assert_eq!(delete.body["preconditions"]["uid"], "u1");
    delete.answer(&web(true, 1, 1, "Running"));
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world.change("DELETED", &web(true, 1, 1, "Running")).await;
    let ended = world.ended().await.timeless();
    ended.printed("stoppablecontainer/web deleted\n");
    assert!(
        ended
            .err
            .starts_with("Delete web (1.5 KiB)? All its files are lost. [y/N] "),
        "{}",
        ended.err
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_terminal_a_deletion_needs_a_yes() {
    let mut world = World::run("delete web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world.ended().await.failed(2, "repeat the command with -y");

    let mut world = World::run("delete web -y --no-wait");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world
        .api
        .expect("DELETE", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world.ended().await.printed("stoppablecontainer/web deleting\n");
}

#[tokio::test(start_paused = true)]
async fn an_absent_object_is_an_error_unless_ignored() {
    let refuse = async |world: &mut World| {
        let call = world.api.expect("GET", WEB).await;
        call.refuse(404, "NotFound", "stoppablecontainers \"web\" not found");
    };
    let mut world = World::run("delete web -y");
    refuse(&mut world).await;
    world.ended().await.failed(1, "not found");

    let mut world = World::run("delete web -y --ignore-not-found");
    refuse(&mut world).await;
    world.ended().await.printed("");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_does_not_ask() {
    let mut world = World::run("delete web --dry-run=server");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let delete = world.api.expect("DELETE", WEB).await;
    assert_eq!(delete.body["dryRun"][0], "All");
    delete.answer(&web(true, 1, 1, "Running"));
    world
        .ended()
        .await
        .printed("stoppablecontainer/web deleted (server dry run)\n");
}
