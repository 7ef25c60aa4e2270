//! Templates in `/validate`: how large they may be, and everything that is wrong with them in one
//! answer.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};

use webhook_fixtures::{Answer, CONTROLLER, Harness, creation};

const GROUP: &str = "stoppablecontainer.xtlsoft.top";

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": { "name": "dev", "namespace": "team" },
        "spec": {
            "running": false, "hostPathPrefix": "/var/lib/stoppablecontainer", "template": { "spec": spec },
        },
    })
}

fn main_container(fields: &Value) -> Value {
    let mut container = json!({ "name": "main", "image": "i" });
    json_patch::merge(&mut container, fields);
    json!({ "containers": [container] })
}

fn created(object: &Value, user: &str) -> Value {
    let mut request = creation("StoppableContainer", GROUP, object);
    request["userInfo"]["username"] = json!(user);
    request
}

fn updated(old: &Value, new: &Value) -> Value {
    let mut request = created(new, "jane");
    request["operation"] = json!("UPDATE");
    request["oldObject"] = old.clone();
    request
}

fn volumes(count: usize) -> Value {
    let volumes: Vec<_> = (0..count).map(|at| json!({ "name": format!("a{at}") })).collect();
    json!({ "containers": [{ "name": "main", "image": "i" }], "volumes": volumes })
}

/// Query and pod of each trial.
type Trials = Arc<Mutex<Vec<(String, Value)>>>;

/// The trials, and what an API server answers to them, by whether they are strict.
fn api(strict: (u16, Value), lenient: (u16, Value)) -> (Harness, Trials) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let answer = move |uri: Uri, body: Bytes| async move {
        let query = uri.query().unwrap_or_default().to_owned();
        let (code, answer) = if query.contains("fieldValidation=Strict") {
            strict
        } else {
            lenient
        };
        seen.lock()
            .unwrap()
            .push((query, serde_json::from_slice(&body).unwrap()));
        (StatusCode::from_u16(code).unwrap(), Json(answer))
    };
    (Harness::with_api(Router::new().fallback(answer)), requests)
}

fn status(code: u16, message: &str, causes: &Value) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "x", "message": message,
        "details": { "causes": causes },
    });
    (code, status)
}

fn good() -> (u16, Value) {
    (201, json!({}))
}

async fn tried(harness: &Harness, spec: &Value) -> Answer {
    harness.review("/validate", &created(&object(spec), "jane")).await
}

/// Story: `resources.requests.cpu: abc` was a warning ("a pod of this template would be refused
/// now"), and the pod's mistakes came only after ours were corrected.
#[tokio::test]
async fn i12_ours_and_the_pods_mistakes_come_in_one_answer() {
    let causes = json!([
        { "field": "spec.containers[0].ports[0].containerPort", "message": "Invalid value: 0: must be between 1 and 65535" },
        { "field": "spec.volumes[0].name", "message": "said twice" },
    ]);
    let (harness, requests) = api(status(422, "Pod is invalid", &causes), good());
    let mut spec = main_container(&json!({
        "resources": { "requests": { "cpu": "abc", "memory": "1Gi" } }, "ports": [{ "containerPort": 0 }], "tty": "yes",
    }));
    spec["volumes"] = json!([{ "name": "stoppablecontainer", "emptyDir": {} }]);
    let answer = tried(&harness, &spec).await;
    for mistake in [
        "spec.template.spec.containers[0].resources.requests[cpu]: Invalid value: \"abc\": must be a quantity",
        "spec.template.spec.containers[0].tty: Invalid value: invalid type: string \"yes\", expected a boolean",
        "spec.template.spec.volumes[0].name: \"stoppablecontainer\" is reserved",
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 0",
    ] {
        assert!(answer.message().contains(mistake), "{mistake} not in {answer:?}");
    }
    assert!(
        !answer.message().contains("said twice"),
        "one word for each field: {answer:?}"
    );
    // What could not be decoded was left out, so that the rest was looked at.
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    let container = &requests[0].1["spec"]["containers"][0];
    assert_eq!(container["resources"], json!({ "requests": { "memory": "1Gi" } }));
    assert_eq!(container["tty"], Value::Null);
}

