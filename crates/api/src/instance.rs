//! StoppableContainerInstance, which owns the pods. The controller creates one for each
//! StoppableContainer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::default_host_path_prefix;
use crate::recovery::RecoveryOffer;
use crate::status::Phase;
use crate::steps::{StartSteps, StopSteps};
use crate::template::{PodTemplate, Provider};
use crate::usage::{FilesystemUsage, StorageExcess};

/// One kept filesystem on one node, with its provider and consumer pods. The data directory on the
/// node is named after the UID of this object.
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
    printcolumn = r#"{"name":"Running","type":"boolean","jsonPath":".spec.running","description":"Whether the consumer pod should run"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodeName"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    selectable = ".status.nodeName"
)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerInstanceSpec {
    /// Name of the StoppableContainer that this instance belongs to.
    pub stoppable_container_name: String,

    /// Whether the consumer pod should run, copied from the StoppableContainer.
    #[serde(default)]
    pub running: bool,

    /// Template of the consumer pod, copied from the StoppableContainer.
    pub template: PodTemplate,

    /// Resources and additional placement of the provider pod, which keeps the image on the node of
    /// the files.
    #[serde(default)]
    pub provider: Provider,

    /// Directory on the node that holds the files. It must be one of the directories that the
    /// administrator allows. It cannot be changed.
    #[serde(default = "default_host_path_prefix")]
    #[x_kube(validation = ("self == oldSelf", "the data is already kept there: hostPathPrefix cannot change once the object exists"))]
    pub host_path_prefix: String,
}

/// Observed state of an instance. The node agent writes `filesystem` by server-side apply, the
/// controller writes all other fields. Neither overwrites the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerInstanceStatus {
    /// Phase of the container: Pending, ProviderReady, Running, Stopped or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Name of the node that holds the filesystem. Set when the scheduler chooses it for the
    /// placeholder pod, and never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// UID of the only provider pod that the node agent prepares the filesystem for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_pod_uid: Option<String>,

    /// UID of the only consumer pod that the node agent gives the filesystem to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_pod_uid: Option<String>,

    /// UID of the placeholder pod. The scheduler chooses the first node for this pod, which never
    /// starts. The controller replaces it by the consumer pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder_pod_uid: Option<String>,

    /// True until a consumer pod may have run. Until then the object can still go to another node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_started: bool,

    /// Why the node was given up before the first start. The controller then replaces this object
    /// by one that goes to another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,

    /// How the next consumer pod is assigned to its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// The image that the data was created with. The controller creates provider pods from its
    /// digest, so only an edit of the template can change the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PinnedImage>,

    /// The `ephemeral-storage` limit of the main container in the last consumer pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_limit: Option<String>,

    /// Result of the last dry run of a pod from the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_check: Option<TemplateCheck>,

    /// State of the kept filesystem, as reported by the node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FilesystemStatus>,

    /// Steps of the last start of the consumer, with times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<StartSteps>,

    /// Steps of the last stop of a consumer, with times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stop: Option<StopSteps>,

    /// Conditions of the object: Ready, ProviderReady, FilesystemReady, ConsumerReady,
    /// ConsumerScheduled and Stopped. RestartRequired is present only while it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Why a node was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// The cause as a CamelCase word, from the component that reported it.
    pub reason: String,

    /// The cause as a sentence.
    pub message: String,
}

/// Result of a dry run of a pod from a template. The controller makes one dry run for each
/// template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateCheck {
    /// Hash of the template.
    pub template_hash: String,

    /// Why the API server rejects pods from the template. Absent if it accepts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An image by its name in a template and by its immutable digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedImage {
    /// The image name in the template.
    pub name: String,

    /// The image that the name referred to: `REPOSITORY@DIGEST`.
    pub digest: String,
}

/// How the next consumer pod is assigned to its node: by `nodeName`, or by the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// By `nodeName`, without the scheduler. This is the fastest way.
    #[default]
    Node,
    /// By the scheduler, with required node affinity. Used after a consumer pod ended without a
    /// stop by the user (rejected by the kubelet, preempted, evicted, failed), so that the next pod
    /// queues and reports a reason.
    Scheduler,
}

/// State of the kept filesystem, as reported by the node agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemStatus {
    /// State of the filesystem: Preparing, Ready, Failed or Removed.
    pub state: FilesystemState,

    /// Name of the node whose agent wrote this status.
    pub node_name: String,

    /// UID of the provider pod that the filesystem was last prepared for. The state `Ready` is
    /// valid only while this equals `status.providerPodUid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_pod_uid: Option<String>,

    /// Set in the state `Preparing` if `image` and `identity` are known from an earlier container
    /// of the namespace. The consumer pod is then created while the provider pod starts, and its
    /// command waits for the state `Ready`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announced: bool,

    /// Why the state is `Failed`, as a CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why the state is `Failed`, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Identifier of the `spec.hostPathPrefix` directory that holds the data, from its file `.id`.
    /// While a different directory is at that path, for example because a disk is not mounted, the
    /// data is unreachable but not lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,

    /// The image's config. The webhook uses it for fields that the template does not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFacts>,

    /// The user and groups of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// Last measured disk usage of the files that were written on top of the image. The agent
    /// measures periodically while the consumer runs, and once after it stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<FilesystemUsage>,

    /// The recovery options if the filesystem cannot be used or exceeds its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryOffer>,

    /// How little space the node's disk has left, as a sentence. Present only while it is almost
    /// full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_low: Option<String>,

    /// Set while a consumer's container is running but its command is waiting for the filesystem.
    /// The message names the cause. The kubelet reports such a container as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<ConsumerReport>,

    /// Set if the node's disk failed to store some of the data that a consumer wrote. Cleared at
    /// the next clean stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_failed: Option<ConsumerReport>,
}

