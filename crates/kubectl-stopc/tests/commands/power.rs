//! `start`, `stop`, `restart`.

use serde_json::{Value, json};

use crate::world::{ALL, POD, PODS, WEB, World, list, pod, web};

#[tokio::test(start_paused = true)]
async fn a_start_patches_and_watches_until_it_runs() {
    let mut world = World::run("start web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(false, 1, 1, "Stopped"));
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(patch.body, json!({ "spec": { "running": true } }));
    assert!(
        patch.query.contains("fieldManager=kubectl-stopc"),
        "{}",
        patch.query
    );
    patch.answer(&web(true, 2, 1, "Stopped"));
    let query = world.list(ALL, &[web(true, 2, 1, "Stopped")]).await;
    assert!(query.contains("metadata.name%3Dweb"), "{query}");
    world.change("MODIFIED", &web(true, 2, 2, "Pending")).await;
    world.change("MODIFIED", &web(true, 2, 2, "Running")).await;
    let ended = world.ended().await.timeless();
    ended.printed("stoppablecontainer/web started\n");
    assert_eq!(
        ended.err,
        "web: waiting for the controller\nweb: choosing the node and pulling the image\n"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_so_already_is_not_patched() {
    let mut world = World::run("start web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world.list(ALL, &[web(true, 1, 1, "Running")]).await;
    world
        .ended()
        .await
        .timeless()
        .printed("stoppablecontainer/web already started\n");

    let mut world = World::run("stop web --no-wait");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(false, 1, 1, "Stopped"));
    world
        .ended()
        .await
        .printed("stoppablecontainer/web already stopped\n");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_ends_at_once_with_the_cause() {
    let mut world = World::run("start web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(false, 1, 1, "Stopped"));
    world
        .api
        .expect("PATCH", WEB)
        .await
        .answer(&web(true, 2, 1, "Stopped"));
    world.list(ALL, &[web(true, 2, 2, "Failed")]).await;
    let ended = world.ended().await;
    ended.failed(1, "web: FilesystemLost: as the test says");
    ended.failed(1, "kubectl stopc reset web");
    assert_eq!(ended.out, "");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_still_going() {
    let mut world = World::run("start web --timeout=30s");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(false, 1, 1, "Stopped"));
    world
        .api
        .expect("PATCH", WEB)
        .await
        .answer(&web(true, 2, 1, "Stopped"));
    world.list(ALL, &[web(true, 2, 2, "Pending")]).await;
    let ended = world.ended().await;
    ended.failed(3, "web: not running after 30s, but the cluster is still at it");
    ended.failed(3, "kubectl stopc wait web -n team --for=running");
    // After ten seconds without progress the cause is printed, once.
    let causes = ended
        .err
        .matches("choosing the node and pulling the image: Starting: as the test says\n");
    assert_eq!(causes.count(), 1, "{}", ended.err);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_until_nothing_runs() {
    let mut world = World::run("stop stopc/web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let patch = world.api.expect("PATCH", WEB).await;
    assert_eq!(patch.body, json!({ "spec": { "running": false } }));
    patch.answer(&web(false, 2, 1, "Running"));
    world.list(ALL, &[web(false, 2, 1, "Running")]).await;
    world.change("MODIFIED", &web(false, 2, 2, "ProviderReady")).await;
    world.change("MODIFIED", &web(false, 2, 2, "Stopped")).await;
    world
        .ended()
        .await
        .timeless()
        .printed("stoppablecontainer/web stopped\n");
}

#[tokio::test(start_paused = true)]
async fn a_grace_period_ends_the_pod_that_was_there_after_the_order() {
    for (flag, seconds) in [("--grace-period=5", 5), ("--force", 0)] {
        let mut world = World::run(&format!("stop web --no-wait {flag}"));
        world
            .api
            .expect("GET", WEB)
            .await
            .answer(&web(true, 1, 1, "Running"));
        world.api.expect("GET", POD).await.answer(&pod("old"));
        world
            .api
            .expect("PATCH", WEB)
            .await
            .answer(&web(false, 2, 1, "Running"));
        let delete = world.api.expect("DELETE", POD).await;
        assert_eq!(delete.body["gracePeriodSeconds"], seconds);
        assert_eq!(delete.body["preconditions"]["uid"], "old");
        // The controller may have been faster.
        delete.refuse(404, "NotFound", "pods \"web\" not found");
        world.ended().await.printed("stoppablecontainer/web stopping\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_owner_is_not_ended() {
    let mut free = pod("other");
    free["metadata"]["ownerReferences"] = json!([]);
    let mut earlier = pod("other");
    earlier["metadata"]["ownerReferences"][0]["uid"] = json!("of an earlier instance");
    for other in [free, earlier] {
        let mut world = World::run("stop web --no-wait --force");
        world
            .api
            .expect("GET", WEB)
            .await
            .answer(&web(true, 1, 1, "Failed"));
        world.api.expect("GET", POD).await.answer(&other);
        world
            .api
            .expect("PATCH", WEB)
            .await
            .answer(&web(false, 2, 1, "Failed"));
        world.ended().await.printed("stoppablecontainer/web stopping\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_another_pod() {
    let mut world = World::run("restart web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world.api.expect("GET", POD).await.answer(&pod("old"));
    let patch = world.api.expect("PATCH", WEB).await;
    let annotations = &patch.body["spec"]["template"]["metadata"]["annotations"];
    let time = annotations["stoppablecontainer.xtlsoft.top/restartedAt"]
        .as_str()
        .unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "RFC 3339: {time}");
    patch.answer(&web(true, 2, 1, "Running"));
    // The status says Running all the time.
    let running = web(true, 2, 2, "Running");
    world.lists([(PODS, pod("old")), (ALL, running.clone())]).await;
    world.change("MODIFIED", &running).await;
    world.change("DELETED", &pod("old")).await;
    world.change("ADDED", &pod("new")).await;
    let ended = world.ended().await.timeless();
    ended.printed("stoppablecontainer/web restarted\n");
}

#[tokio::test(start_paused = true)]
async fn a_selection_is_confirmed() {
    let objects = [web(true, 1, 1, "Running")];
    let mut world = World::run("stop --all");
    world.api.expect("GET", ALL).await.answer(&list(&objects));
    world
        .ended()
        .await
        .failed(2, "Stop 1 container (web)? There is no terminal");

    let mut world = World::run_with_answer("stop -l app=web", "n\n");
    let call = world.api.expect("GET", ALL).await;
    assert!(call.query.contains("labelSelector=app%3Dweb"), "{}", call.query);
    call.answer(&list(&objects));
    world.ended().await.failed(1, "nothing was changed");

    for mut world in [
        World::run_with_answer("stop --all --no-wait", "y\n"),
        World::run("stop --all --no-wait -y"),
    ] {
        world.api.expect("GET", ALL).await.answer(&list(&objects));
        world
            .api
            .expect("PATCH", WEB)
            .await
            .answer(&web(false, 2, 1, "Running"));
        world.ended().await.printed("stoppablecontainer/web stopping\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let mut world = World::run("stop web --dry-run");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world
        .ended()
        .await
        .printed("stoppablecontainer/web stopped (dry run)\n");

    let mut world = World::run("stop web --dry-run=server");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let patch = world.api.expect("PATCH", WEB).await;
    assert!(patch.query.contains("dryRun=All"), "{}", patch.query);
    patch.answer(&web(false, 2, 1, "Running"));
    world
        .ended()
        .await
        .printed("stoppablecontainer/web stopped (server dry run)\n");
}

#[tokio::test(start_paused = true)]
async fn one_missing_name_does_not_keep_the_others() {
    let mut world = World::run("stop gone web --no-wait");
    let gone = WEB.replace("/web", "/gone");
    world
        .api
        .expect("GET", &gone)
        .await
        .refuse(404, "NotFound", "stoppablecontainers \"gone\" not found");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world
        .api
        .expect("PATCH", WEB)
        .await
        .answer(&web(false, 2, 1, "Running"));
    let ended = world.ended().await;
    ended.failed(1, "cannot stop gone: stoppablecontainers \"gone\" not found");
    assert_eq!(ended.out, "stoppablecontainer/web stopping\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_several_needs_one_watch() {
    let named = |name: &str, phase: &str| -> Value {
        let mut object = web(false, 1, 1, phase);
        object["metadata"]["name"] = json!(name);
        object
    };
    let mut world = World::run("wait a b --for=stopped");
    let query = world
        .list(ALL, &[named("a", "Stopped"), named("b", "ProviderReady")])
        .await;
    assert!(!query.contains("fieldSelector"), "{query}");
    world.change("MODIFIED", &named("other", "Failed")).await;
    world.change("MODIFIED", &named("b", "Stopped")).await;
    let ended = world.ended().await;
    ended.printed("stoppablecontainer/a stopped\nstoppablecontainer/b stopped\n");
    assert!(
        ended.err.contains("1 of 2 done, b: stopping the pod"),
        "{}",
        ended.err
    );
}
