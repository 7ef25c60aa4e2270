//! Leadership, queues, reconciliations and objects of the controller.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::Store;
use metrics::{Labels, Metrics, catalogue};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::READY;
use tokio::time::Instant;

use crate::metrics::steps::StepMetrics;

/// Upper bounds in seconds: a reconciliation makes up to about ten calls to the API server.
const BUCKETS: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Kinds that the controller reconciles.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Kind {
    /// The user's kind.
    StoppableContainer,
    /// The kind with the pods.
    StoppableContainerInstance,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Reconciled {
    /// Nothing more to do at present.
    Done,
    /// The decision was made on an old state.
    Conflict,
    /// It failed.
    Error,
}

/// What the controller measures.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    reconciliations: Family<Outcome, Counter>,
    seconds: Family<OfKind, Histogram, fn() -> Histogram>,
    queue_seconds: Family<OfKind, Histogram, fn() -> Histogram>,
    /// Failed attempts.
    pub retries: Retries,
    /// Steps of starts and stops.
    pub steps: StepMetrics,
    leader: Gauge,
    elections: Counter,
    objects: Arc<Mutex<Option<Store<StoppableContainer>>>>,
    queues: Arc<Mutex<HashMap<Kind, usize>>>,
}

/// Failed attempts, by task.
#[derive(Clone, Debug, Default)]
pub struct Retries(Family<Retried, Counter>);

/// Objects of a kind whose events no reconciliation has handled yet.
#[derive(Debug)]
pub struct Waiting {
    kind: Kind,
    since: Mutex<HashMap<ObjectKey, Instant>>,
    metrics: ControllerMetrics,
}

/// Namespace and name of an object.
pub type ObjectKey = (String, String);

/// Ends the leadership in the metrics when it is dropped.
#[derive(Debug)]
pub struct Leading(ControllerMetrics);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    kind: Kind,
    result: Reconciled,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: Kind,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Retried {
    task: &'static str,
}

// === impl Reconciled ===

impl EncodeLabelValue for Reconciled {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

// === impl Reconciled ===

impl Reconciled {
    /// The word for it in metrics and spans.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Error => "error",
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The name of a span of its reconciliation.
    pub(crate) fn span(self) -> &'static str {
        match self {
            Self::StoppableContainer => "reconcile StoppableContainer",
            Self::StoppableContainerInstance => "reconcile StoppableContainerInstance",
        }
    }
}

// === impl ControllerMetrics ===

impl ControllerMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS);
        let controller = Self {
            reconciliations: Family::default(),
            seconds: Family::new_with_constructor(constructor),
            queue_seconds: Family::new_with_constructor(constructor),
            retries: Retries::default(),
            steps: StepMetrics::new(metrics),
            leader: Gauge::default(),
            elections: Counter::default(),
            objects: Arc::default(),
            queues: Arc::default(),
        };
        metrics.register(&catalogue::RECONCILIATIONS, controller.reconciliations.clone());
        metrics.register(&catalogue::RECONCILIATION_SECONDS, controller.seconds.clone());
        metrics.register(&catalogue::QUEUE_SECONDS, controller.queue_seconds.clone());
        metrics.register(&catalogue::RETRIES, controller.retries.0.clone());
        metrics.register(&catalogue::LEADER, controller.leader.clone());
        metrics.register(&catalogue::LEADER_ELECTIONS, controller.elections.clone());
        let objects = Arc::clone(&controller.objects);
        metrics.register_computed(&catalogue::CONTAINERS, move || {
            lock(&objects).as_ref().map(count).unwrap_or_default()
        });
        let queues = Arc::clone(&controller.queues);
        metrics.register_computed(&catalogue::QUEUE_LENGTH, move || {
            let queues = lock(&queues);
            let length = |(kind, length): (&Kind, &usize)| {
                (
                    vec![("kind", format!("{kind:?}"))],
                    i64::try_from(*length).unwrap_or(i64::MAX),
                )
            };
            queues.iter().map(length).collect()
        });
        controller
    }

    /// This replica leads until the result is dropped.
    pub fn lead(&self) -> Leading {
        self.leader.set(1);
        self.elections.inc();
        Leading(self.clone())
    }

    /// Counts a reconciliation that began at this time.
    pub fn reconciled(&self, kind: Kind, result: Reconciled, begin: Instant) {
        self.reconciliations
            .get_or_create(&Outcome { kind, result })
            .inc();
        let seconds = begin.elapsed().as_secs_f64();
        self.seconds.get_or_create(&OfKind { kind }).observe(seconds);
    }

    /// A queue of objects of this kind.
    pub fn queue(&self, kind: Kind) -> Waiting {
        lock(&self.queues).insert(kind, 0);
        Waiting {
            kind,
            since: Mutex::default(),
            metrics: self.clone(),
        }
    }
}

