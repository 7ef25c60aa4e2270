//! The image in the status, and the image of later providers.

// Tables read better without borrows.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::*;
use crate::reconcile::instance::fixtures::with_provider;
use crate::reconcile::instance::state::Slot;
use crate::reconcile::pods::Role;
use crate::reconcile::pods::fixtures::{instance, pod, prepared, up};

const DIGEST: &str = "docker.io/library/nginx@sha256:1";

fn with_digest(digest: &str, pinned: &Value) -> Observed {
    with_provider(
        json!({ "status": { "image": pinned, "filesystem": { "image": { "repoDigest": digest } } } }),
    )
}

fn written(observed: &Observed) -> Value {
    serde_json::to_value(pinned(observed, &observed.status())).unwrap()
}

/// Image of the next provider of an object that has this in its status.
fn next(change: Value, pinned: &Value) -> String {
    let mut object = json!({ "status": prepared() });
    json_patch::merge(&mut object, &json!({ "status": { "image": pinned } }));
    json_patch::merge(&mut object, &change);
    let provider = pod(&instance(object), Role::Provider, up());
    main_image(&provider).unwrap().to_owned()
}

#[test]
fn f25_i1_what_a_name_stood_for_is_written_down_once_data_is_on_it() {
    let expected = json!({ "name": "nginx:1.25", "digest": DIGEST });
    assert_eq!(written(&with_digest(DIGEST, &Value::Null)), expected);
    // Loaded into the node, or pulled by another name: it could not be pulled by that name.
    assert_eq!(written(&with_digest("", &Value::Null)), Value::Null);
    assert_eq!(
        written(&with_digest("registry.example/other@sha256:1", &Value::Null)),
        Value::Null
    );
    // The runtime forgot it.
    assert_eq!(written(&with_digest("", &expected)), expected);
    let other = json!({ "name": "nginx:1.24", "digest": "docker.io/library/nginx@sha256:0" });
    assert_eq!(
        written(&with_digest("", &other)),
        Value::Null,
        "the user took the data over"
    );
}

#[test]
fn f25_what_is_written_down_stays_while_there_is_nothing_better() {
    let expected = json!({ "name": "nginx:1.25", "digest": DIGEST });
    let known = with_digest(DIGEST, &expected);
    let without = Observed {
        provider: Slot::Free,
        ..known.clone()
    };
    assert_eq!(written(&without), expected);
    let another = json!({ "status": { "image": expected, "filesystem": { "state": "Failed", "reason": "ImageChanged",
        "image": { "repoDigest": "docker.io/library/nginx@sha256:2" } } } });
    assert_eq!(
        written(&with_provider(another)),
        expected,
        "not while it is another image"
    );
}

#[test]
fn f25_i1_providers_are_made_of_the_digest_while_the_template_names_the_same_image() {
    let pinned = json!({ "name": "nginx:1.25", "digest": DIGEST });
    assert_eq!(next(json!({}), &pinned), DIGEST);
    assert_eq!(next(json!({}), &Value::Null), "nginx:1.25");
    let template = json!({ "containers": [{ "name": "main", "image": "nginx:1.26" }] });
    let edited = json!({ "spec": { "template": { "spec": template } } });
    assert_eq!(next(edited, &pinned), "nginx:1.26");
}

#[test]
fn f25_i12_a_digest_that_cannot_be_pulled_any_more_is_reported_with_the_way_out() {
    let pinned = json!({ "name": "nginx:1.25", "digest": DIGEST });
    let observed = with_digest(DIGEST, &pinned);
    let why = |reason: &str| Cause::new(reason, "container provider: not found");
    let told = with_recovery_hint(&observed, why("ImagePullBackOff"));
    assert_eq!(told.reason, "ImagePullBackOff");
    assert!(
        told.message
            .starts_with("container provider: not found. The files were made with nginx:1.25"),
        "{told:?}"
    );
    assert!(
        told.message.contains(DIGEST) && told.message.contains("name another image"),
        "{told:?}"
    );
    assert_eq!(
        with_recovery_hint(&observed, why("CreateContainerError")),
        why("CreateContainerError")
    );
    let by_name = with_digest("", &Value::Null);
    assert_eq!(
        with_recovery_hint(&by_name, why("ImagePullBackOff")),
        why("ImagePullBackOff")
    );
}
