/*!
Waits until containers are as asked, with a watch, and reports what they are waiting for.

A wait ends when every container is there, or failed, or the time is up. Ctrl-C ends it too; the
cluster continues in all cases.
*/

mod goal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use tokio::time::Instant;

pub use goal::{Goal, Recovery, Seen, Verdict, verdict};

use crate::explain;
use crate::failure::{ApiFailureKind, Failure};
use crate::session::Session;
use crate::units;

/// Time without progress after which the cause is printed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An object to wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub shown: String,
    /// Its UID. Another object of the same name is not waited for.
    pub uid: Option<String>,
    /// With [`Goal::Restarted`]: the UID of the pod that is to be replaced.
    pub old_pod: Option<String>,
}

/// What came of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as asked, after this time.
    Met(Duration),
    /// It will not be.
    Failed(String),
    /// The time limit passed; the text is the last step with its cause.
    TimedOut(String),
    /// The user interrupted the wait.
    Interrupted,
}

/// What a watch reports.
enum Report {
    Object(Box<Event<StoppableContainer>>),
    Pod(Box<Event<Pod>>),
    Instance(Box<Event<StoppableContainerInstance>>),
}

/// What is known about a target.
struct Progress {
    seen: Seen,
    known: bool,
    text: String,
    cause: Option<String>,
    since: Instant,
    cause_printed: bool,
}

type Reports = SelectAll<BoxStream<'static, (String, Result<Report, watcher::Error>)>>;

/// Waits until every target is as `goal` says, and calls `met` for each that is.
///
/// # Errors
/// If the watch is refused.
pub async fn wait_for(
    session: &mut Session,
    targets: &[Target],
    goal: &Goal,
    timeout: Duration,
    mut met: impl FnMut(&mut Session, &Target, Duration),
) -> Result<Vec<(Target, Outcome)>, Failure> {
    let start = Instant::now();
    let mut reports = reports(session, targets, goal);
    let mut open: BTreeMap<&Target, Progress> = targets.iter().map(|t| (t, Progress::new(start))).collect();
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    let mut outcomes = Vec::new();
    let deadline = tokio::time::sleep(timeout);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(deadline, interrupt);
    let mut patience = tokio::time::interval(Duration::from_secs(1));
    while !open.is_empty() {
        tokio::select! {
            biased;
            report = reports.next() => {
                let Some((namespace, report)) = report else { break };
                match report {
                    Ok(report) => note(&mut open, &mut listed, &namespace, report),
                    Err(error) => interrupted(session, &mut open, &error)?,
                }
                for (target, outcome) in judge(&mut open, goal, start) {
                    if let Outcome::Met(time) = outcome {
                        met(session, &target, time);
                    }
                    outcomes.push((target, outcome));
                }
                show(session, &open, targets.len());
            }
            _ = &mut interrupt => {
                outcomes.extend(open.keys().map(|target| ((*target).clone(), Outcome::Interrupted)));
                break;
            }
            // A wait of no time looks at every object once, as kubectl does.
            () = &mut deadline, if !timeout.is_zero() || open.values().all(|progress| progress.known) => {
                outcomes.extend(open.iter().map(|(target, progress)| {
                    ((*target).clone(), Outcome::TimedOut(progress.last()))
                }));
                break;
            }
            _ = patience.tick() => causes(session, &mut open, targets.len()),
        }
    }
    session.screen.clear();
    Ok(outcomes)
}

