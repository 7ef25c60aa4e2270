//! `list`, `status`, `du`: what is read, and the exit code.

use serde_json::json;

use crate::world::{ALL, WEB, World, list, web};

#[tokio::test(start_paused = true)]
async fn a_list_is_one_request() {
    let mut world = World::run("list -o name");
    world
        .api
        .expect("GET", ALL)
        .await
        .answer(&list(&[web(true, 1, 1, "Running")]));
    world
        .ended()
        .await
        .printed("stoppablecontainer.stoppablecontainer.xtlsoft.top/web\n");

    let mut world = World::run("list -A -o jsonpath={.items[*].metadata.name}");
    let everywhere = "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/stoppablecontainers";
    world
        .api
        .expect("GET", everywhere)
        .await
        .answer(&list(&[web(true, 1, 1, "Running")]));
    world.ended().await.printed("web");
}

#[tokio::test(start_paused = true)]
async fn fields_that_this_version_does_not_know_are_printed() {
    let mut object = web(true, 1, 1, "Running");
    object["status"]["newField"] = json!("new");
    let mut world = World::run("list web -o jsonpath={.status.newField}");
    world.api.expect("GET", WEB).await.answer(&object);
    world.ended().await.printed("new");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_as_requested_fails() {
    for (object, code) in [(web(true, 1, 1, "Running"), 0), (web(true, 1, 1, "Failed"), 1)] {
        let mut world = World::run("status web");
        world.api.expect("GET", WEB).await.answer(&object);
        let absent = |kind: &str| format!("{kind} \"web\" not found");
        for path in [
            "/api/v1/namespaces/team/pods/web",
            "/api/v1/namespaces/team/pods/web-provider",
            "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainerinstances/web",
        ] {
            world
                .api
                .expect("GET", path)
                .await
                .refuse(404, "NotFound", &absent("object"));
        }
        for name in ["web", "web-provider", "web-placeholder"] {
            let call = world
                .api
                .expect("GET", "/apis/events.k8s.io/v1/namespaces/team/events")
                .await;
            assert!(
                call.query.contains(&format!("regarding.name%3D{name}")),
                "{}",
                call.query
            );
            call.answer(&list(&[]));
        }
        let ended = world.ended().await;
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.out.starts_with("team/web\n"), "{}", ended.out);
    }
}

#[tokio::test(start_paused = true)]
async fn usage_is_read_from_the_status() {
    let mut world = World::run("du web --bytes");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    world.ended().await.printed("1536\tweb\n");
}
