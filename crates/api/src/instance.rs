//! The kind that the reconciler makes, one per StoppableContainer, and that owns the pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::default_host_path_prefix;
use crate::recovery::RecoveryOffer;
use crate::status::Phase;
use crate::template::{PodTemplate, Provider};
use crate::usage::{FilesystemUsage, StorageExcess};

/// One kept filesystem on one node, with its provider and consumer pods. Its UID names the data on the node.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "stoppablecontainer.xtlsoft.top",
    version = "v1alpha1",
    kind = "StoppableContainerInstance",
    namespaced,
    status = "StoppableContainerInstanceStatus",
    derive = "PartialEq",
    shortname = "stopci",
    category = "stoppable",
    printcolumn = r#"{"name":"Running","type":"boolean","jsonPath":".spec.running","description":"Whether the consumer should run"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodeName"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    selectable = ".status.nodeName"
)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerInstanceSpec {
    /// Name of the parent StoppableContainer.
    pub stoppable_container_name: String,

    /// Whether the consumer should be running.
    #[serde(default)]
    pub running: bool,

    /// Template of the consumer pod; see StoppableContainer.
    pub template: PodTemplate,

    /// The provider pod, which holds the filesystem.
    #[serde(default)]
    pub provider: Provider,

    /// Directory on the node below which the data is kept.
    #[serde(default = "default_host_path_prefix")]
    #[x_kube(validation = ("self == oldSelf", "the data is already kept there: hostPathPrefix cannot change once the object exists"))]
    pub host_path_prefix: String,
}

/// What is known of an instance. The controller writes everything but `filesystem`, which is the node agent's
/// (server-side apply, one field manager each), so neither can overwrite the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerInstanceStatus {
    /// Pending, ProviderReady, Running, Stopped or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Node that holds the filesystem. Set when the scheduler has chosen it for the placeholder pod, and never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// UID of the provider pod that may prepare the filesystem. The node agent serves no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_pod_uid: Option<String>,

    /// UID of the consumer pod that may use the filesystem. The node agent serves no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_pod_uid: Option<String>,

    /// UID of the placeholder pod, which the scheduler chooses the first node for. It never starts, and goes when the
    /// consumer is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder_pod_uid: Option<String>,

    /// True until a consumer pod may have run. Until then nothing ties the object to its node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_started: bool,

    /// Why the node was given up before the first start. The controller then replaces this object by one that goes to
    /// another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,

    /// How the next consumer pod is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// The image that the data was made with. Providers are made of its digest, so that nothing but an edit of the
    /// template puts another image under the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PinnedImage>,

    /// The `ephemeral-storage` limit of the last consumer pod's main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_limit: Option<String>,

    /// What the API server made of the template when a pod of it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_check: Option<TemplateCheck>,

    /// The kept filesystem, as the node agent sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FilesystemStatus>,

    /// Ready, ProviderReady, FilesystemReady and ConsumerReady; and RestartRequired while it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Why a node was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// CamelCase reason, of the component that reported it.
    pub reason: String,

    /// The same as a sentence.
    pub message: String,
}

/// What the API server made of a template. It is asked once for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateCheck {
    /// Identifies the template.
    pub template_hash: String,

    /// Why no pod can be made of it. Absent if one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An image as a template names it, and as its repository knows it for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedImage {
    /// The name in the template.
    pub name: String,

    /// What it stood for: `REPOSITORY@DIGEST`.
    pub digest: String,
}

/// How a consumer pod gets to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// By `nodeName`, past the scheduler: the fastest.
    #[default]
    Node,
    /// By required node affinity, through the scheduler: after a pod ended that the user had not stopped (refused by the
    /// kubelet, preempted, evicted, failed), so that the next one queues with a reason.
    Scheduler,
}

