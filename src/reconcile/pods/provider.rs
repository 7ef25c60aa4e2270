/*!
The provider pod: the user's image, held by the wrapper as nobody, so that the
scheduler chooses a node, the kubelet pulls with the user's secrets, and the
image's layers stay.

It passes Pod Security "restricted" whatever the template needs. It carries none
of the user's labels, because a Service must never select it, and the opt-outs
of the known injectors, because it must stay one plain container.
*/

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, CSIVolumeSource, Capabilities, Container, LocalObjectReference, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinity, PodAntiAffinity, PodSecurityContext,
    PodSpec, PreferredSchedulingTerm, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
    Volume, VolumeMount,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde::Serialize;
use stoppablecontainer_api::names::{
    ANNOTATION_IMAGE, ANNOTATION_TEMPLATE_HASH, CSI_DRIVER, PROVIDER_CONTAINER, VOLUME_MOUNT_PATH,
    VOLUME_NAME, WRAPPER_IN_VOLUME,
};
use stoppablecontainer_api::{StoppableContainerInstance, TemplateError};

use crate::reconcile::instance::status::pinned;
use crate::reconcile::pods::hash::template_hash;
use crate::reconcile::pods::tolerations::{enduring, staying};
use crate::reconcile::pods::{Role, owner_reference};

/// User and group of the provider's process: `nobody` everywhere.
const NOBODY: i64 = 65_534;

/// The wrapper ends at once on SIGTERM; this only bounds a node in trouble.
const GRACE_SECONDS: i64 = 5;

/// Labels and annotations that keep injectors away from provider pods. The defaults are those of Istio (the label
/// counts since 1.10, the annotation before), Linkerd and the Vault agent; administrators add their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOuts {
    /// Labels of provider pods besides our own, which win.
    pub labels: BTreeMap<String, String>,
    /// Annotations of provider pods.
    pub annotations: BTreeMap<String, String>,
}

// === impl OptOuts ===

impl Default for OptOuts {
    fn default() -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        Self {
            labels: map(&[("sidecar.istio.io/inject", "false")]),
            annotations: map(&[
                ("sidecar.istio.io/inject", "false"),
                ("linkerd.io/inject", "disabled"),
                ("vault.hashicorp.com/agent-inject", "false"),
            ]),
        }
    }
}

/// The fields of an instance that its author can change and that go into every provider. The hash of a provider is made
/// from them, so another version of this program does not replace a provider for its own additions.
#[derive(Serialize)]
struct Wishes {
    image: Option<String>,
    image_pull_policy: Option<String>,
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    resources: ResourceRequirements,
    node_selector: BTreeMap<String, String>,
    nodes: Option<NodeSelector>,
    tolerations: Vec<Toleration>,
    scheduler_name: Option<String>,
    priority_class_name: Option<String>,
    runtime_class_name: Option<String>,
    service_account_name: Option<String>,
}

/// The additional fields that the scheduler needs for the first choice of a node. Some of them hold claims or repel pods
/// for as long as a pod has them: a claim cannot go, and the scheduler keeps the pods away that required anti-affinity
/// names, even where they would not avoid this one.
#[derive(Serialize)]
struct Choice {
    claims: Vec<Volume>,
    pods: Option<PodAffinity>,
    not_pods: Option<PodAntiAffinity>,
    preferred_nodes: Option<Vec<PreferredSchedulingTerm>>,
    node_name: Option<String>,
}

/// What a provider is made of.
struct Recipe {
    wishes: Wishes,
    choice: Choice,
}

// === impl Recipe ===

impl Recipe {
    fn of(instance: &StoppableContainerInstance) -> Result<Self, TemplateError> {
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
            wishes: Wishes {
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
            choice: Choice {
                claims: volumes.filter(|v| v.persistent_volume_claim.is_some()).collect(),
                pods: affinity.pod_affinity,
                not_pods: affinity.pod_anti_affinity,
                preferred_nodes: nodes.preferred_during_scheduling_ignored_during_execution,
                node_name: template.node_name,
            },
        })
    }

    fn placing_hash(&self) -> String {
        template_hash(&(&self.wishes, &self.choice))
    }

    fn keeping_hash(&self) -> String {
        template_hash(&self.wishes)
    }
}

/// What a provider was made from and for, compared with the instance's present spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// From the present spec, to keep the node.
    ToKeep,
    /// From the present spec, to choose a node.
    ToPlace {
        /// It lists claims, or has affinity to other pods or against them.
        holds: bool,
        /// It keeps other pods away.
        repels: bool,
    },
    /// From an earlier spec.
    Before,
}

/// What `pod` was made for. `None` for one that does not say, or of a template that cannot be worked on.
pub fn made(instance: &StoppableContainerInstance, pod: &Pod) -> Option<Made> {
    let hash = pod.annotations().get(ANNOTATION_TEMPLATE_HASH)?;
    let recipe = Recipe::of(instance).ok()?;
    if *hash == recipe.keeping_hash() {
        return Some(Made::ToKeep);
    }
    if *hash != recipe.placing_hash() {
        return Some(Made::Before);
    }
    let Choice {
        claims,
        pods,
        not_pods,
        ..
    } = &recipe.choice;
    Some(Made::ToPlace {
        holds: !claims.is_empty() || pods.is_some() || not_pods.is_some(),
        repels: not_pods.is_some(),
    })
}

