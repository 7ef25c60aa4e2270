/*!
The rewrite of a consumer pod: a pure function from the pod as it arrives and the [`Facts`] of its
instance to the pod as it must be stored.

It makes the main container run on the kept filesystem and otherwise behave as the same container
with its original image would (invariant I5). What it does is a fixed point (I4): rewriting a
rewritten pod changes nothing, so the API server may call us again after other webhooks, and what
they undid is repaired. This room does not call a cluster and does not know admission requests;
`webhook` does.
*/

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, PodTemplateSpec};
use stoppablecontainer_api::names::{
    ANNOTATION_IMAGE_ID, ANNOTATION_MAIN_CONTAINER, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE,
};
use stoppablecontainer_api::names::{MANAGED_BY, ROLE_CONSUMER};
use stoppablecontainer_api::{
    FilesystemStatus, Identity, ImageFacts, Placement, StoppableContainerInstance, TemplateError,
};

use crate::user_namespaces::OwnUsers;

mod command;
mod environment;
mod expansion;
mod gate;
mod identity;
mod image;
mod placement;
mod volume;

#[cfg(test)]
mod tests;

pub use gate::is_rewritten;
pub use placement::placement_of;
pub use volume::is_reserved_path;

/// The image that the main container runs until it is moved onto its kept filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapper {
    /// Reference of the wrapper image. With a tag (not a digest) the variants for stop signals are
    /// found.
    pub image: String,
    /// Name of the Secret, in the consumer's namespace, that pulls it.
    pub pull_secret: Option<String>,
}

/// What is known of a consumer pod's instance and node when the pod is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The wrapper image of this installation.
    pub wrapper: &'a Wrapper,
    /// The instance that owns the pod.
    pub instance: &'a StoppableContainerInstance,
    /// The node that holds the filesystem; `None` if the API has no such node (any more).
    pub node: Option<&'a Node>,
    /// Names of those of the pod's PersistentVolumeClaims that only the scheduler can serve:
    /// unknown, not bound, or ReadWriteOncePod.
    pub scheduler_claims: &'a BTreeSet<String>,
    /// Placement to use instead of deciding it; for the final validation, which takes either.
    pub placement: Option<Placement>,
}

/// A consumer pod as it must be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// The pod.
    pub pod: Pod,
    /// What could not be kept quite as in a plain pod, as sentences for the caller.
    pub warnings: Vec<String>,
}

/// Why a consumer pod cannot be admitted. The text starts with the path of the field to change, or
/// names the object that is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The pod has no spec.
    #[error("spec: Required value")]
    NoSpec,
    /// The template of the instance cannot be worked on.
    #[error("StoppableContainerInstance {instance}: {error}")]
    Template {
        /// Name of the instance.
        instance: String,
        /// Why.
        error: TemplateError,
    },
    /// The runtime of the node that holds the filesystem does not support user namespaces.
    #[error("spec.hostUsers: {0}")]
    HostUsers(String),
    /// Not a Linux pod.
    #[error("spec.os.name: must be linux: StoppableContainer runs on Linux only")]
    Windows,
    /// The template names no container, or the pod has lost it.
    #[error("spec.containers: the main container {0:?} of the template is not among them")]
    NoMainContainer(String),
    /// Neither the template nor the image says what to run.
    #[error(
        "{0}.command: Required value: the image has no ENTRYPOINT and no CMD, and the template neither command nor args"
    )]
    NothingToRun(String),
    /// `runAsNonRoot`, and the template asks for uid 0.
    #[error(
        "{0}.securityContext.runAsUser: container's runAsUser breaks non-root policy (it is 0, and runAsNonRoot is true)"
    )]
    RunsAsRootByTemplate(String),
    /// `runAsNonRoot`, and the image's user has uid 0.
    #[error(
        "{container}.securityContext.runAsNonRoot: container has runAsNonRoot and image will run as root (its USER is {user:?})"
    )]
    RunsAsRootByImage {
        /// Path of the container.
        container: String,
        /// USER of the image.
        user: String,
    },
    /// More groups than a process can have, from the template and the image's `/etc/group`.
    #[error(
        "spec.securityContext.supplementalGroups: {0} groups with those of the image's user, and a process has at most {max}; \
         supplementalGroupsPolicy Strict leaves out the image's",
        max = identity::MAX_GROUPS
    )]
    TooManyGroups(usize),
    /// A volume of the pod has the reserved name but is not ours.
    #[error(
        "spec.volumes[{0}].name: \"stoppablecontainer\" is reserved for the volume of the kept filesystem"
    )]
    ReservedVolume(usize),
    /// Something is mounted where our volume belongs.
    #[error("{0}: the path /.stoppablecontainer and everything below it is reserved")]
    ReservedPath(String),
    /// Another container mounts our volume.
    #[error("{0}: the volume of the kept filesystem belongs to the main container alone")]
    ForeignMount(String),
    /// An ENV of the image that no process can have.
    #[error("ENV of image {image}: the value of {name:?} contains a NUL character")]
    ImageEnvironment {
        /// The image.
        image: String,
        /// Name of the variable.
        name: String,
    },
    /// The instance's provider has not been scheduled.
    #[error(
        "StoppableContainerInstance {0}: no node holds its filesystem yet; try again when status.nodeName is set"
    )]
    NoNode(String),
    /// The node agent has not prepared the filesystem with the provider in place.
    #[error(
        "StoppableContainerInstance {0}: its filesystem is not Ready; try again when condition FilesystemReady is True"
    )]
    FilesystemNotReady(String),
    /// The agent resolved another user than the template asks for now.
    #[error(
        "StoppableContainerInstance {instance}: its filesystem was prepared for user {resolved:?} but the template now asks \
         for {requested:?}; try again when the node agent has resolved it"
    )]
    IdentityOutdated {
        /// Name of the instance.
        instance: String,
        /// What the agent resolved.
        resolved: String,
        /// What is wanted.
        requested: String,
    },
}

