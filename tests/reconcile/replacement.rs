//! The first provider makes room for the lasting one at the first stop.

use serde_json::{Value, json};

use crate::objects::{INSTANCE_STATUS, PODS, PROVIDER, terminating};
use crate::world::{World, merge, preconditions, reasons};

const CLAIM: &str = "/api/v1/namespaces/team/persistentvolumeclaims/data";
const DIGEST: &str = "docker.io/library/nginx@sha256:1";

/// What the API server has after a provider was created and came up on node `n1`.
fn up(created: &Value) -> Value {
    let mut pod = created.clone();
    merge(
        &mut pod,
        &json!({
            "metadata": { "namespace": "team", "resourceVersion": "50" },
            "spec": { "nodeName": "n1" },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        }),
    );
    pod
}

/// What the agent writes of it.
fn prepared(world: &mut World, provider: &str) {
    let filesystem = json!({
        "state": "Ready", "nodeName": "n1", "providerPodUid": provider,
        "image": { "reference": "nginx:1.25", "id": "sha256:1", "repoDigest": DIGEST },
        "identity": { "user": "", "uid": 0, "gid": 0 },
    });
    world.instance["status"]["filesystem"] = filesystem;
}

fn volumes(pod: &Value) -> Vec<&str> {
    let volumes = pod["spec"]["volumes"].as_array().unwrap().iter();
    volumes.map(|volume| volume["name"].as_str().unwrap()).collect()
}

/// Created stopped, with a claim and anti-affinity: `Stopped` is what it is when it holds and
/// repels nothing.
#[tokio::test]
async fn i1_i2_i12_the_lasting_provider_holds_nothing_but_node_and_image() {
    let mut world = World::new();
    world.instance["metadata"]["finalizers"] = json!(["stoppablecontainer.xtlsoft.top/cleanup"]);
    world.instance["spec"]["running"] = json!(false);
    let apart = json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }]);
    merge(
        &mut world.instance["spec"]["template"]["spec"],
        &json!({
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": apart } },
        }),
    );
    world.check(None);
    world.sync(&[]);
    let reconciling = world.reconcile();
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } });
    world.api.expect("GET", CLAIM).await.answer(&claim);
    let first = world.api.expect("POST", PODS).await.create("first");
    assert_eq!(volumes(&first), ["stoppablecontainer", "data"]);
    assert!(first["spec"]["affinity"]["podAntiAffinity"].is_object());
    world.patched(INSTANCE_STATUS).await;
    reconciling.await.unwrap().unwrap();

    // It came up, and the agent has prepared the filesystem.
    world.instance["status"]["nodeName"] = json!("n1");
    prepared(&mut world, "first");
    let first = up(&first);
    world.sync(std::slice::from_ref(&first));
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Pending"), "not Stopped yet");
    assert_eq!(
        status["status"]["image"],
        json!({ "name": "nginx:1.25", "digest": DIGEST })
    );
    let delete = world.api.expect("DELETE", PROVIDER).await;
    assert_eq!(preconditions(&delete), ("first", "50"));
    delete.answer(&terminating(&first));
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(reasons(&status)[1], "Starting");
    reconciling.await.unwrap().unwrap();

    world.sync(&[]);
    let reconciling = world.reconcile();
    world
        .api
        .expect("GET", PROVIDER)
        .await
        .refuse(404, "NotFound", "pods \"web-provider\" not found");
    let second = world.api.expect("POST", PODS).await.create("second");
    assert_eq!(volumes(&second), ["stoppablecontainer"]);
    assert_eq!(second["spec"]["containers"][0]["image"], json!(DIGEST));
    let affinity = &second["spec"]["affinity"];
    assert!(affinity.get("podAntiAffinity").is_none());
    let nodes = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        nodes["nodeSelectorTerms"][0]["matchFields"][0]["values"],
        json!(["n1"])
    );
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["providerPodUid"], json!("second"));
    reconciling.await.unwrap().unwrap();

    prepared(&mut world, "second");
    let second = up(&second);
    world.sync(std::slice::from_ref(&second));
    let reconciling = world.reconcile();
    let status = world.patched(INSTANCE_STATUS).await;
    assert_eq!(status["status"]["phase"], json!("Stopped"));
    assert_eq!(world.event().await, ("Normal".to_owned(), "Stopped".to_owned()));
    reconciling.await.unwrap().unwrap();
    world.sync(&[second]);
    world.expect_no_requests().await;
}
