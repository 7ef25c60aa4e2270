//! The content of a template, the fields that it keeps, and the cost of reading it.

use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::*;
use crate::names::ANNOTATION_RESTARTED_AT;
use crate::{StoppableContainer, StoppableContainerInstance};

fn template(value: &Value) -> PodTemplate {
    serde_json::from_value(value.clone()).unwrap()
}

fn object(template: &Value) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": { "name": "n" }, "spec": { "template": template },
    })
}

/// `n` volumes as in issue 10: `{"name":"a1"}`.
fn volumes(n: usize) -> Value {
    let volumes: Vec<_> = (0..n).map(|at| json!({ "name": format!("a{at}") })).collect();
    json!({ "spec": { "containers": [{ "name": "main", "image": "i" }], "volumes": volumes } })
}

#[test]
fn i19_fields_that_no_type_knows_are_kept_at_every_level() {
    let value = json!({
        "new": 1,
        "spec": {
            "schedulingGroup": { "name": "g", "deep": [{ "er": null }] },
            "containers": [{ "name": "main", "image": "i", "new": { "a": 0.5 }, "env": [{ "name": "A", "new": [] }] }],
            "volumes": [{ "name": "v", "newSource": { "x": "y" } }],
        },
    });
    let object: StoppableContainer = serde_json::from_value(object(&value)).unwrap();
    assert_eq!(serde_json::to_value(&object.spec.template).unwrap(), value);
    let known = object.spec.template.decode().unwrap();
    assert_eq!(known.spec.unwrap().containers[0].name, "main");
}

#[test]
fn i19_a_template_is_read_through_every_deserializer() {
    let value =
        json!({ "spec": { "containers": [{ "name": "main", "resources": { "limits": { "cpu": 0.5 } } }] } });
    let direct: StoppableContainer = serde_json::from_str(&object(&value).to_string()).unwrap();
    let guarded: DeserializeGuard<StoppableContainer> = serde_json::from_value(object(&value)).unwrap();
    assert_eq!(guarded.0.unwrap(), direct);
}

#[test]
fn i18_the_main_container_is_known_without_decoding() {
    let value = json!({ "spec": {
        "securityContext": { "runAsUser": 7 },
        "containers": [
            { "name": "main", "image": "i", "resources": { "limits": { "ephemeral-storage": "1Gi" } } },
            { "name": "other", "image": 3 },
        ],
    } });
    let expected = MainContainer {
        name: "main".to_owned(),
        image: "i".to_owned(),
        run_as_user: Some(7),
        storage_limit: Some("1Gi".to_owned()),
    };
    assert_eq!(template(&value).main(), &expected);
    for odd in [
        json!({}),
        json!({ "spec": { "containers": [] } }),
        json!(3),
        json!({ "spec": { "containers": 3 } }),
    ] {
        assert_eq!(template(&odd).main(), &MainContainer::default(), "{odd}");
    }
    let own = json!({ "spec": {
        "securityContext": { "runAsUser": 7 },
        "containers": [{ "name": "main", "securityContext": { "runAsUser": 0 } }],
    } });
    assert_eq!(template(&own).main().run_as_user, Some(0));
}

/// Story: one such object, with `running: false`, took all replicas of the operator down until its
/// finalizers were taken off by hand.
#[test]
fn i18_thirty_one_thousand_volumes_are_not_decoded() {
    let large = template(&volumes(31_000));
    let error = large.decode().unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.template.spec.volumes: Too many: 31000 items, must have at most 512"
    );
    assert_eq!(large.problem(), Some(&error));
    assert_eq!(large.main().name, "main", "it can be stopped and deleted");
    let fields: Vec<_> = large.excesses().iter().map(ToString::to_string).collect();
    assert_eq!(fields.len(), 3, "{fields:?}");
    assert!(
        fields[1].starts_with("spec.template: Too long: 546955 bytes"),
        "{fields:?}"
    );
    assert!(
        fields[2].starts_with("spec.template: Too long: 62007 values"),
        "{fields:?}"
    );
    assert_eq!(template(&volumes(512)).problem(), None);
}