/// The failures of a wait, with the commands that continue it.
///
/// # Errors
/// If a target is not as asked.
pub fn conclude(
    outcomes: Vec<(Target, Outcome)>,
    goal: &Goal,
    timeout: Duration,
    mut failures: Vec<Failure>,
) -> Result<(), Failure> {
    for (
        Target {
            shown,
            name,
            namespace,
            ..
        },
        outcome,
    ) in outcomes
    {
        let go_on = || match goal.flag() {
            Some(flag) => format!("continue to wait: kubectl stopc wait {name} -n {namespace} --for={flag}"),
            None => format!("look at it: kubectl stopc status {name} -n {namespace}"),
        };
        match outcome {
            Outcome::Met(_) => {}
            Outcome::Failed(cause) => failures.push(Failure::Failed(format!("{shown}: {cause}"))),
            Outcome::TimedOut(last) => failures.push(Failure::TimedOut(format!(
                "{shown}: not {} after {}, but the cluster is still at it ({last}); {}",
                goal.adjective(),
                units::elapsed(timeout),
                go_on()
            ))),
            Outcome::Interrupted => failures.push(Failure::Interrupted(format!(
                "{shown}: not {} yet; the cluster continues without this command; {}",
                goal.adjective(),
                go_on()
            ))),
        }
    }
    Failure::all(failures)
}

// === The watches ===

fn reports(session: &Session, targets: &[Target], goal: &Goal) -> Reports {
    let mut reports = SelectAll::new();
    let namespaces: BTreeSet<_> = targets.iter().map(|target| &target.namespace).collect();
    for namespace in namespaces {
        let here: Vec<_> = targets.iter().filter(|t| t.namespace == *namespace).collect();
        let config = match here.as_slice() {
            [one] => watch::Config::default().fields(&format!("metadata.name={}", one.name)),
            _ => watch::Config::default(),
        };
        let of = |namespace: String| move |report| (namespace.clone(), report);
        let objects: Api<StoppableContainer> = session.containers(namespace);
        reports.push(
            watch::watcher(objects, config.clone())
                .default_backoff()
                .map_ok(|event| Report::Object(Box::new(event)))
                .map(of(namespace.clone()))
                .boxed(),
        );
        if matches!(goal, Goal::Restarted) {
            let pods: Api<Pod> = session.api(namespace);
            reports.push(
                watch::watcher(pods, config)
                    .default_backoff()
                    .map_ok(|event| Report::Pod(Box::new(event)))
                    .map(of(namespace.clone()))
                    .boxed(),
            );
        } else if matches!(goal, Goal::Recovered(_)) {
            let instances: Api<StoppableContainerInstance> = session.api(namespace);
            reports.push(
                watch::watcher(instances, config)
                    .default_backoff()
                    .map_ok(|event| Report::Instance(Box::new(event)))
                    .map(of(namespace.clone()))
                    .boxed(),
            );
        }
    }
    reports
}

/// A watch that broke starts again by itself, unless it is not allowed.
fn interrupted(
    session: &mut Session,
    open: &mut BTreeMap<&Target, Progress>,
    error: &watcher::Error,
) -> Result<(), Failure> {
    let failure = explain::watch("watch", error);
    let ends = matches!(
        &failure,
        Failure::Api(api) if matches!(api.kind, ApiFailureKind::NotAllowed | ApiFailureKind::KindMissing)
    );
    if ends {
        session.screen.clear();
        return Err(failure);
    }
    for progress in open.values_mut() {
        progress.cause = Some(failure.to_string());
    }
    Ok(())
}

fn note(
    open: &mut BTreeMap<&Target, Progress>,
    listed: &mut BTreeSet<(String, String)>,
    namespace: &str,
    report: Report,
) {
    let mut set = |name: &str, change: &dyn Fn(&mut Progress)| {
        for (target, progress) in open.iter_mut() {
            if target.namespace == namespace && target.name == name {
                change(progress);
            }
        }
    };
    match report {
        Report::Object(event) => match *event {
            Event::Init => listed.retain(|(of, _)| of != namespace),
            Event::InitApply(object) => {
                listed.insert((namespace.to_owned(), object.name_any()));
                set(&object.name_any(), &|progress| progress.saw(Some(&object)));
            }
            Event::Apply(object) => set(&object.name_any(), &|progress| progress.saw(Some(&object))),
            Event::Delete(object) => set(&object.name_any(), &|progress| progress.saw(None)),
            Event::InitDone => {
                for (target, progress) in open.iter_mut() {
                    let is_there = listed.contains(&(namespace.to_owned(), target.name.clone()));
                    if target.namespace == namespace && !is_there {
                        progress.saw(None);
                    }
                }
            }
        },
        Report::Pod(event) => {
            if let Some((name, pod)) = present(*event) {
                set(&name, &|progress| progress.seen.pod.clone_from(&pod));
            }
        }
        Report::Instance(event) => {
            if let Some((name, instance)) = present(*event) {
                set(&name, &|progress| progress.seen.instance.clone_from(&instance));
            }
        }
    }
}

