//! What belongs to a container: its pods, its instance, their events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use stoppablecontainer_api::conditions::FILESYSTEM_READY;
use stoppablecontainer_api::names::{placeholder_pod_name, provider_pod_name};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::session::Session;
use crate::view;

/// How many events are shown.
const EVENTS: usize = 10;

/// What was read besides the object. What may not be read is left out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The consumer.
    pub pod: Option<Pod>,
    /// The provider.
    pub provider: Option<Pod>,
    /// The instance.
    pub instance: Option<StoppableContainerInstance>,
    /// The newest events, the newest last.
    pub events: Vec<Event>,
    /// What could not be read.
    pub missing: Vec<String>,
}

/// A step of a start with the time when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What happened.
    pub(super) name: &'static str,
    /// When.
    pub(super) at: Timestamp,
}

// === impl Facts ===

impl Facts {
    /// Reads them. Failures are noted, because the rest is worth reading.
    pub async fn read(session: &Session, object: &StoppableContainer) -> Self {
        let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
        let name = object.name_any();
        let pods = session.api::<Pod>(&namespace);
        let instances = session.api::<StoppableContainerInstance>(&namespace);
        let mut facts = Self::default();
        let mut noted = |what: &str, error: &kube::Error| {
            facts
                .missing
                .push(crate::explain::request(what, error).to_string());
        };
        let pod = pods.get_opt(&name).await;
        let provider = pods.get_opt(&provider_pod_name(&name)).await;
        let instance = instances.get_opt(&name).await;
        let pod = pod.unwrap_or_else(|error| {
            noted("read the pod", &error);
            None
        });
        let provider = provider.unwrap_or_default();
        let instance = instance.unwrap_or_else(|error| {
            noted("read the instance", &error);
            None
        });
        let mut events = Vec::new();
        let names = [
            name.clone(),
            provider_pod_name(&name),
            placeholder_pod_name(&name),
        ];
        for about in names {
            let params = ListParams::default().fields(&format!("regarding.name={about}"));
            match session.api::<Event>(&namespace).list(&params).await {
                Ok(list) => events.extend(list.items),
                Err(error) => {
                    noted("read the events", &error);
                    break;
                }
            }
        }
        facts.pod = pod;
        facts.provider = provider;
        facts.instance = instance;
        facts.events = newest(events);
        facts
    }
}

fn newest(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(time);
    let skipped = events.len().saturating_sub(EVENTS);
    events.split_off(skipped)
}

/// The time of the last occurrence of an event.
pub(super) fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    series
        .or_else(|| event.deprecated_last_timestamp.as_ref().map(|time| time.0))
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// The steps of the last start in the order of time. Those of a provider that was there before are
/// left out: it did not have to be waited for.
pub(super) fn steps(object: &StoppableContainer, pod: Option<&Pod>, provider: Option<&Pod>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |name, at: Option<Timestamp>| steps.extend(at.map(|at| Step { name, at }));
    let begin = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let created = pod.and_then(created);
    let is_part = |at: &Timestamp| {
        // The first start has a provider of about the same age as the consumer.
        created.is_none_or(|pod| at.duration_until(pod).as_secs() < 600)
    };
    let of_provider = provider.and_then(self::created).filter(is_part);
    if let (Some(provider), Some(at)) = (provider, of_provider) {
        if begin.is_some_and(|begin| begin.duration_until(at).as_secs() < 600) {
            add("object created", begin);
        }
        add("provider created", Some(at));
        add("image pulled, provider started", started(provider, None));
        let filesystem = view::condition(object, FILESYSTEM_READY)
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.last_transition_time.0);
        let before_pod = filesystem.filter(|at| created.is_none_or(|pod| *at <= pod));
        add("filesystem ready", before_pod);
    }
    if let Some(pod) = pod {
        add("pod created", created);
        add("pod assigned to its node", condition(pod, "PodScheduled"));
        add(
            "command started",
            started(pod, Some(&object.spec.template.main().name)),
        );
        add("ready", condition(pod, "Ready"));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn condition(pod: &Pod, kind: &str) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|c| c.type_ == kind && c.status == "True")?;
    found.last_transition_time.as_ref().map(|time| time.0)
}

/// When a container of the pod started; the first one without a name.
fn started(pod: &Pod, container: Option<&str>) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let found = statuses
        .iter()
        .find(|status| container.is_none_or(|name| status.name == name))?;
    let running = found.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(|time| time.0)
}