#[test]
fn i18_every_list_and_the_whole_have_a_bound() {
    let env: Vec<_> = (0..2_001).map(|at| json!({ "name": format!("E{at}") })).collect();
    let value = json!({ "spec": { "containers": [{ "name": "main" }, { "name": "b", "env": env }] } });
    let error = template(&value).decode().unwrap_err();
    assert_eq!(error.field(), "spec.template.spec.containers[1].env");
    let long =
        json!({ "spec": { "containers": [{ "name": "main", "args": ["x".repeat(MAX_TEMPLATE_BYTES)] }] } });
    let error = template(&long).decode().unwrap_err().to_string();
    assert!(
        error.starts_with("spec.template: Too long: 524")
            && error.contains("bytes of JSON, must have at most 524288"),
        "{error}"
    );
    let nested: Vec<_> = (0..1_000).map(|_| vec![0; 100]).collect();
    let error = template(&json!({ "spec": { "containers": [], "x": nested } }))
        .decode()
        .unwrap_err();
    assert_eq!(error.field(), "spec.template");
}

#[test]
fn i12_a_template_that_is_none_names_the_field() {
    let value =
        json!({ "spec": { "containers": [{ "name": "main", "ports": [{ "containerPort": "http" }] }] } });
    assert_eq!(
        template(&value).decode().unwrap_err().to_string(),
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: invalid type: string \"http\", expected i32"
    );
    let error = template(&json!("x")).decode().unwrap_err();
    assert_eq!(error.field(), "spec.template");
}

#[test]
fn i18_the_provider_has_bounds_as_well() {
    let provider = |value: Value| serde_json::from_value::<Provider>(value).unwrap();
    assert_eq!(Provider::default().decode().unwrap(), ProviderSpec::default());
    let tolerations = vec![json!({}); 257];
    assert_eq!(
        provider(json!({ "tolerations": tolerations }))
            .decode()
            .unwrap_err()
            .field(),
        "spec.provider.tolerations"
    );
    let error = provider(json!({ "nodeSelector": { "a": 1 } }))
        .decode()
        .unwrap_err();
    assert_eq!(error.field(), "spec.provider.nodeSelector.a");
    let read = provider(json!({ "resources": { "requests": { "memory": "32Mi" } } }))
        .decode()
        .unwrap();
    assert_eq!(read.resources.limits, None);
}

#[test]
fn i18_an_instance_reads_its_limit_from_the_text() {
    let instance: StoppableContainerInstance = serde_json::from_value(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
        "metadata": { "name": "n" },
        "spec": { "stoppableContainerName": "n", "template": { "spec": { "containers": [{
            "name": "main", "resources": { "limits": { "ephemeral-storage": 10 } },
        }] } } },
        "status": { "filesystem": { "state": "Ready", "nodeName": "n", "usage": { "bytes": 11, "inodes": 1 } } },
    }))
    .unwrap();
    let filesystem = instance.status.as_ref().unwrap().filesystem.as_ref();
    assert_eq!(instance.storage_excess(filesystem).unwrap().limit, "10");
}

#[test]
fn a_request_for_a_restart_is_an_annotation_of_the_template() {
    let template = |json: serde_json::Value| serde_json::from_value::<PodTemplate>(json).unwrap();
    let with = template(json!({
        "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: "2026-01-01T00:00:00Z", "other": "x" } },
        "spec": { "containers": [] },
    }));
    assert_eq!(with.restarted_at(), Some("2026-01-01T00:00:00Z"));
    for without in [
        json!({ "spec": {} }),
        json!({ "metadata": { "annotations": null } }),
        json!({ "metadata": { "labels": { ANNOTATION_RESTARTED_AT: "x" } } }),
        json!({ "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: null } } }),
        json!({ "spec": { "containers": [{ "name": ANNOTATION_RESTARTED_AT }] } }),
    ] {
        assert_eq!(template(without.clone()).restarted_at(), None, "{without}");
    }
}