#[tokio::test]
async fn i19_a_misspelt_field_is_refused_with_its_path_and_all_else_that_is_wrong() {
    let message = "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
                   \"spec.containers[0].imagge\", unknown field \"spec.foo\"";
    let causes = json!([{ "field": "spec.containers[0].image", "message": "Required value" }]);
    let (harness, requests) = api(
        status(400, message, &json!([])),
        status(422, "Pod is invalid", &causes),
    );
    let mut spec = main_container(&json!({ "imagge": "i" }));
    spec["foo"] = json!(1);
    let answer = tried(&harness, &spec).await;
    for mistake in [
        "spec.template.spec.containers[0].imagge: unknown field",
        "spec.template.spec.foo: unknown field",
        "spec.template.spec.containers[0].image: Required value",
    ] {
        assert!(answer.message().contains(mistake), "{mistake} not in {answer:?}");
    }
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    assert!(
        requests.iter().all(|(query, _)| query.contains("dryRun=All")),
        "I13"
    );
    assert_eq!(requests[0].1["spec"]["foo"], json!(1), "as it was written");
}

#[rstest::rstest]
#[case::too_new_for_the_words("json: cannot unmarshal number into Go struct field X.spec.x of type string")]
#[case::quantity("quantities must match the regular expression '^([+-]?[0-9.]+)$'")]
#[tokio::test]
async fn i12_what_the_api_server_cannot_decode_is_a_mistake(#[case] words: &str) {
    let message = format!("Pod in version \"v1\" cannot be handled as a Pod: {words}");
    let (harness, _) = api(status(400, &message, &json!([])), good());
    let answer = tried(&harness, &main_container(&json!({}))).await;
    assert!(
        answer.message().contains(&format!("spec.template: {words}")),
        "{answer:?}"
    );
}

/// A refusal by a webhook that does not support dry runs does not mean that the pod has mistakes.
#[tokio::test]
async fn what_is_not_about_the_pod_is_a_warning() {
    let message = "admission webhook \"w.example\" does not support dry run";
    let (harness, _) = api(status(400, message, &json!([])), good());
    let answer = tried(&harness, &main_container(&json!({}))).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].contains(message),
        "{answer:?}"
    );
}

/// Story: 31,000 volumes were admitted with the warning that the API server had not answered within
/// 1500 ms.
#[tokio::test]
async fn i18_a_template_that_is_too_large_is_refused_whether_the_api_server_answers_or_not() {
    let harness = Harness::with_api(Router::new().fallback(std::future::pending::<()>));
    let answer = tried(&harness, &volumes(31_000)).await;
    assert!(
        answer
            .message()
            .contains("spec.template.spec.volumes: Too many: 31000 items, must have at most 512"),
        "{answer:?}"
    );
    let long = main_container(&json!({ "args": vec!["x".repeat(1_000); 600] }));
    let answer = tried(&harness, &long).await;
    assert!(
        answer.message().contains("spec.template: Too long: 601862 bytes")
            && answer.message().contains("at most 524288"),
        "{answer:?}"
    );
    let mut request = object(&volumes(1));
    request["spec"]["provider"] = json!({ "tolerations": vec![json!({}); 300] });
    let answer = harness.review("/validate", &created(&request, "jane")).await;
    assert!(
        answer
            .message()
            .contains("spec.provider.tolerations: Too many: 300 items, must have at most 256"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn i10_i18_an_object_from_before_the_bounds_can_be_stopped_and_mended_but_not_made_worse() {
    let (harness, _) = api(good(), good());
    let mut running = object(&volumes(31_000));
    running["spec"]["running"] = json!(true);
    let stopped = object(&volumes(31_000));
    assert!(
        harness
            .review("/validate", &updated(&running, &stopped))
            .await
            .is_allowed()
    );
    assert!(
        harness
            .review("/validate", &updated(&stopped, &object(&volumes(1))))
            .await
            .is_allowed()
    );
    let worse = harness
        .review("/validate", &updated(&stopped, &object(&volumes(31_001))))
        .await;
    assert!(worse.message().contains("Too many: 31001"), "{worse:?}");
    // The controller gives the instance what its container has.
    let mut request = updated(&running, &stopped);
    request["userInfo"]["username"] = json!(CONTROLLER);
    assert!(harness.review("/validate", &request).await.is_allowed());
}

/// A pod of nothing but braces: seven megabytes that would be hundreds as values.
#[tokio::test]
async fn h24_i18_a_pod_that_is_large_only_in_memory_is_refused() {
    let harness = Harness::new();
    let mut pod = webhook_fixtures::pod();
    pod["spec"]["volumes"] = json!(vec![json!({}); 100_000]);
    let answer = harness.review("/mutate", &creation("Pod", "", &pod)).await;
    assert!(
        answer
            .message()
            .starts_with("spec.volumes: Too many: 100000 items, must have at most 1024"),
        "{answer:?}"
    );
    pod["spec"]["volumes"] = json!([]);
    pod["metadata"]["managedFields"] = json!(vec![json!({}); 100_000]);
    assert!(
        harness
            .review("/mutate", &creation("Pod", "", &pod))
            .await
            .is_allowed(),
        "who manages its fields does not count"
    );
}