/// Objects by phase and by reason of the condition Ready.
fn count(objects: &Store<StoppableContainer>) -> Vec<(Labels, i64)> {
    let mut numbers = BTreeMap::<(String, String), i64>::new();
    for object in objects.state() {
        let status = object.status.as_ref();
        let phase = status.and_then(|status| status.phase);
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == READY);
        let key = (
            phase.map(|phase| phase.to_string()).unwrap_or_default(),
            ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
        );
        *numbers.entry(key).or_default() += 1;
    }
    let labelled = |((phase, reason), number)| (vec![("phase", phase), ("reason", reason)], number);
    numbers.into_iter().map(labelled).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Leading ===

impl Leading {
    /// These objects are counted at scrapes.
    pub fn serve(&self, objects: Store<StoppableContainer>) {
        *lock(&self.0.objects) = Some(objects);
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.leader.set(0);
        *lock(&self.0.objects) = None;
        lock(&self.0.queues).clear();
    }
}

// === impl Retries ===

impl Retries {
    /// Counts a failed attempt of this task.
    pub fn failed(&self, task: &'static str) {
        self.0.get_or_create(&Retried { task }).inc();
    }
}

// === impl Waiting ===

impl Waiting {
    /// An event of this object was queued.
    pub fn queued(&self, object: ObjectKey) {
        let mut since = lock(&self.since);
        since.entry(object).or_insert_with(Instant::now);
        self.note(since.len());
    }

    /// A reconciliation of the object begins.
    pub fn taken(&self, object: &ObjectKey) {
        if let Some(since) = self.remove(object) {
            let seconds = since.elapsed().as_secs_f64();
            let kind = OfKind { kind: self.kind };
            self.metrics.queue_seconds.get_or_create(&kind).observe(seconds);
        }
    }

    /// The object is gone.
    pub fn gone(&self, object: &ObjectKey) {
        self.remove(object);
    }

    fn remove(&self, object: &ObjectKey) -> Option<Instant> {
        let mut waiting = lock(&self.since);
        let since = waiting.remove(object);
        self.note(waiting.len());
        since
    }

    fn note(&self, length: usize) {
        lock(&self.metrics.queues).insert(self.kind, length);
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    const KIND: Kind = Kind::StoppableContainer;

    fn key(name: &str) -> ObjectKey {
        ("ns".to_owned(), name.to_owned())
    }

    fn values(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.encode().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("stoppablecontainer_{name}")));
        let values = lines.map(|line| line.trim_start_matches("stoppablecontainer_").to_owned());
        values.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_waits_from_its_first_event_to_its_reconciliation() {
        let metrics = Metrics::new("0");
        let controller = ControllerMetrics::new(&metrics);
        let waiting = controller.queue(KIND);
        let length = |number| vec![format!("queue_length{{kind=\"StoppableContainer\"}} {number}")];
        assert_eq!(values(&metrics, "queue_length"), length(0));
        waiting.queued(key("a"));
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        waiting.queued(key("a"));
        waiting.queued(key("b"));
        assert_eq!(values(&metrics, "queue_length"), length(2));
        waiting.taken(&key("a"));
        waiting.gone(&key("b"));
        assert_eq!(values(&metrics, "queue_length"), length(0));
        assert_eq!(
            values(&metrics, "queue_seconds_sum"),
            ["queue_seconds_sum{kind=\"StoppableContainer\"} 2.0"],
            "from the first event, and only of the reconciled object"
        );
        waiting.taken(&key("a"));
        assert_eq!(
            values(&metrics, "queue_seconds_count"),
            ["queue_seconds_count{kind=\"StoppableContainer\"} 1"],
            "a retry has no event"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_leader_counts_objects() {
        let metrics = Metrics::new("0");
        let controller = ControllerMetrics::new(&metrics);
        assert_eq!(values(&metrics, "leader "), ["leader 0"]);
        let (objects, mut writer) = reflector::store();
        for (name, ready) in [("a", "Running"), ("b", "Stopped"), ("c", "Stopped")] {
            let object = json!({
                "metadata": { "namespace": "ns", "name": name },
                "spec": { "running": true, "template": { "spec": { "containers": [] } } },
                "status": { "phase": "Stopped", "conditions": [{
                    "type": "Ready", "status": "False", "reason": ready, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }] },
            });
            writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
        }
        let leading = controller.lead();
        leading.serve(objects);
        assert_eq!(values(&metrics, "leader "), ["leader 1"]);
        assert_eq!(values(&metrics, "leader_elections"), ["leader_elections_total 1"]);
        assert_eq!(
            values(&metrics, "containers"),
            [
                "containers{phase=\"Stopped\",reason=\"Running\"} 1",
                "containers{phase=\"Stopped\",reason=\"Stopped\"} 2",
            ]
        );
        drop(leading);
        assert_eq!(values(&metrics, "leader "), ["leader 0"]);
        assert_eq!(values(&metrics, "containers"), Vec::<String>::new());
    }
}
