//! The chart's hooks: the check before `helm uninstall`, and `helm test`.

use serde_json::{Value, json};
use testkit::scripted::{Call, Scripted};
use webhook_certs::hooks::{HookError, check_unused, check_webhook};

const GROUP: &str = "/apis/stoppablecontainer.xtlsoft.top/v1alpha1";

fn list(names: &[&str]) -> Value {
    let item = |name: &&str| json!({"metadata": {"name": name, "namespace": "team"}});
    json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "items": names.iter().map(item).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn an_uninstallation_is_refused_while_objects_of_one_kind_exist() {
    for (container, instance) in [(true, false), (false, true)] {
        let (client, mut server) = Scripted::new();
        let hook = tokio::spawn(async move { check_unused(&client).await });
        for (plural, exists) in [
            ("stoppablecontainers", container),
            ("stoppablecontainerinstances", instance),
        ] {
            let call = server.expect("GET", &format!("{GROUP}/{plural}")).await;
            assert!(call.query.contains("limit=1"), "{}", call.query);
            call.answer(&list(if exists { &["web"] } else { &[] }));
            if exists {
                break;
            }
        }
        let error = hook.await.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("team/web") && error.contains("--no-hooks"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_uninstallation_without_objects_or_kinds_is_not_refused() {
    let (client, mut server) = Scripted::new();
    let hook = tokio::spawn(async move { check_unused(&client).await });
    let containers = format!("{GROUP}/stoppablecontainers");
    server.expect("GET", &containers).await.answer(&list(&[]));
    let instances = format!("{GROUP}/stoppablecontainerinstances");
    server
        .expect("GET", &instances)
        .await
        .refuse(404, "NotFound", "404 page not found");
    hook.await.unwrap().unwrap();
}

/// The answer to the invalid object decides.
async fn tested(answer: impl FnOnce(Call)) -> Result<(), HookError> {
    let (client, mut server) = Scripted::new();
    let hook = tokio::spawn(async move { check_webhook(&client, "default").await });
    let path = format!("{GROUP}/namespaces/default/stoppablecontainers");
    let valid = server.expect("POST", &path).await;
    assert!(valid.query.contains("dryRun=All"), "{}", valid.query);
    valid.create("1");
    let invalid = server.expect("POST", &path).await;
    assert!(invalid.query.contains("dryRun=All"), "{}", invalid.query);
    answer(invalid);
    hook.await.unwrap()
}

#[tokio::test]
async fn the_test_of_a_release_passes_only_if_the_webhook_rejects_an_invalid_object() {
    let denied = "admission webhook \"objects.stoppablecontainer.xtlsoft.top\" denied the request";
    tested(|call| call.refuse(422, "Invalid", denied)).await.unwrap();

    let accepted = tested(|call| drop(call.create("1"))).await;
    assert!(matches!(accepted, Err(HookError::NotCalled)));

    let forbidden = tested(|call| call.refuse(403, "Forbidden", "quota")).await;
    assert!(matches!(forbidden, Err(HookError::OtherReason(_))));
}