/// The kept filesystem, as the node agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemStatus {
    /// Preparing, Ready, Failed or Removed.
    pub state: FilesystemState,

    /// Node of the agent that wrote this.
    pub node_name: String,

    /// UID of the provider pod that the filesystem was last prepared with. `Ready` counts only while this is the
    /// instance's provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_pod_uid: Option<String>,

    /// Why it is `Failed`, in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why it is `Failed`, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Identifier of the directory of kept filesystems that holds the data (its file `.id`). While another directory is
    /// at `spec.hostPathPrefix`, because a disk is not mounted for example, the data is out of reach and not lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,

    /// What the image's config says; the webhook fills from it what the template leaves open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFacts>,

    /// Who the main container runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// What was written over the image, as last measured: now and then while it runs, and when it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<FilesystemUsage>,

    /// What the user may decide if the filesystem cannot be used, or is too large for its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryOffer>,

    /// Set while the node's disk is nearly full: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_low: Option<String>,

    /// Set while a consumer's container is up and its command is not, because the filesystem is not in place yet: what is
    /// in its way, as a part of a sentence. To the kubelet such a container looks like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<ConsumerReport>,

    /// Set when the node's disk did not take all that a consumer wrote, until a later one ends and it does: sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_failed: Option<ConsumerReport>,
}

/// What the node agent has to say of one consumer pod, which nobody else knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerReport {
    /// UID of the consumer pod.
    pub pod_uid: String,

    /// What there is to say.
    pub message: String,
}

/// State of a kept filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilesystemState {
    /// The agent has begun; data may exist on the node from here on.
    Preparing,
    /// A consumer may start on it.
    Ready,
    /// It cannot be used; reason and message say why.
    Failed,
    /// The data is gone from the node because the instance is being deleted.
    Removed,
}

/// What the image's config says (OCI image specification, "config"), as the container runtime reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// The image as the provider pod named it.
    pub reference: String,
    /// Identity of the image at the runtime: the digest of its config or manifest.
    pub id: String,
    /// The image as a registry knows it for ever, `REPOSITORY@DIGEST`; empty if it was never pulled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repo_digest: String,
    /// ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// ENV, as `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// WORKDIR; empty means `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// USER as written: a name or uid, with an optional `:group`; empty means root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// STOPSIGNAL as written; empty means SIGTERM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// A user, resolved in the kept filesystem's `/etc/passwd` and `/etc/group` the way containerd resolves it in a
/// container's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// What was resolved: the template's `runAsUser` as a number, else the image's USER. See
    /// [`StoppableContainerInstanceSpec::requested_user`].
    pub user: String,
    /// User id.
    pub uid: i64,
    /// Primary group id.
    pub gid: i64,
    /// Groups of the user in `/etc/group`, without the primary one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<i64>,
}

// === impl StoppableContainerInstanceSpec ===

impl StoppableContainerInstanceSpec {
    /// The user that the main container is to run as: `runAsUser` of the container, else of the pod, else the
    /// image's USER, else root. Written as for [`Identity::user`], so that agent and webhook can compare.
    pub fn requested_user(&self, image: &ImageFacts) -> String {
        let asked = self.template.main().run_as_user;
        asked.map_or_else(|| image.user.clone(), |uid| uid.to_string())
    }

    /// Image of the main container; empty in a template without one.
    pub fn main_image(&self) -> &str {
        &self.template.main().image
    }

    /// Name of the main container, whose filesystem is kept; empty in a template without containers.
    pub fn main_container(&self) -> &str {
        &self.template.main().name
    }
}

// === impl StoppableContainerInstance ===

impl StoppableContainerInstance {
    /// Whether `filesystem` takes more than the next consumer may: nothing is started on it then. The limit is the
    /// template's or, if that has none, what the last consumer was given by somebody else (a LimitRange).
    pub fn storage_excess(&self, filesystem: Option<&FilesystemStatus>) -> Option<StorageExcess> {
        let main = self.spec.template.main();
        let given = || self.status.as_ref()?.storage_limit.as_deref();
        let limit = main.storage_limit.as_deref().or_else(given)?;
        StorageExcess::over(&main.name, limit, filesystem?.usage)
    }
}

// === impl StoppableContainerInstanceStatus ===

impl StoppableContainerInstanceStatus {
    /// What keeps the consumer pod of this UID from its filesystem.
    pub fn blocked(&self, consumer_pod_uid: Option<&str>) -> Option<&str> {
        let blocked = self.filesystem.as_ref()?.blocked.as_ref()?;
        (Some(blocked.pod_uid.as_str()) == consumer_pod_uid).then_some(&blocked.message)
    }

    /// The filesystem, if a consumer may start on it: prepared with the provider that is in place now.
    pub fn ready_filesystem(&self) -> Option<&FilesystemStatus> {
        self.filesystem.as_ref().filter(|f| {
            f.state == FilesystemState::Ready
                && f.provider_pod_uid.is_some()
                && f.provider_pod_uid == self.provider_pod_uid
        })
    }
}