/// The object of an event by its name, `None` if it is gone.
fn present<K: kube::Resource>(event: Event<K>) -> Option<(String, Option<K>)> {
    match event {
        Event::Apply(object) | Event::InitApply(object) => Some((object.name_any(), Some(object))),
        Event::Delete(object) => Some((object.name_any(), None)),
        Event::Init | Event::InitDone => None,
    }
}

// === Verdicts ===

fn judge(open: &mut BTreeMap<&Target, Progress>, goal: &Goal, start: Instant) -> Vec<(Target, Outcome)> {
    let mut ended = Vec::new();
    open.retain(|target, progress| {
        if !progress.known {
            return true;
        }
        let outcome = match verdict(goal, target, &progress.seen) {
            Verdict::Met => Outcome::Met(start.elapsed()),
            Verdict::Failed(cause) => Outcome::Failed(cause),
            Verdict::Pending { step, cause } => {
                progress.at(step, cause);
                return true;
            }
        };
        ended.push(((*target).clone(), outcome));
        false
    });
    ended
}

// === The screen ===

fn show(session: &mut Session, open: &BTreeMap<&Target, Progress>, all: usize) {
    if let Some((target, progress)) = open.iter().find(|(_, progress)| progress.known) {
        session.screen.step(&line(target, progress, open.len(), all));
    }
}

fn line(target: &Target, progress: &Progress, open: usize, all: usize) -> String {
    let one = format!("{}: {}", target.shown, progress.text);
    if all == 1 {
        one
    } else {
        format!("{} of {all} done, {one}", all - open)
    }
}

/// Prints the causes of targets without progress.
fn causes(session: &mut Session, open: &mut BTreeMap<&Target, Progress>, all: usize) {
    let count = open.len();
    let late = open.iter_mut().find(|(_, progress)| {
        progress.known && !progress.cause_printed && progress.since.elapsed() >= PATIENCE
    });
    if let Some((target, progress)) = late
        && let Some(cause) = progress.cause.clone()
    {
        progress.cause_printed = true;
        let line = line(target, progress, count, all);
        session.screen.cause(&line, &cause);
    }
}

// === impl Target ===

impl Target {
    /// The target for an object; `namespace` is the session's.
    pub fn of(object: &StoppableContainer, namespace: &str) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_else(|| namespace.to_owned()),
            name: object.name_any(),
            shown: crate::select::display_name(object, namespace),
            uid: object.uid(),
            old_pod: None,
        }
    }

    /// The target of this name in the session's namespace, whichever object it is.
    pub fn named(name: &str, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            shown: name.to_owned(),
            uid: None,
            old_pod: None,
        }
    }
}

// === impl Progress ===

impl Progress {
    fn new(now: Instant) -> Self {
        Self {
            seen: Seen::default(),
            known: false,
            text: "asking the API server".to_owned(),
            cause: None,
            since: now,
            cause_printed: false,
        }
    }

    fn saw(&mut self, object: Option<&StoppableContainer>) {
        self.seen.object = object.cloned();
        self.known = true;
    }

    fn at(&mut self, step: String, cause: Option<String>) {
        if self.text != step {
            self.text = step;
            self.since = Instant::now();
            self.cause_printed = false;
        }
        if self.cause != cause {
            self.cause = cause;
            self.cause_printed = false;
        }
    }

    fn last(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.text),
            None => self.text.clone(),
        }
    }
}
