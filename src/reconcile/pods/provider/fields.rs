//! What of an instance goes into its provider, and how a provider shows what it was made from.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::{
    LocalObjectReference, NodeSelector, Pod, PodAffinity, PodAntiAffinity, PreferredSchedulingTerm,
    ResourceRequirements, Toleration, Volume,
};
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

/// The additional fields that the scheduler needs for the first choice of a node. Some of them hold
/// claims or repel pods for as long as a pod has them: a claim cannot go, and the scheduler keeps
/// the pods away that required anti-affinity names, even where they would not avoid this one.
#[derive(Serialize)]
pub(super) struct PlacingFields {
    pub(super) claims: Vec<Volume>,
    pub(super) pods: Option<PodAffinity>,
    pub(super) not_pods: Option<PodAntiAffinity>,
    pub(super) preferred_nodes: Option<Vec<PreferredSchedulingTerm>>,
    pub(super) node_name: Option<String>,
}

/// What a provider is made of.
pub(super) struct ProviderFields {
    pub(super) keeping: KeepingFields,
    pub(super) placing: PlacingFields,
}

// === impl ProviderFields ===

impl ProviderFields {
    pub(super) fn of(instance: &StoppableContainerInstance) -> Result<Self, TemplateError> {
        let template = instance.spec.template.decode()?.spec.unwrap_or_default();
        let provider = instance.spec.provider.decode()?;
        let main = template.containers.into_iter().next();
        let (image, image_pull_policy) = main.map(|c| (c.image, c.image_pull_policy)).unwrap_or_default();
        let mut node_selector = template.node_selector.unwrap_or_default();
        node_selector.extend(provider.node_selector);
        let tolerations = template.tolerations.unwrap_or_default();
        let affinity = template.affinity.unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let volumes = template.volumes.into_iter().flatten();
        Ok(Self {
            keeping: KeepingFields {
                image,
                image_pull_policy,
                image_pull_secrets: template.image_pull_secrets,
                resources: provider.resources,
                node_selector,
                nodes: nodes.required_during_scheduling_ignored_during_execution,
                tolerations: [tolerations, provider.tolerations].concat(),
                scheduler_name: template.scheduler_name,
                priority_class_name: template.priority_class_name,
                runtime_class_name: template.runtime_class_name,
                service_account_name: template.service_account_name,
            },
            placing: PlacingFields {
                claims: volumes.filter(|v| v.persistent_volume_claim.is_some()).collect(),
                pods: affinity.pod_affinity,
                not_pods: affinity.pod_anti_affinity,
                preferred_nodes: nodes.preferred_during_scheduling_ignored_during_execution,
                node_name: template.node_name,
            },
        })
    }

    pub(super) fn placing_hash(&self) -> String {
        template_hash(&(&self.keeping, &self.placing))
    }

    pub(super) fn keeping_hash(&self) -> String {
        template_hash(&self.keeping)
    }
}

/// What a provider was made from and for, compared with the instance's present spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderVersion {
    /// From the present spec, to keep the node.
    Keeping,
    /// From the present spec, to choose a node.
    Placing {
        /// It lists claims, or has affinity to other pods or against them.
        holds: bool,
        /// It keeps other pods away.
        repels: bool,
    },
    /// From an earlier spec.
    Outdated,
}

/// What `pod` was made for. `None` for one that does not say, or of a template that cannot be
/// worked on.
pub(crate) fn provider_version(instance: &StoppableContainerInstance, pod: &Pod) -> Option<ProviderVersion> {
    let hash = pod.annotations().get(ANNOTATION_TEMPLATE_HASH)?;
    let fields = ProviderFields::of(instance).ok()?;
    if *hash == fields.keeping_hash() {
        return Some(ProviderVersion::Keeping);
    }
    if *hash != fields.placing_hash() {
        return Some(ProviderVersion::Outdated);
    }
    let PlacingFields {
        claims,
        pods,
        not_pods,
        ..
    } = &fields.placing;
    Some(ProviderVersion::Placing {
        holds: !claims.is_empty() || pods.is_some() || not_pods.is_some(),
        repels: not_pods.is_some(),
    })
}
