/*!
The work of the leader. StoppableContainer -> StoppableContainerInstance -> provider and consumer
pods.

This file is the wiring: leadership, watches, queues, retries. The rooms, from low to high; none
imports a higher one:

- [`conditions`]: how a condition is written, and why something does not go on;
- [`pods`]: how the pods of an instance look, and what a pod shows;
- [`context`]: client, caches, back-off, events, the forms of requests;
- [`instance`]: the reconciler of StoppableContainerInstances;
- [`container`]: the reconciler of StoppableContainers;
- [`watch`]: which event queues which object.

A watch starts a reconciliation; a timer does so only to retry what failed. The controller changes
only its own labels on a pod that exists. The webhook, not the controller, rewrites pods.
*/

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Future, ready};
use std::sync::Arc;

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::applier;
use kube::runtime::controller::{Action as Next, Config, Error as ControllerError};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::FIELD_MANAGER_CONTROLLER;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use self::context::{Caches, caches};
use self::watch::{Wake, watch_all};
use crate::lease::{Lease, LeaseOptions};
use crate::liveness::Liveness;
use crate::metrics::{ControllerMetrics, Kind, ObjectKey, Reconciled, Waiting};
use crate::reconcile::conditions::Cause;
use crate::reconcile::context::{Attempts, Context, OwnWrites, ReconcileError, Task};
use crate::reconcile::pods::{Created, OptOuts};

mod conditions;
pub mod container;
pub mod context;
pub mod instance;
pub mod pods;
mod watch;

/// Objects of one kind that are reconciled at the same time. A reconciliation mostly waits for the
/// API server.
const CONCURRENCY: u16 = 64;

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Leadership.
    pub lease: LeaseOptions,
    /// Labels and annotations that keep injectors away from provider pods.
    pub opt_outs: OptOuts,
}

/// What every replica has, whether it leads or not: caches, so that the next leader does not list.
#[derive(Clone)]
pub struct Watched {
    caches: Caches,
    wake: Wake,
    filled: Filled,
}

/// Whether every cache has been filled once; `false` if that will not happen any more.
///
/// Everything that waits for the caches waits for this: a store of kube wakes only the last one
/// that waits for it (`DelayedInit` has a single receiver).
pub(crate) type Filled = Shared<BoxFuture<'static, bool>>;

/// See [`Filled`].
fn filled(caches: Caches) -> Filled {
    async move { caches.filled().await.is_ok() }.boxed().shared()
}

/// Empty caches, and the future that keeps them up to date and never ends. `changed` has a
/// message for every change of an instance.
pub fn watched(
    client: &Client,
    changed: channel::Sender<()>,
) -> (Watched, impl Future<Output = ()> + Send + use<>) {
    let (caches, writers) = caches();
    let wake = Wake::default();
    let watching = watch_all(client.clone(), caches.clone(), writers, wake.clone(), changed);
    let filled = filled(caches.clone());
    (Watched { caches, wake, filled }, watching)
}

/// Why the controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches or the queues ended without a shutdown.
    #[error("the controllers ended unexpectedly")]
    Ended,
}

/// Waits for leadership, works while it lasts, waits again, until `shutdown`; gives the lease back
/// then.
///
/// # Guarantees
/// When the lease is lost the work is dropped at its next await point, before another request is
/// made.
///
/// # Errors
/// [`Error::Ended`] when the work ends by itself, which is a bug; the process should end.
pub async fn run(
    client: Client,
    options: Options,
    watched: Watched,
    liveness: Liveness,
    metrics: ControllerMetrics,
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
                lease.release().await;
                return Ok(());
            }
            () = lease.renew_until_lost() => tracing::warn!(identity = lease.identity(), "lost the lease; waiting to acquire it again"),
            () = lead(client.clone(), options.opt_outs.clone(), &watched, &liveness, &metrics) => {
                lease.release().await;
                return Err(Error::Ended);
            }
        }
    }
}

