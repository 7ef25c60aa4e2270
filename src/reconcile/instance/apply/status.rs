//! The write of the status, and the read that takes its place as proof if there is nothing to
//! write.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::Patch;
use stoppablecontainer_api::{StoppableContainerInstance, StoppableContainerInstanceStatus};

use crate::reconcile::context::requests::{patch_params, status_patch};
use crate::reconcile::context::{Context, ReconcileError};

/// Writes the status if it differs from the one that the instance has in more than the steps of the
/// last start and stop, and returns the instance as it is then.
///
/// The patch names the controller's fields and no others: `filesystem` is the agent's.
pub(crate) async fn write_status(
    context: &Context,
    instance: &Arc<StoppableContainerInstance>,
    status: &StoppableContainerInstanceStatus,
) -> Result<Arc<StoppableContainerInstance>, ReconcileError> {
    let is_written = |old: &StoppableContainerInstanceStatus| {
        let (last_start, last_stop) = (old.last_start.clone(), old.last_stop.clone());
        *old == StoppableContainerInstanceStatus {
            last_start,
            last_stop,
            ..status.clone()
        }
    };
    if instance.status.as_ref().is_some_and(is_written) {
        return Ok(Arc::clone(instance));
    }
    let without_filesystem = |status: &StoppableContainerInstanceStatus| StoppableContainerInstanceStatus {
        filesystem: None,
        ..status.clone()
    };
    let old = instance.status.as_ref().map(without_filesystem);
    let new = without_filesystem(status);
    let patch = status_patch(&**instance, old.as_ref(), &new).map_err(ReconcileError::Patch)?;
    let api = super::instances(context, instance);
    let written = api
        .patch_status(&instance.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    Ok(context.own.instances.note(Arc::new(written)))
}

/// Asks the API server whether `instance` is the newest state of the object: a decision on an older
/// one could undo what the user has wished since (invariant I17).
///
/// # Errors
/// [`ReconcileError::Stale`] if it is not.
pub(crate) async fn ensure_newest(
    context: &Context,
    instance: &StoppableContainerInstance,
) -> Result<(), ReconcileError> {
    let newest = super::instances(context, instance)
        .get_metadata_opt(&instance.name_any())
        .await?;
    match newest {
        Some(newest) if newest.metadata.resource_version == instance.metadata.resource_version => Ok(()),
        _ => Err(ReconcileError::Stale),
    }
}
