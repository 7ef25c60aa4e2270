//! A look at a StoppableContainer and its instance: the caches, and reads past them (invariant
//! I17).

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::reconcile::container::containers;
use crate::reconcile::container::state::{Observed, Slot, recorded};
use crate::reconcile::context::{Context, ReconcileError, Task};

/// What there is; `None` if the container is gone.
pub(super) async fn observe(
    context: &Context,
    container: Arc<StoppableContainer>,
) -> Result<Option<Observed>, ReconcileError> {
    let deleting = container.metadata.deletion_timestamp.is_some();
    let (container, instance) = if deleting {
        // In this order: an orphan deletion cuts the instance loose before it takes its finalizer
        // off the container.
        match newest(context, &container).await {
            Ok(container) => {
                let found = fresh_instance(context, &container).await?;
                let slot = Slot::of(found, &container);
                (container, slot)
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        }
    } else {
        let slot = cached_slot(context, &container).await?;
        (container, slot)
    };
    let uid = container.uid().unwrap_or_default();
    let backoff = context
        .attempts
        .backoff(&uid, Task::Instance, container.metadata.generation);
    Ok(Some(Observed {
        container,
        instance,
        backoff,
    }))
}

/// The cache is enough if it shows that the instance is ours, or if it has no instance and none was
/// ever recorded.
pub(super) async fn cached_slot(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Slot, ReconcileError> {
    let namespace = container.namespace().unwrap_or_default();
    let reference = ObjectRef::new(&container.name_any()).within(&namespace);
    let cached = context.caches.instances.get(&reference);
    let cached = cached.map(|instance| context.own.instances.or_later(instance));
    if cached.is_none() && recorded(container).is_none() {
        return Ok(Slot::Free);
    }
    match Slot::of(cached, container) {
        ours @ Slot::Ours(_) => Ok(ours),
        _ => Ok(Slot::of(fresh_instance(context, container).await?, container)),
    }
}

/// The object with the name of the instance, as the API server has it.
pub(super) async fn fresh_instance(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Option<Arc<StoppableContainerInstance>>, ReconcileError> {
    let namespace = container.namespace().unwrap_or_default();
    let api = Api::<StoppableContainerInstance>::namespaced(context.client.clone(), &namespace);
    Ok(api.get_opt(&container.name_any()).await?.map(Arc::new))
}

/// The container as the API server has it.
///
/// # Errors
/// [`ReconcileError::Stale`] if that is another object of the name.
pub(super) async fn newest(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Arc<StoppableContainer>, ReconcileError> {
    let newest = containers(context, container).get(&container.name_any()).await?;
    if newest.metadata.uid == container.metadata.uid {
        Ok(context.own.containers.note(Arc::new(newest)))
    } else {
        Err(ReconcileError::Stale)
    }
}