/// Both controllers. Dropping the future stops them.
async fn lead(
    client: Client,
    opt_outs: OptOuts,
    watched: &Watched,
    liveness: &Liveness,
    metrics: &ControllerMetrics,
) {
    let leading = metrics.lead();
    let Watched { caches, wake, filled } = watched;
    let reporter = Reporter {
        controller: FIELD_MANAGER_CONTROLLER.to_owned(),
        instance: None,
    };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        attempts: Attempts::new(metrics.retries.clone()),
        steps: metrics.steps.clone(),
        created: Created::default(),
        own: OwnWrites::default(),
        caches: caches.clone(),
        client,
        opt_outs,
    });
    if !filled.clone().await {
        return;
    }
    let queues = wake.lead(caches);
    tracing::info!(
        containers = caches.containers.len(),
        instances = caches.instances.len(),
        pods = caches.pods.len(),
        "caches filled"
    );
    leading.serve(caches.containers.clone());
    let containers = Pass::new(Kind::StoppableContainer, liveness, metrics);
    let instances = Pass::new(Kind::StoppableContainerInstance, liveness, metrics);
    let container_results = applier(
        containers.measured(container::reconcile),
        |object, failure, context: Arc<Context>| retry(&*object, failure, &context),
        Arc::clone(&context),
        caches.containers.clone(),
        containers.queue(queues.containers),
        Config::default().concurrency(CONCURRENCY),
    );
    let instance_results = applier(
        instances.measured(instance::reconcile),
        |object, failure, context: Arc<Context>| retry(&*object, failure, &context),
        Arc::clone(&context),
        caches.instances.clone(),
        instances.queue(queues.instances),
        Config::default().concurrency(CONCURRENCY),
    );
    tokio::join!(
        container_results.for_each(|done| {
            if let Some((namespace, name)) = outdated(&done) {
                context.own.containers.forget(namespace, name);
            }
            containers.log(done);
            ready(())
        }),
        instance_results.for_each(|done| {
            if let Some((namespace, name)) = outdated(&done) {
                context.own.forget_instance(namespace, name);
            }
            instances.log(done);
            ready(())
        }),
    );
}

/// What surrounds the reconciliations of a kind: liveness and metrics.
#[derive(Clone)]
struct Pass {
    kind: Kind,
    liveness: Liveness,
    metrics: ControllerMetrics,
    waiting: Arc<Waiting>,
}

// === impl Watched ===

impl Watched {
    /// The caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Waits until every cache has been filled once. `false` if that will not happen any more.
    pub fn filled(&self) -> impl Future<Output = bool> + Send + use<> {
        self.filled.clone()
    }
}

// === impl Pass ===

impl Pass {
    fn new(kind: Kind, liveness: &Liveness, metrics: &ControllerMetrics) -> Self {
        Self {
            kind,
            liveness: liveness.clone(),
            metrics: metrics.clone(),
            waiting: Arc::new(metrics.queue(kind)),
        }
    }

    /// The queue. It remembers since when objects wait.
    fn queue<K: Resource>(
        &self,
        objects: impl Stream<Item = ObjectRef<K>>,
    ) -> impl Stream<Item = Result<ObjectRef<K>, Infallible>> {
        let waiting = Arc::clone(&self.waiting);
        objects.map(move |object| {
            waiting.queued(key(&object));
            Ok(object)
        })
    }

    /// A reconciliation that counts as work under way while it lasts, and is measured.
    fn measured<K, F>(
        &self,
        reconcile: fn(Arc<K>, Arc<Context>) -> F,
    ) -> impl Fn(Arc<K>, Arc<Context>) -> BoxFuture<'static, Result<Next, ReconcileError>> + use<K, F>
    where
        K: Resource<DynamicType = ()> + Send + Sync + 'static,
        F: Future<Output = Result<Next, ReconcileError>> + Send + 'static,
    {
        let pass = self.clone();
        move |object, context| {
            let object_ref = ObjectRef::from_obj(&*object);
            let name = format!("the reconciliation of {object_ref}");
            let (pass, reconciliation) = (pass.clone(), reconcile(object, context));
            let span = pass.span(&object_ref);
            let of_pass = span.clone();
            let measured = async move {
                pass.waiting.taken(&key(&object_ref));
                let begin = Instant::now();
                let result = pass.liveness.of(name, reconciliation).await;
                let outcome = match &result {
                    Ok(_) => Reconciled::Done,
                    Err(error) if error.is_conflict() => Reconciled::Conflict,
                    Err(_) => Reconciled::Error,
                };
                pass.metrics.reconciled(pass.kind, outcome, begin);
                span.record("result", outcome.as_str());
                if matches!(outcome, Reconciled::Error) {
                    telemetry::failed(&span);
                }
                result
            };
            Box::pin(measured.instrument(of_pass))
        }
    }

    /// The span of a reconciliation. The calls to the API server are spans in it.
    fn span<K: Resource>(&self, object: &ObjectRef<K>) -> Span {
        tracing::info_span!(
            target: telemetry::SPANS, "reconciliation",
            otel.name = self.kind.span(), otel.status_code = Empty,
            namespace = object.namespace.as_deref(), name = object.name, result = Empty,
        )
    }

    /// Logs how a reconciliation ended.
    fn log<K: Resource>(
        &self,
        done: Result<(ObjectRef<K>, Next), ControllerError<ReconcileError, Infallible>>,
    ) where
        K::DynamicType: Debug,
    {
        match done {
            Ok((object, next)) => tracing::debug!(?object, ?next, "reconciled"),
            // A pod outlived its instance in the cache, or was never of one.
            Err(ControllerError::ObjectNotFound(object)) => {
                self.waiting.gone(&key(&object));
                tracing::debug!(%object, "object is gone");
            }
            Err(ControllerError::ReconcilerFailed(failure, object)) if failure.is_conflict() => {
                tracing::debug!(%object, "the cache was stale; reconciling again");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "reconciliation failed; it is retried");
            }
        }
    }
}