/// A message of the node agent about one consumer pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerReport {
    /// UID of the consumer pod.
    pub pod_uid: String,

    /// What happened, as a sentence.
    pub message: String,
}

/// State of a kept filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilesystemState {
    /// The agent is preparing the filesystem. From now on, data may exist on the node.
    Preparing,
    /// The filesystem is ready for a consumer.
    Ready,
    /// The filesystem cannot be used. The reason and message say why.
    Failed,
    /// The instance is being deleted, and the agent has removed the data from the node.
    Removed,
}

/// Config of an image (OCI image specification, "config"), as reported by the container runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// Image name in the provider pod.
    pub reference: String,
    /// ID of the image in the container runtime: the digest of its config or manifest.
    pub id: String,
    /// Immutable reference of the image in its registry, `REPOSITORY@DIGEST`. Empty if the image
    /// was not pulled from a registry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repo_digest: String,
    /// ENTRYPOINT of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// CMD of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// ENV of the image, as `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// WORKDIR of the image. Empty means `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// USER of the image: a name or UID, with an optional `:GROUP`. Empty means root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// STOPSIGNAL of the image. Empty means SIGTERM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// A user, resolved in the kept filesystem's `/etc/passwd` and `/etc/group`. The agent resolves it
/// in the same way as containerd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The user to resolve: `runAsUser` of the template's main container, else of the template's
    /// pod, else the image's USER. Empty means root.
    pub user: String,
    /// Numeric user ID.
    pub uid: i64,
    /// Numeric ID of the primary group.
    pub gid: i64,
    /// Numeric IDs of the user's other groups in `/etc/group`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<i64>,
}

// === impl StoppableContainerInstanceSpec ===

impl StoppableContainerInstanceSpec {
    /// The user that the main container runs as: `runAsUser` of the container, else of the pod,
    /// else the image's USER, else root. The format is that of [`Identity::user`], so that agent
    /// and webhook can compare them.
    pub fn requested_user(&self, image: &ImageFacts) -> String {
        let asked = self.template.main().run_as_user;
        asked.map_or_else(|| image.user.clone(), |uid| uid.to_string())
    }

    /// Image of the main container; empty in a template without one.
    pub fn main_image(&self) -> &str {
        &self.template.main().image
    }

    /// Name of the main container, whose filesystem is kept; empty in a template without
    /// containers.
    pub fn main_container(&self) -> &str {
        &self.template.main().name
    }
}

// === impl StoppableContainerInstance ===

impl StoppableContainerInstance {
    /// Whether the usage of `filesystem` exceeds the limit of the next consumer, which the
    /// controller does not start then. The limit is the template's. Without one it is the limit
    /// that the last consumer got from an admission plugin (LimitRange).
    pub fn storage_excess(&self, filesystem: Option<&FilesystemStatus>) -> Option<StorageExcess> {
        let main = self.spec.template.main();
        let given = || self.status.as_ref()?.storage_limit.as_deref();
        let limit = main.storage_limit.as_deref().or_else(given)?;
        StorageExcess::over(&main.name, limit, filesystem?.usage)
    }
}

// === impl StoppableContainerInstanceStatus ===

impl StoppableContainerInstanceStatus {
    /// What the consumer pod with this UID is waiting for, if it waits for its filesystem.
    pub fn blocked(&self, consumer_pod_uid: Option<&str>) -> Option<&str> {
        let blocked = self.filesystem.as_ref()?.blocked.as_ref()?;
        (Some(blocked.pod_uid.as_str()) == consumer_pod_uid).then_some(&blocked.message)
    }

    /// The filesystem, if it is ready and was prepared for the current provider.
    pub fn ready_filesystem(&self) -> Option<&FilesystemStatus> {
        self.startable_filesystem()
            .filter(|f| f.state == FilesystemState::Ready)
    }

    /// The filesystem, if a consumer pod can be created for it: it is ready, or it is announced and
    /// the consumer's command waits.
    pub fn startable_filesystem(&self) -> Option<&FilesystemStatus> {
        let of_provider = |f: &&FilesystemStatus| {
            f.provider_pod_uid.is_some() && f.provider_pod_uid == self.provider_pod_uid
        };
        self.filesystem
            .as_ref()
            .filter(of_provider)
            .filter(|f| match f.state {
                FilesystemState::Ready => true,
                FilesystemState::Preparing => f.announced,
                FilesystemState::Failed | FilesystemState::Removed => false,
            })
    }
}
