/*!
The leader's work: StoppableContainer -> StoppableContainerInstance -> provider and
consumer pods, and what is known of them.

A pass over an object observes ([`observe`]), plans ([`plan`], pure), carries out
([`apply`]) and writes the status ([`status`], pure). Passes are woken by watches;
a timer wakes them only to try again what failed. Nothing here changes a pod that
exists but for our own labels, and nothing rewrites a pod: that is the webhook.
*/

pub mod container;
pub mod context;
#[cfg(test)]
mod fixtures;
pub mod instance;
pub mod pods;
pub mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{Action as Next, Config, Error as ControllerError};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{applier, reflector::ObjectRef};
use kube::{Client, Resource, ResourceExt};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::FIELD_MANAGER_CONTROLLER;
use tokio_util::sync::CancellationToken;

use self::context::attempts::{Attempts, Task};
use self::context::events;
use self::instance::apply::Outcome;
use self::instance::plan::{Action, Observed, Slot};
use self::instance::{apply, observe, plan, status, template};
use self::pods::created::Created;
use self::pods::provider::OptOuts;
use self::pods::{Role, Trouble};
use self::watch::Caches;
use crate::lease::{Lease, LeaseOptions};
use crate::progress::Progress;

/// Objects that are worked on at the same time, per kind. Passes mostly wait for the API server.
const CONCURRENCY: u16 = 64;

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Leadership.
    pub lease: LeaseOptions,
    /// Labels and annotations that keep injectors away from provider pods.
    pub opt_outs: OptOuts,
}

/// Why the controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches or the queues ended although nobody asked for it.
    #[error("the controllers ended unexpectedly")]
    Ended,
}

/// What every pass works with.
pub struct Context {
    /// Client with the controller's rights.
    pub client: Client,
    /// What the watches know.
    pub caches: Caches,
    /// What failed before.
    pub attempts: Attempts,
    /// Which pods were created here.
    pub created: Created,
    /// Publishes events.
    pub recorder: Recorder,
    /// See [`Options::opt_outs`].
    pub opt_outs: OptOuts,
}

/// Why a pass over one object ended early. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused or could not be asked. A conflict is the normal end of a decision made on an old cache.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// What was decided on is not the newest state. The next pass decides again.
    #[error("the object changed since it was read")]
    Stale,
    /// A patch of our own could not be expressed.
    #[error("patch: {0}")]
    Patch(#[source] serde_json::Error),
}

/// Waits for leadership, works while it lasts, waits again, until `shutdown`; gives the lease back then.
///
/// # Guarantees
/// When the lease is lost the work is dropped at its next await point, before another request is made.
///
/// # Errors
/// [`Error::Ended`] when the work ends by itself, which is a bug; the process should end.
pub async fn run(
    client: Client,
    options: Options,
    progress: Progress,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut lease = Lease::new(client.clone(), options.lease);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = lease.acquire() => tracing::info!(identity = lease.identity(), "leading"),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                lease.vacate().await;
                return Ok(());
            }
            () = lease.hold() => tracing::warn!(identity = lease.identity(), "leadership lost; waiting for it again"),
            () = lead(client.clone(), options.opt_outs.clone(), progress.clone()) => {
                lease.vacate().await;
                return Err(Error::Ended);
            }
        }
    }
}

/// Both controllers and their watches. Dropping the future stops them.
async fn lead(client: Client, opt_outs: OptOuts, progress: Progress) {
    let (caches, writers) = watch::caches();
    let (queues, watching) = watch::watch(&client, &caches, writers);
    let reporter = Reporter {
        controller: FIELD_MANAGER_CONTROLLER.to_owned(),
        instance: None,
    };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        attempts: Attempts::default(),
        created: Created::default(),
        caches: caches.clone(),
        client,
        opt_outs,
    });
    let controllers = async {
        if caches.filled().await.is_err() {
            return;
        }
        tracing::info!(
            containers = caches.containers.len(),
            instances = caches.instances.len(),
            pods = caches.pods.len(),
            "caches filled"
        );
        let containers = applier(
            watched(&progress, container::pass),
            |object, failure, context: Arc<Context>| retry(&*object, failure, &context),
            Arc::clone(&context),
            caches.containers.clone(),
            queue(queues.containers),
            Config::default().concurrency(CONCURRENCY),
        );
        let instances = applier(
            watched(&progress, pass),
            |object, failure, context: Arc<Context>| retry(&*object, failure, &context),
            Arc::clone(&context),
            caches.instances.clone(),
            queue(queues.instances),
            Config::default().concurrency(CONCURRENCY),
        );
        tokio::join!(containers.for_each(log), instances.for_each(log));
    };
    tokio::select! {
        () = watching => {}
        () = controllers => {}
    }
}

/// A pass that counts as work under way while it lasts.
fn watched<K, F>(
    progress: &Progress,
    pass: fn(Arc<K>, Arc<Context>) -> F,
) -> impl Fn(Arc<K>, Arc<Context>) -> BoxFuture<'static, Result<Next, Failure>> + use<K, F>
where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
    F: Future<Output = Result<Next, Failure>> + Send + 'static,
{
    let progress = progress.clone();
    move |object, context| {
        let name = format!("the pass over {}", ObjectRef::from_obj(&*object));
        let (progress, pass) = (progress.clone(), pass(object, context));
        Box::pin(async move { progress.of(name, pass).await })
    }
}

