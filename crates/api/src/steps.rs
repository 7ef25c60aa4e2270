//! When the last start and the last stop took their steps, which both kinds report.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Steps of the last start of the consumer. A step is absent until it happened, and if it had
/// happened before the start was requested.
///
/// The times come from several clocks: those of the controller, the API server and the node. They
/// have a precision of a second. The status is not written for a step alone, so a step may appear
/// together with a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartSteps {
    /// When the controller saw that a consumer pod had to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,

    /// When a node was chosen for the consumer pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,

    /// When the provider pod was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ready_at: Option<Time>,

    /// When the kept filesystem was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_ready_at: Option<Time>,

    /// When the consumer pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_created_at: Option<Time>,

    /// When the consumer pod was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
}

/// Steps of the last stop of a consumer, with any cause. As in `lastStart`, the times come from
/// several clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopSteps {
    /// Why the consumer was stopped: `Stopped` (`spec.running` is false), `Restarted` (the
    /// annotation `restartedAt`), `Deleting`, or the reason of the component that ended the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,

    /// When the controller saw that the consumer pod had to stop, or was ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,

    /// When the controller saw that the consumer pod was gone. The kubelet removes a pod after the
    /// node agent synced its files, unless the pod was deleted by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_gone_at: Option<Time>,
}
