/*!
The reconciler of StoppableContainers. Each one has an instance of the same name with a full copy of
its spec, and shows the status of that instance as its own.

The controller writes to an instance what it reads from the container after it has read the
instance, and names the resourceVersion of that instance. So a leader or a cache that is behind does
not bring back an older spec (invariant I17). If a container is being deleted, the controller
decides on reads past the caches alone.

Pods do not belong here: they are the work of `instance`.
*/

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action as Next;
use kube::{Api, ResourceExt};
use stoppablecontainer_api::StoppableContainer;

use crate::reconcile::container::plan::Action;
use crate::reconcile::container::state::Slot;
use crate::reconcile::context::{Context, ReconcileError, Task};

mod apply;
mod desired;
mod observe;
mod plan;
mod state;
mod status;

/// Reconciles one StoppableContainer: observes, plans, applies, writes the status.
pub async fn reconcile(
    container: Arc<StoppableContainer>,
    context: Arc<Context>,
) -> Result<Next, ReconcileError> {
    let container = context.own.containers.or_later(container);
    let Some(mut observed) = observe::observe(&context, container).await? else {
        return Ok(Next::await_change());
    };
    for action in plan::plan(&observed) {
        if action == Action::RemoveFinalizer {
            return apply::release(&context, &observed.container).await;
        }
        apply::act(&context, &mut observed, action).await?;
    }
    let status = status::status(&observed, Timestamp::now());
    let hold = status::hold(&context, &observed.container, &status);
    if hold.is_none() {
        status::write_status(&context, &observed, &status).await?;
    }
    context
        .attempts
        .succeeded(&observed.container.uid().unwrap_or_default(), Task::Reconcile);
    let wait = observed
        .backoff
        .filter(|_| matches!(observed.instance, Slot::Free))
        .map(|backoff| backoff.remaining);
    let wait = wait.into_iter().chain(hold).min();
    Ok(wait.map_or_else(Next::await_change, Next::requeue))
}

pub(crate) fn containers(context: &Context, container: &StoppableContainer) -> Api<StoppableContainer> {
    Api::namespaced(context.client.clone(), &container.namespace().unwrap_or_default())
}
