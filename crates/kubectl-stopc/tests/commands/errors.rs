//! What is wrong with the cluster or the user, in a sentence.

use serde_json::{Value, json};

use crate::world::{ALL, WEB, World, web};

async fn groups(world: &mut World, versions: &[&str]) {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("stoppablecontainer.xtlsoft.top/{version}"), "version": version }))
        .collect();
    let groups: Value = if versions.is_empty() {
        json!([])
    } else {
        json!([{ "name": "stoppablecontainer.xtlsoft.top", "versions": versions }])
    };
    let call = world.api.expect("GET", "/apis").await;
    call.answer(&json!({ "kind": "APIGroupList", "groups": groups }));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_the_product() {
    let mut world = World::run("list");
    let call = world.api.expect("GET", ALL).await;
    call.refuse(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    groups(&mut world, &[]).await;
    world.ended().await.failed(
        1,
        "the cluster does not have StoppableContainers; install StoppableContainer with its Helm chart",
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_with_another_version() {
    let mut world = World::run("stop web");
    let call = world.api.expect("GET", WEB).await;
    call.refuse(404, "Failed to parse error data", "404 page not found");
    groups(&mut world, &["v2"]).await;
    world
        .ended()
        .await
        .failed(1, "of version v2, and this plugin needs v1alpha1");
}

#[tokio::test(start_paused = true)]
async fn a_user_without_the_permission() {
    let mut world = World::run("stop web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(true, 1, 1, "Running"));
    let message = "stoppablecontainers \"web\" is forbidden: User \"jo\" cannot patch resource";
    world
        .api
        .expect("PATCH", WEB)
        .await
        .refuse(403, "Forbidden", message);
    world.ended().await.failed(
        1,
        "ask an administrator for the ClusterRole stoppablecontainer-edit",
    );
}

#[tokio::test(start_paused = true)]
async fn a_user_that_is_not_known() {
    let mut world = World::run("list");
    world
        .api
        .expect("GET", ALL)
        .await
        .refuse(401, "Unauthorized", "Unauthorized");
    world.ended().await.failed(1, "log in again");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_not_answer() {
    let mut world = World::run("start web");
    world
        .api
        .expect("GET", WEB)
        .await
        .answer(&web(false, 1, 1, "Stopped"));
    let message = "Internal error occurred: failed calling webhook \"objects\": connection refused";
    world
        .api
        .expect("PATCH", WEB)
        .await
        .refuse(500, "InternalError", message);
    world
        .ended()
        .await
        .failed(1, "find out why with `kubectl stopc doctor`");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_missing() {
    let mut world = World::run("start web --timeout=15s");
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
    let mut waiting = web(true, 2, 2, "Pending");
    waiting["status"]["conditions"][0]["reason"] = json!("NodeAgentMissing");
    waiting["status"]["conditions"][0]["message"] = json!("the node agent is not registered on node1");
    world.list(ALL, &[waiting]).await;
    let ended = world.ended().await;
    ended.failed(3, "NodeAgentMissing: the node agent is not registered on node1");
    ended.failed(3, "kubectl stopc doctor");
}

#[tokio::test(start_paused = true)]
async fn a_doctor_without_a_server_says_it_once() {
    let mut world = World::run("doctor");
    let call = world.api.expect("GET", "/version").await;
    call.refuse(401, "Unauthorized", "Unauthorized");
    let ended = world.ended().await;
    ended.failed(1, "cannot check the installation: the API server does not accept");
    assert_eq!(ended.out, "");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached() {
    let args = kubectl_stopc_args("list --server http://127.0.0.1:1");
    let connection = &args.connection;
    let screen = kubectl_stopc::screen::Screen::new(std::io::sink(), std::io::sink(), None);
    let mut session = kubectl_stopc::session::Session {
        client: kube_client(connection.server.as_deref().unwrap()),
        namespace: "team".to_owned(),
        screen,
        kubectl_flags: Vec::new(),
    };
    let failure = kubectl_stopc::run_in(&mut session, &args.command)
        .await
        .unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    assert!(
        failure
            .to_string()
            .contains("the API server cannot be reached: Connection refused"),
        "{failure}"
    );
}

fn kubectl_stopc_args(line: &str) -> kubectl_stopc::args::Args {
    clap::Parser::parse_from(std::iter::once("kubectl-stopc").chain(line.split(' ')))
}

fn kube_client(url: &str) -> kube::Client {
    kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}
