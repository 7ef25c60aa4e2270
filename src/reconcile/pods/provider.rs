/*!
The provider pod runs the wrapper in the user's image, as user `nobody`. So the kubelet pulls the
image with the user's secrets, and the image's layers stay.

It passes Pod Security "restricted" whatever the template needs. It carries none of the user's
labels, because a Service must never select it, and the opt-outs of the known injectors, because it
must stay one plain container.
*/

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, Capabilities, Container, EnvVar, Pod, PodSecurityContext, PodSpec, SeccompProfile,
    SecurityContext, Volume, VolumeMount,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use stoppablecontainer_api::names::{
    ANNOTATION_IMAGE, ANNOTATION_TEMPLATE_HASH, CSI_DRIVER, PROVIDER_CONTAINER, VOLUME_MOUNT_PATH,
    VOLUME_NAME, WRAPPER_IN_VOLUME,
};
use stoppablecontainer_api::{StoppableContainerInstance, TemplateError};

use crate::reconcile::pods::provider::fields::KeepingFields;
use crate::reconcile::pods::tolerations::{tolerate_pressure, tolerate_unreachable};
use crate::reconcile::pods::{OptOuts, Role, owner_reference, pinned};

mod affinity;
mod fields;

pub(crate) use fields::is_current;

/// User and group of the provider's process: `nobody` everywhere.
const NOBODY: i64 = 65_534;

/// The wrapper ends at once on SIGTERM; this only bounds a node in trouble.
const GRACE_SECONDS: i64 = 5;

/// The variable by which NVIDIA's runtime knows the devices of a container, and the value for none.
/// Images set it (`all` in those of CUDA), and the runtime gives a container its devices without
/// asking Kubernetes, where it is the default or that of the template's `runtimeClassName`. A
/// provider never holds a device. See "Environment variables (OCI spec)" in the documentation of
/// nvidia-container-runtime.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
const NO_DEVICES: &str = "void";

/// The provider pod of `instance`, on `node`.
///
/// It is pinned to the node, without claims and without affinity to other pods: a stopped object
/// must neither hold a claim nor keep pods away. It goes through the scheduler, where it waits with
/// a reason, and not by `nodeName`: a queue that takes every pod adds a scheduling gate, and the
/// API server takes no pod that has both.
///
/// It is made of the image by digest and stays through what a node suffers from. Under disk and PID
/// pressure that helps with the scheduler only: the kubelet admits none but critical pods then
/// (`Admit` in its `pkg/kubelet/eviction`), so the provider fails as `Evicted`, and is tried again
/// with back-off. Under memory pressure it runs.
///
/// # Errors
/// When the template or `spec.provider` cannot be worked on.
pub(crate) fn provider_pod(
    instance: &StoppableContainerInstance,
    node: &str,
    opt_outs: &OptOuts,
) -> Result<Pod, TemplateError> {
    let name = instance.name_any();
    let keeping = KeepingFields::of(instance)?;
    let mut labels = opt_outs.labels.clone();
    labels.extend(Role::Provider.labels(&name));
    let mut annotations = opt_outs.annotations.clone();
    if !instance.status.as_ref().is_none_or(|status| status.never_started) {
        annotations.extend(opt_outs.keeping_node());
    }
    annotations.insert(ANNOTATION_IMAGE.to_owned(), instance.spec.main_image().to_owned());
    annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), keeping.hash());
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
            volumes: Some(vec![our_volume()]),
            affinity: Some(affinity::pinned_to(node, keeping.nodes.clone())),
            tolerations: Some(tolerate_pressure(tolerate_unreachable(
                keeping.tolerations.clone(),
            ))),
            ..spec(instance, keeping)
        }),
        status: None,
    })
}

fn spec(instance: &StoppableContainerInstance, keeping: KeepingFields) -> PodSpec {
    PodSpec {
        node_selector: Some(keeping.node_selector.clone()).filter(|s| !s.is_empty()),
        scheduler_name: keeping.scheduler_name.clone(),
        priority_class_name: keeping.priority_class_name.clone(),
        runtime_class_name: keeping.runtime_class_name.clone(),
        image_pull_secrets: keeping.image_pull_secrets.clone(),
        service_account_name: keeping.service_account_name.clone(),
        containers: vec![container(instance, keeping)],
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

fn container(instance: &StoppableContainerInstance, keeping: KeepingFields) -> Container {
    Container {
        name: PROVIDER_CONTAINER.to_owned(),
        image: pinned::digest(instance).map(str::to_owned).or(keeping.image),
        image_pull_policy: keeping.image_pull_policy,
        command: Some(vec![WRAPPER_IN_VOLUME.to_owned(), "hold".to_owned()]),
        env: Some(vec![EnvVar {
            name: VISIBLE_DEVICES.to_owned(),
            value: Some(NO_DEVICES.to_owned()),
            value_from: None,
        }]),
        resources: Some(keeping.resources),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME_NAME.to_owned(),
            mount_path: VOLUME_MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        // The kubelet copies the wrapper's last log lines to the pod's status.
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

#[cfg(test)]
mod tests;
