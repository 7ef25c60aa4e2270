//! `/validate`: StoppableContainers and StoppableContainerInstances.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};

use webhook_fixtures::{Answer, Harness, creation};

const GROUP: &str = "stoppablecontainer.xtlsoft.top";
const RESTARTED_AT: &str = "stoppablecontainer.xtlsoft.top/restartedAt";
const RECOVERY: &str = "stoppablecontainer.xtlsoft.top/recovery";

fn object(spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": { "name": "dev", "namespace": "team" },
        "spec": {
            "running": true, "hostPathPrefix": "/var/lib/stoppablecontainer",
            "template": { "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] } },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

async fn create(spec: &Value) -> Answer {
    Harness::empty()
        .review("/validate", &creation("StoppableContainer", GROUP, &object(spec)))
        .await
}

async fn update(old: &Value, new: &Value) -> Answer {
    let mut request = creation("StoppableContainer", GROUP, new);
    request["operation"] = json!("UPDATE");
    request["oldObject"] = old.clone();
    Harness::empty().review("/validate", &request).await
}

fn template(spec: &Value) -> Value {
    let mut pod = json!({ "containers": [{ "name": "main", "image": "i" }] });
    for (key, value) in spec.as_object().unwrap() {
        pod[key] = value.clone();
    }
    json!({ "template": { "spec": pod } })
}

#[tokio::test]
async fn a_good_object_is_allowed_without_a_word() {
    for prefix in ["/var/lib/stoppablecontainer", "/data/sc"] {
        let answer = create(&json!({ "hostPathPrefix": prefix })).await;
        assert!(answer.is_allowed() && answer.warnings().is_empty(), "{answer:?}");
    }
}

#[rstest::rstest]
#[case(json!({ "template": {} }), "spec.template.spec: Required value")]
#[case(template(&json!({ "containers": [] })), "spec.template.spec.containers: Required value")]
#[case(template(&json!({ "os": { "name": "windows" } })), "spec.template.spec.os.name: must be linux")]
#[case(
    template(&json!({ "volumes": [{ "name": "a" }, { "name": "stoppablecontainer" }] })),
    "spec.template.spec.volumes[1].name: \"stoppablecontainer\" is reserved"
)]
#[case(
    template(&json!({ "initContainers": [{ "name": "i", "volumeMounts": [{ "name": "v", "mountPath": "/.stoppablecontainer/x" }] }] })),
    "spec.template.spec.initContainers[0].volumeMounts[0].mountPath: /.stoppablecontainer"
)]
#[case(template(&json!({ "ephemeralContainers": [{ "name": "e" }] })), "spec.template.spec.ephemeralContainers: must be empty")]
#[case(json!({ "hostPathPrefix": "/etc" }), "spec.hostPathPrefix: Unsupported value: \"/etc\": the administrator allows /var/lib/stoppablecontainer, /data/sc")]
// Below an allowed one may be another object's data.
#[case(json!({ "hostPathPrefix": "/data/sc/uid" }), "spec.hostPathPrefix: Unsupported value")]
#[case(json!({ "hostPathPrefix": "data/sc" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "/data/sc/" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "/data//sc" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "/data/sc/../x" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "/data/\nsc" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "/" }), "spec.hostPathPrefix: Invalid value")]
#[case(json!({ "hostPathPrefix": "" }), "spec.hostPathPrefix: Invalid value")]
#[tokio::test]
async fn a_mistake_is_refused_with_its_path(#[case] spec: Value, #[case] expected: &str) {
    let answer = create(&spec).await;
    assert!(
        answer
            .message()
            .starts_with(&format!("StoppableContainer \"dev\" is invalid: {expected}")),
        "{answer:?}"
    );
    assert_eq!(answer.0["status"]["code"], 422);
}

/// Its consumers would never be sent to the webhook; the reason must not come from the node agent,
/// much later.
#[tokio::test]
async fn an_object_in_an_excluded_namespace_is_refused_and_an_old_one_there_can_be_changed() {
    let object = object(&json!({}));
    let mut request = creation("StoppableContainer", GROUP, &object);
    request["namespace"] = json!("kube-system");
    let answer = Harness::empty().review("/validate", &request).await;
    assert!(
        answer
            .message()
            .contains("metadata.namespace: Invalid value: \"kube-system\""),
        "{answer:?}"
    );

    let mut stopped = object.clone();
    stopped["spec"]["running"] = json!(false);
    request["operation"] = json!("UPDATE");
    request["oldObject"] = object;
    request["object"] = stopped;
    assert!(Harness::empty().review("/validate", &request).await.is_allowed());
}

