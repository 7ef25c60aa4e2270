/*!
The consumer pod as the controller asks for it: the user's template, our labels,
the owner, and that it stays on its node. What makes it run on the kept filesystem is the webhook's work, at
admission, with every other webhook in the chain; nothing is decided here.
*/

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use stoppablecontainer_api::names::{
    ANNOTATION_PLACEMENT, ANNOTATION_TEMPLATE_FIELDS, ANNOTATION_TEMPLATE_HASH, PLACEMENT_SCHEDULER,
};
use stoppablecontainer_api::{Placement, StoppableContainerInstance};

use super::hash::template_hash;
use super::pods::{Role, owner_reference};
use super::restart_required;
use super::tolerations::staying;

/// The consumer pod of `instance`. Of the template's metadata it takes what Kubernetes' own controllers take: labels,
/// annotations and finalizers.
pub fn consumer_pod(instance: &StoppableContainerInstance) -> Pod {
    let name = instance.name_any();
    let given = instance.spec.template.metadata.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.extend(Role::Consumer.labels(&name));
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), consumer_hash(instance));
    annotations.insert(
        ANNOTATION_TEMPLATE_FIELDS.to_owned(),
        restart_required::annotation(instance),
    );
    // A user's own says nothing.
    annotations.remove(ANNOTATION_PLACEMENT);
    if instance.status.as_ref().and_then(|status| status.placement) == Some(Placement::Scheduler) {
        annotations.insert(ANNOTATION_PLACEMENT.to_owned(), PLACEMENT_SCHEDULER.to_owned());
    }
    let spec = instance.spec.template.spec.clone().map(|spec| PodSpec {
        tolerations: Some(staying(spec.tolerations.unwrap_or_default())),
        ..spec
    });
    Pod {
        metadata: ObjectMeta {
            name: Some(Role::Consumer.pod_name(&name)),
            namespace: instance.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            finalizers: given.finalizers,
            owner_references: Some(vec![owner_reference(instance)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// Identifies the template: a consumer that never came up is replaced when this changes.
pub fn consumer_hash(instance: &StoppableContainerInstance) -> String {
    template_hash(&instance.spec.template)
}
