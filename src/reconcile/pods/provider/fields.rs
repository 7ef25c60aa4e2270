//! What of an instance goes into its provider, and how a provider shows what it was made from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, NodeSelector, Pod, ResourceRequirements, Toleration};
use kube::ResourceExt;
use serde::Serialize;
use stoppablecontainer_api::names::ANNOTATION_TEMPLATE_HASH;
use stoppablecontainer_api::{StoppableContainerInstance, TemplateError};

use crate::reconcile::pods::template_hash;

/// The fields of an instance that its author can change and that go into every provider. The hash
/// of a provider is made from them, so another version of this program does not replace a provider
/// for its own additions.
#[derive(Serialize)]
pub(super) struct KeepingFields {
    pub(super) image: Option<String>,
    pub(super) image_pull_policy: Option<String>,
    pub(super) image_pull_secrets: Option<Vec<LocalObjectReference>>,
    pub(super) resources: ResourceRequirements,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) nodes: Option<NodeSelector>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) scheduler_name: Option<String>,
    pub(super) priority_class_name: Option<String>,
    pub(super) runtime_class_name: Option<String>,
    pub(super) service_account_name: Option<String>,
}

// === impl KeepingFields ===

impl KeepingFields {
    pub(super) fn of(instance: &StoppableContainerInstance) -> Result<Self, TemplateError> {
        let template = instance.spec.template.decode()?.spec.unwrap_or_default();
        let provider = instance.spec.provider.decode()?;
        let main = template.containers.into_iter().next();
        let (image, image_pull_policy) = main.map(|c| (c.image, c.image_pull_policy)).unwrap_or_default();
        let mut node_selector = template.node_selector.unwrap_or_default();
        node_selector.extend(provider.node_selector);
        let tolerations = template.tolerations.unwrap_or_default();
        let nodes = template.affinity.and_then(|affinity| affinity.node_affinity);
        Ok(Self {
            image,
            image_pull_policy,
            image_pull_secrets: template.image_pull_secrets,
            resources: provider.resources,
            node_selector,
            nodes: nodes.and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution),
            tolerations: [tolerations, provider.tolerations].concat(),
            scheduler_name: template.scheduler_name,
            priority_class_name: template.priority_class_name,
            runtime_class_name: template.runtime_class_name,
            service_account_name: template.service_account_name,
        })
    }

    pub(super) fn hash(&self) -> String {
        template_hash(self)
    }
}

/// Whether `pod` was made from the instance's present spec. `None` for one that does not say, or of
/// a template that cannot be worked on.
pub(crate) fn is_current(instance: &StoppableContainerInstance, pod: &Pod) -> Option<bool> {
    let hash = pod.annotations().get(ANNOTATION_TEMPLATE_HASH)?;
    Some(*hash == KeepingFields::of(instance).ok()?.hash())
}