/// A decision that names no failure could be taken for one on a later failure, and lose data.
#[tokio::test]
async fn i1_a_decision_on_a_failure_names_the_failure() {
    let decided = |value: &str| {
        let mut object = object(&json!({}));
        object["metadata"]["annotations"] = json!({ "stoppablecontainer.xtlsoft.top/recovery": value });
        object
    };
    for value in ["accept-0123456789abcdef", "reset-0123456789abcdef"] {
        assert!(
            update(&object(&json!({})), &decided(value)).await.is_allowed(),
            "{value}"
        );
    }
    for value in ["reset", "accept", "", "wipe-0123456789abcdef"] {
        let answer = update(&object(&json!({})), &decided(value)).await;
        let expected = "metadata.annotations[stoppablecontainer.xtlsoft.top/recovery]: Unsupported value";
        assert!(answer.message().contains(expected), "{value:?}: {answer:?}");
        assert!(
            update(&decided(value), &decided(value)).await.is_allowed(),
            "an old mistake does not stand in the way of labels"
        );
    }
}

/// Where no node can run it, as far as they have said, or the node that has the files cannot.
#[tokio::test]
async fn h20_i12_own_users_that_no_node_can_run_are_refused() {
    let spec = template(&json!({ "hostUsers": false }));
    let asked = async |harness: &Harness, old: Option<&Value>| {
        let mut request = creation("StoppableContainer", GROUP, &object(&spec));
        request["userInfo"]["username"] = json!("author");
        if let Some(old) = old {
            request["operation"] = json!("UPDATE");
            request["oldObject"] = old.clone();
        }
        harness.review("/validate", &request).await
    };
    let mut harness = Harness::empty();
    assert!(asked(&harness, None).await.is_allowed(), "no node is known");
    harness.runtime("node-1", false);
    let refused = asked(&harness, None).await;
    assert!(
        refused
            .message()
            .contains("spec.template.spec.hostUsers: node node-1 cannot run pods"),
        "{refused:?}"
    );
    harness.runtime("node-2", false);
    let refused = asked(&harness, None).await;
    assert!(
        refused.message().contains("no node of this cluster"),
        "{refused:?}"
    );
    // What stood there before is not held against a change of something else.
    let mut old = object(&spec);
    old["spec"]["running"] = json!(false);
    assert!(asked(&harness, Some(&old)).await.is_allowed());

    harness.runtime("node-2", true);
    assert!(asked(&harness, None).await.is_allowed());
    let instance = |never_started: bool| {
        json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "dev", "namespace": "team", "uid": "u1" },
            "spec": { "stoppableContainerName": "dev", "template": { "spec": { "containers": [] } } },
            "status": { "nodeName": "node-1", "neverStarted": never_started },
        })
    };
    let old = object(&json!({}));
    harness.instance(&instance(true));
    assert!(
        asked(&harness, Some(&old)).await.is_allowed(),
        "it may still get another node"
    );
    harness.instance(&instance(false));
    let refused = asked(&harness, Some(&old)).await;
    assert!(
        refused.message().contains("node node-1 cannot run pods"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn all_mistakes_come_in_one_answer() {
    let mut spec = template(&json!({
        "hostUsers": false,
        "volumes": [{ "name": "stoppablecontainer" }],
        "containers": [{ "name": "main", "volumeMounts": [{ "name": "stoppablecontainer", "mountPath": "/.stoppablecontainer" }] }],
    }));
    spec["hostPathPrefix"] = json!("/etc");
    let mut harness = Harness::empty();
    harness.runtime("node-1", false);
    let mut request = creation("StoppableContainer", GROUP, &object(&spec));
    request["userInfo"]["username"] = json!("author");
    let answer = harness.review("/validate", &request).await;
    for field in [
        "spec.hostPathPrefix: ",
        "spec.template.spec.hostUsers: ",
        "spec.template.spec.volumes[0].name: ",
        "spec.template.spec.containers[0].volumeMounts[0].name: ",
        "spec.template.spec.containers[0].volumeMounts[0].mountPath: ",
    ] {
        assert!(answer.message().contains(field), "{field} not in {answer:?}");
    }
}

#[rstest::rstest]
#[case(template(&json!({ "restartPolicy": "Never" })), "spec.template.spec.restartPolicy: is overridden")]
#[case(template(&json!({ "nodeName": "n" })), "spec.template.spec.nodeName: is overridden")]
#[case(
    json!({ "template": {
        "metadata": { "labels": { "stoppablecontainer.xtlsoft.top/role": "x" } },
        "spec": { "containers": [{ "name": "main" }] },
    } }),
    "spec.template.metadata.labels[stoppablecontainer.xtlsoft.top/role]: is overridden"
)]
#[case(
    json!({ "template": {
        "metadata": { "annotations": { "stoppablecontainer.xtlsoft.top/main-container": "x" } },
        "spec": { "containers": [{ "name": "main" }] },
    } }),
    "spec.template.metadata.annotations[stoppablecontainer.xtlsoft.top/main-container]: is ignored"
)]
#[tokio::test]
async fn what_is_overridden_is_a_warning(#[case] spec: Value, #[case] expected: &str) {
    let answer = create(&spec).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].starts_with(expected),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_change_of_the_template_while_running_takes_effect_at_the_next_start_and_says_so() {
    let running = object(&json!({}));
    let changed = object(&template(
        &json!({ "containers": [{ "name": "main", "image": "nginx:1.26" }] }),
    ));
    let answer = update(&running, &changed).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].contains("next start"),
        "{answer:?}"
    );

    let mut stopped = running.clone();
    stopped["spec"]["running"] = json!(false);
    assert!(update(&stopped, &changed).await.warnings().is_empty());
    assert!(update(&running, &stopped).await.warnings().is_empty());

    let mut restarted = changed;
    restarted["spec"]["template"]["metadata"] = json!({ "annotations": { RESTARTED_AT: "1" } });
    assert!(
        update(&running, &restarted).await.warnings().is_empty(),
        "a restart applies it"
    );
}

