//! StoppableContainer, the kind that users write.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::Phase;
use crate::steps::{StartSteps, StopSteps};
use crate::template::{PodTemplate, Provider};
use crate::usage::FilesystemUsage;

/// Default of `spec.hostPathPrefix`: the directory on the node for the data of an object.
pub const DEFAULT_HOST_PATH_PREFIX: &str = "/var/lib/stoppablecontainer";

/// A container that can be stopped and started again with its whole root filesystem kept.
/// `template` describes its pod, and `running` stops and starts it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "stoppablecontainer.xtlsoft.top",
    version = "v1alpha1",
    kind = "StoppableContainer",
    namespaced,
    status = "StoppableContainerStatus",
    derive = "PartialEq",
    shortname = "stopc",
    category = "stoppable",
    category = "all",
    printcolumn = r#"{"name":"Running","type":"boolean","jsonPath":".spec.running","description":"Whether the consumer pod should run"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodeName"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerSpec {
    /// Whether the container runs. While it is `true`, a pod with the name of this object runs: the
    /// consumer pod. `false` deletes that pod and frees its CPU, memory and devices. Every file is
    /// kept on the node.
    #[serde(default)]
    pub running: bool,

    /// Template of the consumer pod, an ordinary pod template. The first entry of `containers` is
    /// the main container, whose root filesystem is kept. In the pod, the main container has the
    /// image and the arguments of a small program, which starts its command in the kept filesystem.
    /// The pod's `nodeName` and `restartPolicy` are overridden.
    pub template: PodTemplate,

    /// Resources and additional placement of the provider pod. This small pod has the name
    /// `NAME-provider` and keeps the image on the node of the files.
    #[serde(default)]
    pub provider: Provider,

    /// Directory on the node that holds the files of this object. It must be one of the directories
    /// that the administrator allows. It cannot be changed.
    #[serde(default = "default_host_path_prefix")]
    #[x_kube(validation = ("self == oldSelf", "the data is already kept there: hostPathPrefix cannot change once the object exists"))]
    pub host_path_prefix: String,
}

/// Resources and additional placement of the provider pod, which keeps the image on the node of the
/// files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Resource requests and limits of the provider pod.
    #[serde(default = "default_provider_resources")]
    pub resources: ResourceRequirements,

    /// Node selector of the provider pod, merged with the template's `nodeSelector`. For a key in
    /// both, this value is used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Tolerations of the provider pod, in addition to the template's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// What happens to the provider pod while the container is stopped: `Keep` or `Release`.
    /// Defaults to `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub while_stopped: Option<WhileStopped>,
}

/// What happens to the provider pod while the container is stopped. `Keep`, the default, lets it
/// run, and the next start takes the time of a plain pod. `Release` deletes it, and a stopped
/// container takes disk space only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhileStopped {
    /// The provider pod runs. The next start takes the time of a plain pod.
    Keep,
    /// The provider pod is deleted. A stopped container uses disk space only: no pod, no address
    /// and no quota. The next start first creates a provider pod of the same image, by digest.
    Release,
}

/// Observed state of a StoppableContainer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoppableContainerStatus {
    /// Phase of the container: Pending, ProviderReady, Running, Stopped or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Name of the node that holds the filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// Name of the StoppableContainerInstance of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,

    /// UID of that StoppableContainerInstance. The data directory on the node has this name. The
    /// controller replaces the instance only if the user asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_uid: Option<String>,

    /// UID of the StoppableContainerInstance whose files the user gave up last. The recovery
    /// annotation does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_instance_uid: Option<String>,

    /// Nodes that were given up before the first start. Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_nodes: Option<GivenUpNodes>,

    /// Observed state of the kept filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<KeptFilesystem>,

    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

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

/// Nodes that were chosen before the first start and given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenUpNodes {
    /// How often a node was given up.
    pub count: i64,

    /// Names of the last five of them, the newest last. The scheduler prefers other nodes.
    pub nodes: Vec<String>,

    /// UID of the StoppableContainerInstance that was given up last. It had no files.
    pub instance_uid: String,
}

/// Summary of the kept filesystem. The StoppableContainerInstance has the details.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptFilesystem {
    /// Last measured disk usage of the files that were written on top of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<FilesystemUsage>,
}

// === impl ProviderSpec ===

impl Default for ProviderSpec {
    fn default() -> Self {
        Self {
            resources: default_provider_resources(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            while_stopped: None,
        }
    }
}

pub(crate) fn default_host_path_prefix() -> String {
    DEFAULT_HOST_PATH_PREFIX.to_owned()
}

fn default_provider_resources() -> ResourceRequirements {
    let quantities = |cpu: &str, memory: &str| {
        Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ]))
    };
    ResourceRequirements {
        requests: quantities("10m", "16Mi"),
        limits: quantities("100m", "64Mi"),
        ..ResourceRequirements::default()
    }
}