/// What the instance says once a consumer may start: all parts present and matching.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    /// Node that holds the filesystem.
    pub node: &'a str,
    /// Config of the provider's image.
    pub image: &'a ImageFacts,
    /// The user, resolved.
    pub identity: &'a Identity,
}

/// The main container: its position, and its part of the template.
struct Main<'a> {
    index: usize,
    template: Option<&'a Container>,
    /// Whether this pod went through [`rewrite`] before.
    rewritten: bool,
}

/// Rewrites a consumer pod.
///
/// # Guarantees
/// - Fixed point: for every pod that it accepts, `rewrite(rewrite(pod).pod) == rewrite(pod)` with
///   the same facts, but for warnings.
/// - Containers, volumes, mounts, environment and secrets keep their order; only what is ours is
///   added or replaced.
///
/// # Errors
/// The first obstacle; see [`Denial`].
pub fn rewrite(pod: &Pod, facts: &Facts<'_>) -> Result<Rewritten, Denial> {
    let prepared = prepared(facts.instance)?;
    let template = &facts.instance.spec.template;
    let template = template.decode().map_err(|error| Denial::Template {
        instance: facts.instance.metadata.name.clone().unwrap_or_default(),
        error,
    })?;
    let mut pod = pod.clone();
    let mut spec = pod.spec.take().ok_or(Denial::NoSpec)?;
    let mut warnings = Vec::new();

    refuse_unsupported(&spec, facts.node)?;
    let main = find_main(&pod, &spec, facts, &template)?;
    let path = format!("spec.containers[{}]", main.index);
    volume::check_other_containers(&spec, main.index)?;
    volume::add(&mut spec, main.index)?;
    // Before the placement, which goes by the gates of others.
    gate::open(&mut spec);
    placement::place(&pod, &mut spec, prepared.node, facts);
    spec.restart_policy = Some("Always".to_owned());
    image::add_pull_secret(&mut spec, facts.wrapper);
    identity::add_groups(&mut spec, prepared.identity)?;

    let pod_security = spec.security_context.clone().unwrap_or_default();
    let container = &mut spec.containers[main.index];
    // The environment comes first: it decides which references must stay literal, and whether HOME
    // is known.
    let names = environment::fill(container, main.template, prepared.image, &mut warnings)?;
    command::wrap(container, &main, prepared.image, facts.wrapper, &names, &path)?;
    command::wrap_hooks(container, &names);
    image::set(
        container,
        facts.wrapper,
        &prepared.image.stop_signal,
        &mut warnings,
    );
    if container.working_dir.as_ref().is_none_or(String::is_empty) && !prepared.image.working_dir.is_empty() {
        container.working_dir = Some(prepared.image.working_dir.clone());
    }
    if main.rewritten {
        identity::give_way(container, &pod_security, main.template, prepared.identity);
    }
    identity::set(
        container,
        &pod_security,
        prepared.identity,
        &prepared.image.user,
        &path,
    )?;

    let main_name = container.name.clone();
    label(&mut pod, facts.instance, main_name, &prepared.image.id);
    pod.spec = Some(spec);
    Ok(Rewritten { pod, warnings })
}