/// The provider pod of `instance`.
///
/// The first one is there to *place* it: it has all that decides on a node, and lists the template's
/// PersistentVolumeClaims, but for `exclusive` ones (ReadWriteOncePod, which only the consumer may use), so that the
/// scheduler finds a node where all of them can be, and claims that wait for their first consumer are bound. The kubelet
/// mounts no volume that no container mounts.
///
/// Once the instance has a node, a provider is made to *keep* it: pinned to the node, without claims and without a word
/// on other pods. It is made of the image by digest and stays through what a node suffers from. Under disk and PID
/// pressure that helps with the scheduler only: the kubelet admits none but critical pods then (`Admit` in its
/// `pkg/kubelet/eviction`), so the provider fails as `Evicted`, and is tried again with back-off. Under memory pressure it
/// runs.
///
/// # Errors
/// When the template or `spec.provider` cannot be worked on.
pub fn provider_pod(
    instance: &StoppableContainerInstance,
    exclusive: &BTreeSet<String>,
    opt_outs: &OptOuts,
) -> Result<Pod, TemplateError> {
    let name = instance.name_any();
    let recipe = Recipe::of(instance)?;
    let kept_on = instance.status.as_ref().and_then(|s| s.node_name.clone());
    let mut labels = opt_outs.labels.clone();
    labels.extend(Role::Provider.labels(&name));
    let mut annotations = opt_outs.annotations.clone();
    annotations.insert(ANNOTATION_IMAGE.to_owned(), instance.spec.main_image().to_owned());
    let hash = if kept_on.is_some() {
        recipe.keeping_hash()
    } else {
        recipe.placing_hash()
    };
    annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), hash);
    let Recipe { wishes, choice } = recipe;
    let placing = kept_on.is_none().then_some(choice);
    let (claims, affinity) = placement(placing, wishes.nodes.as_ref(), kept_on.as_deref(), exclusive);
    let tolerations = staying(wishes.tolerations.clone());
    let tolerations = if kept_on.is_some() {
        enduring(tolerations)
    } else {
        tolerations
    };
    Ok(Pod {
        metadata: ObjectMeta {
            name: Some(Role::Provider.pod_name(&name)),
            namespace: instance.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(instance)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            volumes: Some([vec![our_volume()], claims].concat()),
            affinity,
            tolerations: Some(tolerations),
            ..spec(instance, wishes)
        }),
        status: None,
    })
}

fn spec(instance: &StoppableContainerInstance, wishes: Wishes) -> PodSpec {
    PodSpec {
        node_selector: Some(wishes.node_selector.clone()).filter(|s| !s.is_empty()),
        scheduler_name: wishes.scheduler_name.clone(),
        priority_class_name: wishes.priority_class_name.clone(),
        runtime_class_name: wishes.runtime_class_name.clone(),
        image_pull_secrets: wishes.image_pull_secrets.clone(),
        service_account_name: wishes.service_account_name.clone(),
        containers: vec![container(instance, wishes)],
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn container(instance: &StoppableContainerInstance, wishes: Wishes) -> Container {
    Container {
        name: PROVIDER_CONTAINER.to_owned(),
        image: pinned::digest(instance).map(str::to_owned).or(wishes.image),
        image_pull_policy: wishes.image_pull_policy,
        command: Some(vec![WRAPPER_IN_VOLUME.to_owned(), "hold".to_owned()]),
        resources: Some(wishes.resources),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME_NAME.to_owned(),
            mount_path: VOLUME_MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        // The wrapper's last words say what was wrong; they end up in the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            run_as_non_root: Some(true),
            read_only_root_filesystem: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn our_volume() -> Volume {
    Volume {
        name: VOLUME_NAME.to_owned(),
        csi: Some(CSIVolumeSource {
            driver: CSI_DRIVER.to_owned(),
            read_only: Some(true),
            ..CSIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Claims and affinity of a provider that is to find its node, or is to come to `kept_on`.
fn placement(
    placing: Option<Choice>,
    nodes: Option<&NodeSelector>,
    kept_on: Option<&str>,
    exclusive: &BTreeSet<String>,
) -> (Vec<Volume>, Option<Affinity>) {
    let Some(choice) = placing else {
        let nodes = kept_on.map(|node| pinned_to(node, nodes.cloned()));
        return (Vec::new(), affinity(nodes, None, None));
    };
    let shared = |volume: &Volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        claim.is_some_and(|claim| !exclusive.contains(&claim.claim_name))
    };
    let nodes = match &choice.node_name {
        Some(node) => Some(pinned_to(node, nodes.cloned())),
        None => Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: nodes.cloned(),
            preferred_during_scheduling_ignored_during_execution: choice.preferred_nodes,
        }),
    };
    let claims = choice.claims.into_iter().filter(shared).collect();
    (claims, affinity(nodes, choice.pods, choice.not_pods))
}

fn affinity(
    nodes: Option<NodeAffinity>,
    pods: Option<PodAffinity>,
    not_pods: Option<PodAntiAffinity>,
) -> Option<Affinity> {
    let affinity = Affinity {
        node_affinity: nodes.filter(|nodes| *nodes != NodeAffinity::default()),
        pod_affinity: pods,
        pod_anti_affinity: not_pods,
    };
    Some(affinity).filter(|affinity| *affinity != Affinity::default())
}

/// The template's required nodes, and of these only this one.
fn pinned_to(node: &str, required: Option<NodeSelector>) -> NodeAffinity {
    let mut terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: the pin has to be in each of them.
    for term in &mut terms {
        term.match_fields
            .get_or_insert_default()
            .push(NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            });
    }
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: terms,
        }),
        preferred_during_scheduling_ignored_during_execution: None,
    }
}

#[cfg(test)]
mod tests;
