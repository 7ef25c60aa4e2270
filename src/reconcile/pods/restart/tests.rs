//! What a request changes, and consumers of earlier versions.

use serde_json::json;

use super::*;
use crate::reconcile::pods::fixtures::{instance, pod, up};
use crate::reconcile::pods::{Role, consumer_hash, template_fields};

fn with(metadata: &Value) -> std::sync::Arc<StoppableContainerInstance> {
    instance(json!({ "spec": { "template": { "metadata": metadata } } }))
}

/// `kubectl annotate` and its undoing leave empty objects behind.
#[test]
fn a_request_and_its_remains_are_not_part_of_the_template() {
    let plain = instance(json!({}));
    let fields = |instance: &StoppableContainerInstance| {
        let text = template_fields::annotation(instance);
        let mut fields: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        fields.remove(REQUEST);
        fields
    };
    for metadata in [
        json!({ "annotations": { ANNOTATION_RESTARTED_AT: "1" } }),
        json!({ "annotations": {} }),
        json!({}),
    ] {
        let touched = with(&metadata);
        assert_eq!(consumer_hash(&touched), consumer_hash(&plain), "{metadata}");
        assert_eq!(fields(&touched), fields(&plain), "{metadata}");
    }
    let annotated = |more: Value| {
        let mut annotations = json!({ "a": "b" });
        json_patch::merge(&mut annotations, &more);
        consumer_hash(&with(&json!({ "annotations": annotations })))
    };
    assert_eq!(
        annotated(json!({ ANNOTATION_RESTARTED_AT: "1" })),
        annotated(json!({}))
    );
    assert_ne!(annotated(json!({ "c": "d" })), annotated(json!({})));
}

/// They took the request for an annotation like any other.
#[test]
fn f27_a_consumer_of_an_earlier_version_is_restarted_only_on_request() {
    let earlier = |annotations: Value| {
        let mut hashes = BTreeMap::from([("spec.provider.resources".to_owned(), "1".to_owned())]);
        if !annotations.is_null() {
            hashes.insert(ANNOTATIONS.to_owned(), short(&annotations));
        }
        let mut pod = (*pod(&instance(json!({})), Role::Consumer, up())).clone();
        let text = serde_json::to_string(&hashes).unwrap();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_TEMPLATE_FIELDS.to_owned(), text);
        pod
    };
    let asked = with(&json!({ "annotations": { "a": "b", ANNOTATION_RESTARTED_AT: "1" } }));
    assert!(is_due(&asked, &earlier(json!({ "a": "b" }))));
    assert!(is_due(&asked, &earlier(Value::Null)));
    let made_with = earlier(json!({ "a": "b", ANNOTATION_RESTARTED_AT: "1" }));
    assert!(!is_due(&asked, &made_with));
    assert!(!is_due(&instance(json!({})), &made_with));
}