/// The filesystem of the instance, if a consumer may start on it.
///
/// # Errors
/// [`Denial::NoNode`], [`Denial::FilesystemNotReady`] or [`Denial::IdentityOutdated`]: all are
/// transient.
pub fn prepared(instance: &StoppableContainerInstance) -> Result<Prepared<'_>, Denial> {
    let name = || instance.metadata.name.clone().unwrap_or_default();
    let status = instance.status.as_ref().ok_or_else(|| Denial::NoNode(name()))?;
    let node = status
        .node_name
        .as_deref()
        .ok_or_else(|| Denial::NoNode(name()))?;
    let FilesystemStatus {
        image: Some(image),
        identity: Some(identity),
        ..
    } = status
        .startable_filesystem()
        .ok_or_else(|| Denial::FilesystemNotReady(name()))?
    else {
        return Err(Denial::FilesystemNotReady(name()));
    };
    let requested = instance.spec.requested_user(image);
    if requested != identity.user {
        return Err(Denial::IdentityOutdated {
            instance: name(),
            resolved: identity.user.clone(),
            requested,
        });
    }
    Ok(Prepared {
        node,
        image,
        identity,
    })
}

// === impl Denial ===

impl Denial {
    /// Whether the reason may go away without a change of pod or template: the instance's
    /// status, or the copy of the instance that was looked at, may be behind.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoNode(_)
            | Self::FilesystemNotReady(_)
            | Self::IdentityOutdated { .. }
            | Self::NoMainContainer(_) => true,
            Self::NoSpec
            | Self::Template { .. }
            | Self::HostUsers(_)
            | Self::Windows
            | Self::NothingToRun(_)
            | Self::RunsAsRootByTemplate(_)
            | Self::RunsAsRootByImage { .. }
            | Self::TooManyGroups(_)
            | Self::ReservedVolume(_)
            | Self::ReservedPath(_)
            | Self::ForeignMount(_)
            | Self::ImageEnvironment { .. } => false,
        }
    }
}

fn refuse_unsupported(spec: &PodSpec, node: Option<&Node>) -> Result<(), Denial> {
    let users = OwnUsers::of(spec.host_users, spec.runtime_class_name.as_deref());
    if let Some(obstacle) = users.zip(node).and_then(|(users, node)| users.obstacle(node)) {
        return Err(Denial::HostUsers(obstacle));
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Err(Denial::Windows);
    }
    Ok(())
}

/// Finds the main container by name: the one that an earlier rewrite noted, else the template's
/// first. An annotation that the template itself carries is the user's and says nothing.
fn find_main<'a>(
    pod: &Pod,
    spec: &PodSpec,
    facts: &Facts<'_>,
    template: &'a PodTemplateSpec,
) -> Result<Main<'a>, Denial> {
    let annotation = |annotations: Option<&BTreeMap<String, String>>| {
        annotations
            .and_then(|a| a.get(ANNOTATION_MAIN_CONTAINER))
            .cloned()
    };
    let forged = annotation(template.metadata.as_ref().and_then(|m| m.annotations.as_ref())).is_some();
    let noted = annotation(pod.metadata.annotations.as_ref()).filter(|_| !forged);
    let containers = template
        .spec
        .as_ref()
        .map(|s| s.containers.as_slice())
        .unwrap_or_default();
    let name = noted
        .clone()
        .or_else(|| containers.first().map(|c| c.name.clone()))
        .ok_or_else(|| Denial::NoMainContainer(String::new()))?;
    let index = spec.containers.iter().position(|c| c.name == name);
    let index = index.ok_or_else(|| Denial::NoMainContainer(name.clone()))?;
    let container = &spec.containers[index];
    let rewritten =
        noted.is_some() || volume::is_mounted(container) || image::is_ours(container, facts.wrapper);
    Ok(Main {
        index,
        template: containers.iter().find(|c| c.name == name),
        rewritten,
    })
}

/// The system labels win over the user's. The annotations remember the main container for the next
/// call, and the image for the agent.
fn label(pod: &mut Pod, instance: &StoppableContainerInstance, main: String, image_id: &str) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    labels.insert(
        LABEL_INSTANCE.to_owned(),
        instance.metadata.name.clone().unwrap_or_default(),
    );
    labels.insert(LABEL_ROLE.to_owned(), ROLE_CONSUMER.to_owned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_MAIN_CONTAINER.to_owned(), main);
    annotations.insert(ANNOTATION_IMAGE_ID.to_owned(), image_id.to_owned());
}
