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
    Affinity, CSIVolumeSource, Capabilities, Container, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use stoppablecontainer_api::names::{
    ANNOTATION_IMAGE, ANNOTATION_TEMPLATE_HASH, CSI_DRIVER, PROVIDER_CONTAINER, VOLUME_MOUNT_PATH,
    VOLUME_NAME, WRAPPER_IN_VOLUME,
};
use stoppablecontainer_api::{ProviderSpec, StoppableContainerInstance, TemplateError};

use super::hash::template_hash;
use super::pods::{Role, owner_reference};
use super::tolerations::staying;

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

/// The provider pod of `instance`.
///
/// Once the instance has a node, the pod is pinned to it and lists no claims: they have been bound. Before that it
/// lists the template's PersistentVolumeClaims, but for `exclusive` ones (ReadWriteOncePod, which only the consumer
/// may use), so that the scheduler finds a node where all of them can be, and claims that wait for their first
/// consumer are bound. The kubelet mounts no volume that no container mounts.
///
/// # Errors
/// When the template or `spec.provider` cannot be worked on.
pub fn provider_pod(
    instance: &StoppableContainerInstance,
    exclusive: &BTreeSet<String>,
    opt_outs: &OptOuts,
) -> Result<Pod, TemplateError> {
    let name = instance.name_any();
    let template = instance.spec.template.decode()?.spec.unwrap_or_default();
    let provider = instance.spec.provider.decode()?;
    let kept_on = instance.status.as_ref().and_then(|s| s.node_name.clone());
    let claims = if kept_on.is_some() {
        Vec::new()
    } else {
        claims(&template, exclusive)
    };
    let pin = kept_on.clone().or_else(|| template.node_name.clone());
    let mut labels = opt_outs.labels.clone();
    labels.extend(Role::Provider.labels(&name));
    let mut annotations = opt_outs.annotations.clone();
    annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), hash(&provider, &template));
    annotations.insert(ANNOTATION_IMAGE.to_owned(), instance.spec.main_image().to_owned());
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
            affinity: affinity(template.affinity.clone(), pin.as_deref(), kept_on.is_some()),
            ..spec(&provider, &template)
        }),
        status: None,
    })
}

/// Identifies everything in the instance that the provider pod is made from, but for what changes by itself (node,
/// claims): a provider that never came up is replaced when this changes.
///
/// # Errors
/// As for [`provider_pod`].
pub fn provider_hash(instance: &StoppableContainerInstance) -> Result<String, TemplateError> {
    let template = instance.spec.template.decode()?.spec.unwrap_or_default();
    Ok(hash(&instance.spec.provider.decode()?, &template))
}

fn hash(provider: &ProviderSpec, template: &PodSpec) -> String {
    template_hash(&(spec(provider, template), &template.affinity, &template.node_name))
}

fn spec(provider: &ProviderSpec, template: &PodSpec) -> PodSpec {
    let mut node_selector = template.node_selector.clone().unwrap_or_default();
    node_selector.extend(provider.node_selector.clone());
    let tolerations = [
        template.tolerations.clone().unwrap_or_default(),
        provider.tolerations.clone(),
    ]
    .concat();
    PodSpec {
        containers: vec![container(provider, template)],
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        node_selector: Some(node_selector).filter(|s| !s.is_empty()),
        tolerations: Some(staying(tolerations)),
        scheduler_name: template.scheduler_name.clone(),
        priority_class_name: template.priority_class_name.clone(),
        runtime_class_name: template.runtime_class_name.clone(),
        image_pull_secrets: template.image_pull_secrets.clone(),
        service_account_name: template.service_account_name.clone(),
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

fn container(provider: &ProviderSpec, template: &PodSpec) -> Container {
    let main = template.containers.first();
    Container {
        name: PROVIDER_CONTAINER.to_owned(),
        image: main.and_then(|c| c.image.clone()),
        image_pull_policy: main.and_then(|c| c.image_pull_policy.clone()),
        command: Some(vec![WRAPPER_IN_VOLUME.to_owned(), "hold".to_owned()]),
        resources: Some(provider.resources.clone()),
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

fn claims(template: &PodSpec, exclusive: &BTreeSet<String>) -> Vec<Volume> {
    let shared = |volume: &&Volume| {
        volume
            .persistent_volume_claim
            .as_ref()
            .is_some_and(|claim| !exclusive.contains(&claim.claim_name))
    };
    template
        .volumes
        .iter()
        .flatten()
        .filter(shared)
        .cloned()
        .collect()
}

/// The template's affinity, pinned. Where the data already is (`kept`), affinity to other pods no longer has a say:
/// the provider may come back next to its own, running consumer, which the template may forbid.
fn affinity(template: Option<Affinity>, pin: Option<&str>, kept: bool) -> Option<Affinity> {
    let Some(node) = pin else { return template };
    let mut affinity = template.unwrap_or_default();
    if kept {
        affinity.pod_affinity = None;
        affinity.pod_anti_affinity = None;
    }
    let required = affinity
        .node_affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution);
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
    affinity.node_affinity = Some(NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: terms,
        }),
        preferred_during_scheduling_ignored_during_execution: None,
    });
    Some(affinity)
}

#[cfg(test)]
mod tests;