/// Namespace and name of an object whose answers are to be forgotten: the cache does not have it
/// any more, or the answers may be wrong, because versions go back when etcd is restored from a
/// backup.
fn outdated<K: Resource>(
    done: &Result<(ObjectRef<K>, Next), ControllerError<ReconcileError, Infallible>>,
) -> Option<(&str, &str)> {
    let object = match done {
        Err(ControllerError::ObjectNotFound(object)) => (object.namespace.as_deref(), &object.name),
        Err(ControllerError::ReconcilerFailed(failure, object)) if failure.is_conflict() => {
            (object.namespace.as_deref(), &object.name)
        }
        Ok(_) | Err(_) => return None,
    };
    Some((object.0.unwrap_or_default(), object.1))
}

fn key<K: Resource>(object: &ObjectRef<K>) -> ObjectKey {
    (object.namespace.clone().unwrap_or_default(), object.name.clone())
}

/// When to reconcile an object again after a failure.
fn retry<K: Resource>(object: &K, failure: &ReconcileError, context: &Context) -> Next {
    let meta = object.meta();
    let cause = Cause::new(reason::PASS_FAILED, failure.to_string());
    let uid = meta.uid.clone().unwrap_or_default();
    Next::requeue(
        context
            .attempts
            .failed(&uid, Task::Reconcile, meta.generation, None, cause),
    )
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use metrics::Metrics;
    use stoppablecontainer_api::StoppableContainer;
    use telemetry::recorder::Recorder as Spans;

    use super::*;
    use crate::metrics::StepMetrics;

    /// A context whose API server is never asked.
    fn unused() -> Arc<Context> {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let reporter = Reporter {
            controller: "test".to_owned(),
            instance: None,
        };
        Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            caches: caches().0,
            attempts: Attempts::default(),
            steps: StepMetrics::default(),
            created: Created::default(),
            own: OwnWrites::default(),
            opt_outs: OptOuts::default(),
        })
    }

    #[tokio::test]
    async fn a_reconciliation_is_a_span_with_its_object_and_its_outcome() {
        let (spans, _guard) = Spans::start();
        let object = serde_json::json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": { "namespace": "ns", "name": "web" },
            "spec": { "running": true, "template": { "spec": { "containers": [] } } },
        });
        let object: Arc<StoppableContainer> = Arc::new(serde_json::from_value(object).unwrap());
        let metrics = ControllerMetrics::new(&Metrics::new("test"));
        let pass = Pass::new(Kind::StoppableContainer, &Liveness::default(), &metrics);

        let done = pass.measured(|_: Arc<StoppableContainer>, _| ready(Ok(Next::await_change())));
        done(Arc::clone(&object), unused()).await.unwrap();
        let stale = pass.measured(|_: Arc<StoppableContainer>, _| ready(Err(ReconcileError::Stale)));
        stale(Arc::clone(&object), unused()).await.unwrap_err();
        let fails = pass.measured(|_: Arc<StoppableContainer>, _| {
            let patch = serde_json::from_str::<()>("no JSON").unwrap_err();
            ready(Err(ReconcileError::Patch(patch)))
        });
        fails(object, unused()).await.unwrap_err();

        let ended = spans.take();
        let results: Vec<_> = ended.iter().map(|span| span["result"].as_str()).collect();
        assert_eq!(results, ["done", "conflict", "error"]);
        // A conflict is the normal end of a decision made on an old cache.
        let failed = ended.iter().map(|span| span.contains_key("otel.status_code"));
        assert_eq!(failed.collect::<Vec<_>>(), [false, false, true]);
        for span in ended {
            assert_eq!(span["namespace"], "ns");
            assert_eq!(span["name"], "web");
            assert_eq!(span["otel.name"], Kind::StoppableContainer.span());
        }
    }

    /// The leader and the webhook waited for the same stores, and one of them was not woken.
    #[tokio::test]
    async fn f13_all_that_wait_for_the_caches_are_woken() {
        let (caches, mut writers) = caches();
        let filled = filled(caches);
        let waits = [tokio::spawn(filled.clone()), tokio::spawn(filled)];
        tokio::task::yield_now().await;
        writers.containers.apply_watcher_event(&Event::InitDone);
        tokio::task::yield_now().await;
        writers.instances.apply_watcher_event(&Event::InitDone);
        writers.pods.apply_watcher_event(&Event::InitDone);
        writers.nodes.apply_watcher_event(&Event::InitDone);
        tokio::task::yield_now().await;
        writers.drivers.apply_watcher_event(&Event::InitDone);
        for wait in waits {
            assert!(wait.await.unwrap());
        }
    }
}
