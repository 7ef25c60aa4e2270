//! `/validate`: StoppableContainers and StoppableContainerInstances.

use serde_json::{Value, json};

use crate::support::{Answer, Harness, creation};

const GROUP: &str = "stoppablecontainer.xtlsoft.top";

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
#[case(template(&json!({ "hostUsers": false })), "spec.template.spec.hostUsers: must not be false")]
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

#[tokio::test]
async fn all_mistakes_come_in_one_answer() {
    let mut spec = template(&json!({
        "hostUsers": false,
        "volumes": [{ "name": "stoppablecontainer" }],
        "containers": [{ "name": "main", "volumeMounts": [{ "name": "stoppablecontainer", "mountPath": "/.stoppablecontainer" }] }],
    }));
    spec["hostPathPrefix"] = json!("/etc");
    let answer = create(&spec).await;
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
    worse["spec"]["template"]["spec"]["hostUsers"] = json!(false);
    assert!(update(&old, &worse).await.message().contains("hostUsers"));

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
        answer.message().starts_with("spec: cannot be read: "),
        "{answer:?}"
    );
}