/// An annotation at the wrong place, and the identifier of another instance.
#[tokio::test]
async fn i12_an_annotation_that_does_nothing_is_a_warning() {
    let mut old = object(&json!({}));
    old["status"] = json!({ "instanceUid": "0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c" });
    let annotated = |key: &str, value: &str| {
        let mut object = old.clone();
        object["metadata"]["annotations"] = json!({ key: value });
        object
    };
    let misplaced = update(&old, &annotated(RESTARTED_AT, "1")).await;
    assert!(misplaced.is_allowed());
    assert!(
        misplaced.warnings()[0].contains("spec.template.metadata.annotations"),
        "{misplaced:?}"
    );
    let another = annotated(RECOVERY, "reset-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4d");
    let answer = update(&old, &another).await;
    assert!(answer.is_allowed());
    assert!(
        answer.warnings()[0].contains("status.instanceUid is 0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c"),
        "{answer:?}"
    );
    assert!(update(&another, &another).await.warnings().is_empty(), "once");
    for right in [
        "reset-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c",
        "reset-0b6e9f3c1d2e4f5a8b7c9d0e1f2a3b4c",
        "reset-0123456789abcdef",
    ] {
        let answer = update(&old, &annotated(RECOVERY, right)).await;
        assert!(answer.warnings().is_empty(), "{right}: {answer:?}");
    }
}

#[tokio::test]
async fn i10_an_object_with_an_old_mistake_can_be_stopped_labelled_and_deleted() {
    // Made when the administrator still allowed its prefix.
    let old = object(&json!({ "hostPathPrefix": "/formerly/allowed" }));
    let mut stopped = old.clone();
    stopped["spec"]["running"] = json!(false);
    assert!(update(&old, &stopped).await.is_allowed());

    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    assert!(update(&old, &labelled).await.is_allowed());

    let mut worse = stopped.clone();
    worse["spec"]["template"]["spec"]["os"] = json!({ "name": "windows" });
    assert!(update(&old, &worse).await.message().contains("spec.os.name"));

    // On its way out nothing is checked: a finalizer must be removable whatever the spec says.
    worse["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(update(&old, &worse).await.is_allowed());

    let mut deletion = creation("StoppableContainer", GROUP, &Value::Null);
    deletion["operation"] = json!("DELETE");
    deletion["oldObject"] = old;
    assert!(Harness::empty().review("/validate", &deletion).await.is_allowed());
}

#[tokio::test]
async fn instances_are_held_to_the_same_rules() {
    let mut instance = object(&json!({ "hostPathPrefix": "/etc" }));
    instance["spec"]["stoppableContainerName"] = json!("dev");
    let request = creation("StoppableContainerInstance", GROUP, &instance);
    let answer = Harness::empty().review("/validate", &request).await;
    assert!(
        answer
            .message()
            .starts_with("StoppableContainerInstance \"dev\" is invalid: spec.hostPathPrefix"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_refused() {
    let answer = create(&json!({ "template": { "spec": { "containers": 3 } } })).await;
    assert!(
        answer
            .message()
            .contains("spec.template.spec.containers: Invalid value: invalid type: integer `3`, expected"),
        "{answer:?}"
    );
}

/// URI and body of each request.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// What an API server answers to the dry run of the pod, and the requests that it got.
fn api(code: u16, status: Value) -> (Harness, Requests) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let answer = move |uri: Uri, body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let answer = if code < 300 { body.clone() } else { status };
        seen.lock().unwrap().push((uri.to_string(), body));
        (StatusCode::from_u16(code).unwrap(), Json(answer))
    };
    (Harness::with_api(Router::new().fallback(answer)), requests)
}

fn status(code: u16, message: &str, causes: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "x", "message": message,
        "details": { "causes": causes },
    })
}

