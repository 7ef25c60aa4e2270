/*!
Edits of CPU and memory that the kubelet applies to a consumer that runs: the subresource `resize`
of pods, which Kubernetes has by default since 1.33 (KEP-1287).

A consumer carries a hash of each part of its template, so the pod itself shows which amounts were
edited since. After the change it carries the hashes of the new ones, and only other edits need a
restart. A crash between the two writes repeats the first one, which changes nothing then.
*/

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::{ANNOTATION_TEMPLATE_FIELDS, ANNOTATION_TEMPLATE_HASH};

use super::template_fields;
use crate::reconcile::pods::consumer_hash;

/// Resources whose amounts can change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
/// Labels of Kueue, which admits a pod with the amounts that it is created with: it would not count
/// a change in place.
const KUEUE: &str = "kueue.x-k8s.io/";

/// A change of a consumer in place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resize {
    /// `spec.containers` of the strategic merge patch.
    pub(crate) containers: Value,
    /// The annotations that the pod has afterwards.
    pub(crate) annotations: Value,
}

/// The change that edits of the template ask for, or why the pod cannot be changed in place. `None`
/// if the amounts were not edited.
pub(crate) fn wanted(instance: &StoppableContainerInstance, pod: &Pod) -> Option<Result<Resize, String>> {
    let made_from = pod.annotations().get(ANNOTATION_TEMPLATE_HASH)?;
    if *made_from == consumer_hash(instance) {
        return None;
    }
    let before = pod.annotations().get(ANNOTATION_TEMPLATE_FIELDS)?;
    let before = serde_json::from_str::<BTreeMap<String, String>>(before).ok()?;
    let paths = template_fields::edited(instance, before.clone(), false);
    let mut edited = BTreeMap::<usize, BTreeSet<&str>>::new();
    let mut applied = Vec::new();
    for path in &paths {
        if let Some((container, resource)) = amount(path) {
            edited.entry(container).or_default().insert(resource);
            applied.push(path.clone());
        }
    }
    if edited.is_empty() {
        return None;
    }
    let annotations = || annotations(instance, before, &paths, &applied);
    Some(containers(instance, pod, &edited).map(|containers| Resize {
        containers,
        annotations: annotations(),
    }))
}

/// The container and the resource of a path, as
/// `spec.template.spec.containers[0].resources.limits.cpu`.
fn amount(path: &str) -> Option<(usize, &'static str)> {
    let rest = path.strip_prefix("spec.template.spec.containers[")?;
    let (container, rest) = rest.split_once("].resources.")?;
    let (kind, resource) = rest.split_once('.')?;
    let resource = RESIZABLE.into_iter().find(|name| *name == resource)?;
    let container = container.parse().ok()?;
    ["limits", "requests"]
        .contains(&kind)
        .then_some((container, resource))
}

/// The containers with their new amounts.
fn containers(
    instance: &StoppableContainerInstance,
    pod: &Pod,
    edited: &BTreeMap<usize, BTreeSet<&str>>,
) -> Result<Value, String> {
    let template = instance
        .spec
        .template
        .value()
        .map_err(|error| error.to_string())?;
    let mut labels = template["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys);
    if labels.any(|label| label.starts_with(KUEUE)) {
        return Err("Kueue admits the pod with the amounts that it is created with".to_owned());
    }
    let mut containers = Vec::new();
    for (index, resources) in edited {
        let container = &template["spec"]["containers"][*index];
        let name = container["name"].as_str().unwrap_or_default();
        let [limits, requests] = ["limits", "requests"].map(|kind| {
            let amounts = resources.iter().filter_map(|resource| {
                let of = |kind: &str| Some(&container["resources"][kind][*resource]).filter(|v| !v.is_null());
                // The API server gives a container with a limit alone that much.
                let amount = of(kind).or_else(|| of("limits"))?;
                Some(((*resource).to_owned(), amount.clone()))
            });
            amounts.collect::<Map<_, _>>()
        });
        let held = held(pod, name);
        for (kind, wanted) in [("limits", &limits), ("requests", &requests)] {
            let has = |resource: &&&str| held(kind, resource) && !wanted.contains_key(**resource);
            if let Some(resource) = resources.iter().find(has) {
                return Err(format!(
                    "resources.{kind}.{resource} of container {name} cannot be removed"
                ));
            }
        }
        containers.push(json!({ "name": name, "resources": { "limits": limits, "requests": requests } }));
    }
    Ok(json!(containers))
}

/// Whether a container of the pod has a limit or request of a resource.
fn held<'a>(pod: &'a Pod, container: &str) -> impl Fn(&str, &str) -> bool + 'a {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let found = containers.into_iter().find(|c| c.name == container);
    let resources = found.and_then(|container| container.resources.as_ref());
    move |kind, resource| {
        let amounts = resources.and_then(|resources| {
            if kind == "limits" {
                resources.limits.as_ref()
            } else {
                resources.requests.as_ref()
            }
        });
        amounts.is_some_and(|amounts| amounts.contains_key(resource))
    }
}

/// The annotations of a pod that was changed: these of its parts are as the template's.
fn annotations(
    instance: &StoppableContainerInstance,
    before: BTreeMap<String, String>,
    edited: &[String],
    applied: &[String],
) -> Value {
    let mut annotations = json!({});
    if edited.len() == applied.len() {
        annotations[ANNOTATION_TEMPLATE_HASH] = json!(consumer_hash(instance));
    }
    let parts = template_fields::with(instance, before, applied);
    annotations[ANNOTATION_TEMPLATE_FIELDS] = json!(parts);
    annotations
}

#[cfg(test)]
mod tests;
