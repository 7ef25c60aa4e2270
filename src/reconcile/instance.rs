/*!
The reconciler of StoppableContainerInstances: a reconciliation observes ([`observe`]), plans
([`plan`], pure), carries out ([`apply`]) and writes the status ([`status`], pure). What it knows is
in [`state`].

Reads, decisions and writes about one instance belong here; how its pods look is in `pods`.
*/

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action as Next;
use stoppablecontainer_api::StoppableContainerInstance;

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::events::publish;
use crate::reconcile::context::{Context, ReconcileError, Task};
use crate::reconcile::instance::apply::Outcome;
use crate::reconcile::instance::plan::Action;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods;
use crate::reconcile::pods::{Role, health};

mod apply;
mod events;
#[cfg(test)]
mod fixtures;
mod observe;
mod plan;
mod state;
mod status;
mod template_check;

/// Reconciles one instance: observes, plans, applies, writes the status.
///
/// # Errors
/// See [`ReconcileError`]; the caller retries.
pub async fn reconcile(
    instance: Arc<StoppableContainerInstance>,
    context: Arc<Context>,
) -> Result<Next, ReconcileError> {
    let instance = context.own.instances.or_later(instance);
    let mut observed = observe::observe(&context, instance).await?;
    let actions = plan::plan(&observed, &context.opt_outs);
    if actions.contains(&Action::RemoveFinalizer) {
        // Never by a cache (invariant I17): the finalizer that holds the data goes for good.
        match observe::observe_uncached(&context, &observed.instance).await? {
            Some(fresh) if plan::plan(&fresh, &context.opt_outs) == actions => observed = fresh,
            Some(_) => return Err(ReconcileError::Stale),
            None => {
                apply::forget(&context, &observed.instance);
                return Ok(Next::await_change());
            }
        }
    }
    // The status records facts (node, placement after an end) before a deletion removes the pod
    // that shows them. The write also proves that the decision was made on the newest spec; without
    // a write the controller asks the API server.
    let deletes = |action: &Action| {
        matches!(
            action,
            Action::Delete(..) | Action::Discard(..) | Action::GiveUp(..)
        )
    };
    if actions.iter().any(deletes) {
        let written = show(&context, &observed).await?;
        if Arc::ptr_eq(&written, &observed.instance) {
            apply::ensure_newest(&context, &written).await?;
        }
        observed.instance = written;
    }
    let idle = actions.is_empty();
    let mut observed = match apply::apply(&context, observed, actions).await? {
        Outcome::Present(observed) => *observed,
        Outcome::Released => return Ok(Next::await_change()),
    };
    reset_backoff(&context, &observed);
    // Not before what is urgent.
    let again = if idle {
        template_check::check(&context, &mut observed).await
    } else {
        None
    };
    show(&context, &observed).await?;
    Ok(next(&observed, again))
}

/// Writes the status of what was observed, publishes what is new in it, and returns the instance as
/// it is then. The events follow each write at once: a step that fails after it leaves nothing new
/// for the next pass.
async fn show(
    context: &Context,
    observed: &Observed,
) -> Result<Arc<StoppableContainerInstance>, ReconcileError> {
    let before = observed.instance.status.clone().unwrap_or_default();
    let status = status::status(observed, Timestamp::now());
    let written = apply::write_status(context, &observed.instance, &status).await?;
    let after = written.status.as_ref();
    context.steps.observe(&before, after.unwrap_or(&before));
    let restarted = restarted(context, observed);
    let news = events::events(&before, &status, observed, restarted.as_ref());
    publish(context, &events::regarding(&written), news).await;
    Ok(written)
}

/// How the main container ended, if the kubelet started it again since the last pass.
fn restarted(context: &Context, observed: &Observed) -> Option<Cause> {
    let pod = observed.consumer.pod()?;
    let (count, last) = health::restarts(pod, observed.instance.spec.main_container())?;
    let (of, uid) = (observed.instance.uid()?, pod.uid()?);
    context.attempts.restarted(&of, &uid, count).then_some(last)
}

/// Resets the back-off of steps that work now.
fn reset_backoff(context: &Context, observed: &Observed) {
    let uid = observed.instance.uid().unwrap_or_default();
    context.attempts.succeeded(&uid, Task::Reconcile);
    if observed.working_provider().is_some() {
        context.attempts.succeeded(&uid, Task::Pod(Role::Provider));
    }
    if observed.placeholder.pod().is_some() {
        context.attempts.succeeded(&uid, Task::Pod(Role::Placeholder));
    }
    if observed.consumer.pod().is_some_and(|pod| pods::is_running(pod)) {
        context.attempts.succeeded(&uid, Task::Pod(Role::Consumer));
    }
}

/// Watches report everything but the time at which a failed step may be tried again, and that a
/// container which was started again still runs.
fn next(observed: &Observed, again: Option<Duration>) -> Next {
    let parts = [
        (&observed.provider, &observed.provider_backoff),
        (&observed.consumer, &observed.consumer_backoff),
        (&observed.placeholder, &observed.placeholder_backoff),
    ];
    let wait = parts
        .into_iter()
        .filter(|(slot, _)| !matches!(slot, Slot::Ours(_)))
        .filter_map(|(_, backoff)| backoff.as_ref().map(|backoff| backoff.remaining))
        .chain(observed.unconfirmed_restart)
        .chain(
            observed
                .unsuitable
                .as_ref()
                .map(|unsuitable| unsuitable.remaining),
        )
        .filter(|wait| *wait > Duration::ZERO)
        .chain(again)
        .min();
    wait.map_or_else(Next::await_change, Next::requeue)
}
