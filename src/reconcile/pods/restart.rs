/*!
Restarts that the user asks for with an annotation of the template.

A consumer pod carries a hash of the value that it was created with, so the pod itself shows whether
a request was answered: a crash of the controller neither loses a restart nor makes two. The request
is not part of what a pod is made of, so comparisons of templates leave it out.
*/

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use stoppablecontainer_api::names::{ANNOTATION_RESTARTED_AT, ANNOTATION_TEMPLATE_FIELDS};
use stoppablecontainer_api::{PodTemplate, StoppableContainerInstance};

use crate::reconcile::pods::template_fields::{ANNOTATIONS, short};
use crate::reconcile::pods::template_hash;

/// Key of the request's hash among the hashes of a template's fields.
pub(crate) const REQUEST: &str = "restartedAt";

/// Whether the user has asked for a restart since `pod`, a consumer of `instance`, was created.
///
/// Nothing is due if the pod does not show what it was created with, for example because another
/// webhook removes annotations: its successor would not show that either, and would be restarted
/// again.
pub(crate) fn is_due(instance: &StoppableContainerInstance, pod: &Pod) -> bool {
    let Some(wanted) = instance.spec.template.restarted_at() else {
        return false;
    };
    let hashes = pod.annotations().get(ANNOTATION_TEMPLATE_FIELDS);
    let hashes = hashes.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok());
    let Some(hashes) = hashes else {
        return false;
    };
    match hashes.get(REQUEST) {
        Some(answered) => *answered != hash(Some(wanted)),
        // Earlier versions took the request for an annotation like any other.
        None => instance.spec.template.value().is_ok_and(|template| {
            let now = short(&template["metadata"]["annotations"]);
            hashes.get(ANNOTATIONS) != Some(&now)
        }),
    }
}

/// What a consumer shows that is created now.
pub(crate) fn answered(instance: &StoppableContainerInstance) -> String {
    hash(instance.spec.template.restarted_at())
}

/// The template without the request, if that is another text than the template's.
pub(crate) fn without_request(template: &PodTemplate) -> Option<Value> {
    let text = template.json().as_str();
    // A request that was removed may leave these behind.
    let may_differ = [ANNOTATION_RESTARTED_AT, r#""annotations":{}"#, r#""metadata":{}"#];
    if !may_differ.iter().any(|part| text.contains(part)) {
        return None;
    }
    let mut value = template.value().ok()?;
    remove_request(&mut value);
    Some(value)
}

/// Removes the request from a template, and the objects that only it was in.
pub(crate) fn remove_request(template: &mut Value) {
    let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION_RESTARTED_AT);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if metadata.is_empty()
        && let Some(template) = template.as_object_mut()
    {
        template.remove("metadata");
    }
}

/// Empty without a request.
fn hash(request: Option<&str>) -> String {
    request.map(|request| template_hash(&request)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