fn queue<K: Resource>(
    objects: impl Stream<Item = ObjectRef<K>>,
) -> impl Stream<Item = Result<ObjectRef<K>, Infallible>> {
    objects.map(Ok)
}

async fn log<K: Resource>(done: Result<(ObjectRef<K>, Next), ControllerError<Failure, Infallible>>)
where
    K::DynamicType: std::fmt::Debug,
{
    match done {
        Ok((object, next)) => tracing::debug!(?object, ?next, "pass done"),
        // A pod outlived its instance in the cache, or was never of one.
        Err(ControllerError::ObjectNotFound(object)) => tracing::debug!(%object, "object is gone"),
        Err(ControllerError::ReconcilerFailed(failure, object)) if failure.is_conflict() => {
            tracing::debug!(%object, "decided on an old cache; again");
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "pass failed; it is tried again");
        }
    }
}

/// One pass over an instance: look, plan, act, report.
///
/// # Errors
/// See [`Failure`]; the caller tries again later.
pub async fn pass(instance: Arc<StoppableContainerInstance>, context: Arc<Context>) -> Result<Next, Failure> {
    let before = instance.status.clone().unwrap_or_default().conditions;
    let mut observed = observe::observe(&context, instance).await?;
    let actions = plan::plan(&observed, &context.opt_outs);
    if actions.contains(&Action::RemoveFinalizer) {
        // Never by a cache (invariant I17): the finalizer that holds the data goes for good.
        match observe::observe_afresh(&context, &observed.instance).await? {
            Some(fresh) if plan::plan(&fresh, &context.opt_outs) == actions => observed = fresh,
            Some(_) => return Err(Failure::Stale),
            None => {
                apply::forget(&context, &observed.instance);
                return Ok(Next::await_change());
            }
        }
    }
    // The status records facts (node, placement after an end) before a deletion removes the pod that shows them. The
    // write also proves that the decision was made on the newest wish; without a write the API server is asked.
    let deletes = |action: &Action| matches!(action, Action::Delete(..) | Action::Discard(..));
    if actions.iter().any(deletes) {
        let status = status::status(&observed, Timestamp::now());
        let written = apply::write_status(&context, &observed.instance, &status).await?;
        if Arc::ptr_eq(&written, &observed.instance) {
            apply::confirm(&context, &written).await?;
        }
        observed.instance = written;
    }
    let idle = actions.is_empty();
    let mut observed = match apply::apply(&context, observed, actions).await? {
        Outcome::Present(observed) => *observed,
        Outcome::Released => return Ok(Next::await_change()),
    };
    settle(&context, &observed);
    // Not before what is urgent.
    let again = if idle {
        template::check(&context, &mut observed).await
    } else {
        None
    };
    let status = status::status(&observed, Timestamp::now());
    let written = apply::write_status(&context, &observed.instance, &status).await?;
    events::changes(&context, written.object_ref(&()), &before, &status.conditions).await;
    Ok(next(&observed, again))
}

/// Forgets the refusals of steps that work now.
fn settle(context: &Context, observed: &Observed) {
    let uid = observed.instance.uid().unwrap_or_default();
    context.attempts.succeeded(&uid, Task::Pass);
    if observed.working_provider().is_some() {
        context.attempts.succeeded(&uid, Task::Pod(Role::Provider));
    }
    if observed.consumer.pod().is_some_and(|pod| pods::running(pod)) {
        context.attempts.succeeded(&uid, Task::Pod(Role::Consumer));
    }
}

/// Watches report everything but the time at which a failed step may be tried again, and that a container which was
/// started again still runs.
fn next(observed: &Observed, again: Option<Duration>) -> Next {
    let parts = [
        (&observed.provider, &observed.provider_hold),
        (&observed.consumer, &observed.consumer_hold),
    ];
    let wait = parts
        .into_iter()
        .filter(|(slot, _)| !matches!(slot, Slot::Ours(_)))
        .filter_map(|(_, hold)| hold.as_ref().map(|hold| hold.remaining))
        .chain(observed.doubted)
        .filter(|wait| *wait > Duration::ZERO)
        .chain(again)
        .min();
    wait.map_or_else(Next::await_change, Next::requeue)
}

/// When to pass over an object again after a failure.
fn retry<K: Resource>(object: &K, failure: &Failure, context: &Context) -> Next {
    let meta = object.meta();
    let trouble = Trouble::new(reason::PASS_FAILED, failure.to_string());
    let uid = meta.uid.clone().unwrap_or_default();
    Next::requeue(
        context
            .attempts
            .failed(&uid, Task::Pass, meta.generation, None, trouble),
    )
}

// === impl Failure ===

impl Failure {
    /// The object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code == 409,
            Self::Stale => true,
            Self::Api(_) | Self::Patch(_) => false,
        }
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }
}