async fn by_user(harness: &Harness, spec: &Value) -> Answer {
    let mut request = creation("StoppableContainer", GROUP, &object(spec));
    request["userInfo"]["username"] = json!("jane");
    harness.review("/validate", &request).await
}

#[tokio::test]
async fn i13_the_pod_is_tried_without_being_made_or_told_as_ours() {
    let (harness, requests) = api(201, Value::Null);
    let mut spec = template(
        &json!({ "nodeName": "n", "restartPolicy": "Never", "containers": [{ "name": "main", "image": "i" }] }),
    );
    spec["template"]["metadata"]["labels"] =
        json!({ "app": "x", "stoppablecontainer.xtlsoft.top/role": "consumer" });
    assert!(by_user(&harness, &spec).await.is_allowed());
    let requests = requests.lock().unwrap();
    let [(uri, pod)] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert!(
        uri.starts_with("/api/v1/namespaces/team/pods?") && uri.contains("dryRun=All"),
        "{uri}"
    );
    assert_eq!(
        pod["metadata"],
        json!({ "generateName": "dev-", "labels": { "app": "x" } })
    );
    assert_eq!(
        pod["spec"],
        json!({ "restartPolicy": "Always", "containers": [{ "name": "main", "image": "i" }] })
    );
}

#[tokio::test]
async fn what_makes_the_pod_invalid_makes_the_object_invalid_with_its_paths() {
    let causes = json!([
        { "reason": "FieldValueInvalid", "field": "spec.containers[0].ports[0].containerPort", "message": "Invalid value: 0: must be between 1 and 65535" },
        { "reason": "FieldValueRequired", "field": "spec.containers[0].image", "message": "Required value" },
    ]);
    let (harness, _) = api(422, status(422, "Pod is invalid", &causes));
    let answer = by_user(&harness, &json!({})).await;
    for problem in [
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 0",
        "spec.template.spec.containers[0].image: Required value",
    ] {
        assert!(answer.message().contains(problem), "{answer:?}");
    }
}

#[rstest::rstest]
#[case::policy(403, "pods is forbidden: violates PodSecurity \"restricted:latest\"")]
#[case::quota(403, "pods is forbidden: exceeded quota: q")]
#[case::service_account(403, "error looking up service account team/robot")]
#[case::webhook(422, "admission webhook \"v.example\" denied the request: no")]
#[case::admission_policy(
    422,
    "pods \"dev-x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
)]
#[case::server(500, "etcd is away")]
#[tokio::test]
async fn what_stands_in_the_way_now_is_a_warning(#[case] code: u16, #[case] message: &str) {
    let (harness, _) = api(code, status(code, message, &json!([])));
    let answer = by_user(&harness, &json!({})).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].contains(message),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn f10_a_slow_api_server_is_not_waited_for() {
    let harness = Harness::with_api(Router::new().fallback(std::future::pending::<()>));
    let answer = by_user(&harness, &json!({})).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].contains("was not checked"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_pod_is_tried_for_authors_and_new_templates_only() {
    let (harness, requests) = api(201, Value::Null);
    harness
        .review(
            "/validate",
            &creation("StoppableContainer", GROUP, &object(&json!({}))),
        )
        .await;
    let mut request = creation("StoppableContainer", GROUP, &object(&json!({ "running": false })));
    request["userInfo"]["username"] = json!("jane");
    request["operation"] = json!("UPDATE");
    request["oldObject"] = object(&json!({}));
    assert!(harness.review("/validate", &request).await.is_allowed());
    assert!(requests.lock().unwrap().is_empty());
}
