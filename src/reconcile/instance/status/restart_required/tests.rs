//! Edits of a running consumer's template, and the paths that name them.

use std::sync::Arc;

use serde_json::{Value, json};
use stoppablecontainer_api::names::ANNOTATION_RESTARTED_AT;

use super::*;
use crate::reconcile::instance::fixtures::{changed, with_both};
use crate::reconcile::instance::state::Slot;
use crate::reconcile::instance::status::status;
use crate::reconcile::pods::fixtures::up;

/// A consumer of this template runs, and then the object's spec is changed.
fn edit(template: &Value, change: &Value) -> Observed {
    let observed = with_both(json!({ "spec": { "template": template } }), up());
    let mut instance = (*observed.instance).clone();
    let mut spec = serde_json::to_value(&instance.spec).unwrap();
    json_patch::merge(&mut spec, change);
    instance.spec = serde_json::from_value(spec).unwrap();
    Observed {
        instance: Arc::new(instance),
        ..observed
    }
}

fn two() -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": {
        "nodeSelector": { "zone": "a" },
        "containers": [
            { "name": "main", "image": "nginx:1.25", "env": [{ "name": "TOKEN", "value": "secret-1" }] },
            { "name": "side", "image": "side" },
        ],
    }})
}

fn names(change: &Value) -> Option<String> {
    let message = why(&edit(&two(), change))?.message;
    let what = message.split("edited: ").nth(1)?;
    Some(what.split("; stop").next()?.to_owned())
}

#[test]
fn i12_the_fields_of_an_edit_are_named_and_their_values_are_not() {
    assert_eq!(names(&json!({})), None);
    let env = json!([{ "name": "TOKEN", "value": "secret-2" }]);
    let main = json!({ "name": "main", "image": "nginx:1.26", "env": env });
    let side = json!({ "name": "side", "image": "side" });
    let containers = |list: Value| json!({ "template": { "spec": { "containers": list } } });
    assert_eq!(
        names(&containers(json!([main, side]))).as_deref(),
        Some("spec.template.spec.containers[0].env, spec.template.spec.containers[0].image")
    );
    let message = why(&edit(&two(), &containers(json!([main, side]))))
        .unwrap()
        .message;
    assert!(
        !message.contains("secret") && !message.contains("nginx"),
        "{message}"
    );
    let before = two()["spec"]["containers"][0].clone();
    assert_eq!(
        names(&containers(json!([before]))).as_deref(),
        Some("spec.template.spec.containers[1].image, spec.template.spec.containers[1].name")
    );
    let labels = json!({ "template": { "metadata": { "labels": { "app": "x" } } } });
    assert_eq!(names(&labels).as_deref(), Some("spec.template.metadata.labels"));
    let gone = json!({ "template": { "spec": { "nodeSelector": null } } });
    assert_eq!(names(&gone).as_deref(), Some("spec.template.spec.nodeSelector"));
    let provider = json!({ "provider": { "resources": { "requests": { "cpu": "1" } } } });
    assert_eq!(names(&provider).as_deref(), Some("spec.provider.resources"));
}

#[test]
fn i12_ready_says_that_a_restart_is_required() {
    let now = || "2026-01-02T03:04:05Z".parse().unwrap();
    let labels = json!({ "template": { "metadata": { "labels": { "app": "x" } } } });
    let told = status(&edit(&two(), &labels), now()).conditions;
    let kinds: Vec<_> = told
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    assert_eq!(kinds[0], ("Ready", "True"));
    assert_eq!(kinds[6], ("RestartRequired", "True"));
    assert_eq!(told[6].reason, "TemplateEdited");
    assert!(
        told[0].message.contains("pod web is ready; RestartRequired: "),
        "{}",
        told[0].message
    );
    assert!(
        told[0].message.contains("spec.template.metadata.labels"),
        "{}",
        told[0].message
    );
    assert_eq!(status(&edit(&two(), &json!({})), now()).conditions.len(), 6);
}

#[test]
fn only_what_runs_and_is_to_go_on_requires_a_restart() {
    let change = json!({ "template": { "metadata": { "labels": { "app": "x" } } } });
    let mut stop = change.clone();
    stop["running"] = json!(false);
    assert_eq!(why(&edit(&two(), &stop)), None);
    let starting = edit(&two(), &change);
    let consumer = changed(starting.consumer.pod().unwrap(), |pod| pod.status = None);
    assert_eq!(
        why(&Observed {
            consumer,
            ..starting.clone()
        }),
        None,
        "it is replaced"
    );
    assert_eq!(
        why(&Observed {
            consumer: Slot::Free,
            ..starting
        }),
        None
    );
}

/// A consumer of an earlier version of the controller.
#[test]
fn i12_without_hashes_of_the_fields_the_edit_is_reported_all_the_same() {
    let change = json!({ "template": { "metadata": { "labels": { "app": "x" } } } });
    for fields in [None, Some("no json")] {
        let observed = edit(&two(), &change);
        let consumer = changed(observed.consumer.pod().unwrap(), |pod| {
            let annotations = pod.metadata.annotations.as_mut().unwrap();
            annotations.remove(ANNOTATION_TEMPLATE_FIELDS);
            if let Some(fields) = fields {
                annotations.insert(ANNOTATION_TEMPLATE_FIELDS.to_owned(), fields.to_owned());
            }
        });
        let message = why(&Observed { consumer, ..observed }).unwrap().message;
        assert!(
            message.contains("created the template was edited; stop and start"),
            "{message}"
        );
    }
}

#[test]
fn i18_however_large_a_template_is_little_is_written_and_said() {
    let containers = |count: usize, image: &str| {
        let of = |at: usize| json!({ "name": format!("c{at}"), "image": image, "command": ["x"], "args": ["y"], "tty": true });
        (0..count).map(of).collect::<Vec<_>>()
    };
    // With the largest number of containers there are more parts than are distinguished.
    for count in [30, 64] {
        let template = json!({ "spec": { "containers": containers(count, "one") } });
        let change = json!({ "template": { "spec": { "containers": containers(count, "two") } } });
        let observed = edit(&template, &change);
        let written = template_fields::annotation(&observed.instance);
        assert!(
            written.len() <= template_fields::MAX_BYTES + 2,
            "{count}: {}",
            written.len()
        );
        let message = why(&observed).unwrap().message;
        assert!(
            message.len() < 2000 && message.contains("spec.template.spec.containers"),
            "{count}: {message}"
        );
    }
}

/// A restart applies the edits, and is not an edit.
#[test]
fn i12_a_restart_is_not_required_where_one_is_asked_for() {
    let request = json!({ "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: "1" } } });
    assert_eq!(why(&edit(&two(), &json!({ "template": request }))), None);
    let mut both = request.clone();
    both["metadata"]["labels"] = json!({ "app": "x" });
    assert_eq!(why(&edit(&two(), &json!({ "template": both }))), None);
    let mut requested = two();
    json_patch::merge(&mut requested, &request);
    let removed = json!({ "template": { "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: null } } } });
    assert_eq!(why(&edit(&requested, &removed)), None);
    let mut label = removed;
    label["template"]["metadata"]["labels"] = json!({ "app": "x" });
    let message = why(&edit(&requested, &label)).unwrap().message;
    assert!(
        message.contains("edited: spec.template.metadata.labels;"),
        "{message}"
    );
}
