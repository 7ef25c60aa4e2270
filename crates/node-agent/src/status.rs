//! Writes `status.filesystem` of instances, which is the agent's alone.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use stoppablecontainer_api::names::FIELD_MANAGER_AGENT;
use stoppablecontainer_api::{FilesystemStatus, StoppableContainerInstance};

use crate::instances::Instance;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Applies the status, unless it is there already. The object must be the one of this UID.
pub(crate) async fn apply(client: &Client, instance: &Instance, status: FilesystemStatus) -> Result<()> {
    if instance.filesystem().as_ref() == Some(&status) {
        return Ok(());
    }
    let id = &instance.id;
    let api: Api<StoppableContainerInstance> = Api::namespaced(client.clone(), &id.namespace);
    let patch = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        // With the UID the API server refuses to write to an object that was made anew under the name.
        "metadata": { "name": id.name, "uid": id.uid },
        "status": { "filesystem": status },
    });
    let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
    let patch = Patch::Apply(patch);
    tokio::time::timeout(TIMEOUT, api.patch_status(&id.name, &params, &patch))
        .await
        .context("the API server does not answer")?
        .with_context(|| format!("write the status of instance {id}"))?;
    tracing::info!(instance = %id, state = ?status.state, reason = status.reason, "filesystem");
    instance.change(|state| state.written = Some(status));
    Ok(())
}
