//! Writes of the change-over from the placeholder to the consumer.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::GATE_PLACEHOLDER;

use crate::reconcile::context::requests::patch_params;
use crate::reconcile::context::{Context, ReconcileError};
use crate::selections;

/// Nominates `node` for this very pod, in the state that was seen: on its way to a node it does not
/// need the nomination any more.
pub(super) async fn nominate(
    context: &Context,
    instance: &StoppableContainerInstance,
    pod: &Pod,
    node: &str,
) -> Result<Arc<Pod>, ReconcileError> {
    let metadata = json!({ "uid": pod.uid(), "resourceVersion": pod.resource_version() });
    let patch = json!({ "metadata": metadata, "status": { "nominatedNodeName": node } });
    let written = super::pods(context, instance)
        .patch_status(&pod.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    Ok(context.own.pods.note(Arc::new(selections::pod(written)?)))
}

/// Removes our gate from this very pod. Gates of others stay, also those that were added meanwhile.
pub(super) async fn admit(
    context: &Context,
    instance: &StoppableContainerInstance,
    pod: &Pod,
) -> Result<Arc<Pod>, ReconcileError> {
    let patch = json!({
        "metadata": { "uid": pod.uid() },
        "spec": { "schedulingGates": [{ "$patch": "delete", "name": GATE_PLACEHOLDER }] },
    });
    let written = super::pods(context, instance)
        .patch(&pod.name_any(), &patch_params(), &Patch::Strategic(patch))
        .await?;
    Ok(context.own.pods.note(Arc::new(selections::pod(written)?)))
}
