//! Events, for `kubectl describe`: the form of an event, and one for every part that is newly
//! blocked.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use stoppablecontainer_api::conditions::{CONSUMER_SCHEDULED, READY, STOPPED_CONDITION, reason};
use stoppablecontainer_api::truncate_utf8;

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::Context;

/// Longest note of an event, in bytes: the API server takes 1 kB.
const MAX_NOTE: usize = 1024;

/// Reasons for not being ready that are steps of a normal start or stop.
const STEPS: [&str; 8] = [
    reason::AS_REQUESTED,
    reason::STOPPED,
    reason::STOPPING,
    reason::STARTING,
    reason::PREPARING,
    reason::DELETING,
    reason::RELEASED,
    reason::RESETTING,
];

/// Reasons of conditions that are True and still need attention.
const WARNINGS: [&str; 2] = [reason::WRITE_FAILED, reason::DISK_LOW];

/// Conditions that repeat what others say.
const REPEATING: [&str; 2] = [CONSUMER_SCHEDULED, STOPPED_CONDITION];

/// Pairs of reasons between which the kubelet alternates while nothing new happens.
const ALTERNATING: [[&str; 2]; 1] = [["ErrImagePull", "ImagePullBackOff"]];

/// The kubelet's reason for a container that waits to be started again. How the container ended was
/// the news.
const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Publishes events about an object. An event that cannot be published is only logged: the
/// conditions say the same.
pub(crate) async fn publish(context: &Context, object: &ObjectReference, events: Vec<Event>) {
    for event in events {
        if let Err(error) = context.recorder.publish(&event, object).await {
            tracing::debug!(%error, name = object.name, "event not published");
        }
    }
}

/// A step of the normal way, as an event.
pub(crate) fn normal(action: &str, why: &Cause) -> Event {
    event(EventType::Normal, action, why)
}

/// Something that needs attention, as an event.
pub(crate) fn warning(action: &str, why: &Cause) -> Event {
    event(EventType::Warning, action, why)
}

fn event(type_: EventType, action: &str, why: &Cause) -> Event {
    Event {
        type_,
        reason: truncate_utf8(&why.reason, 128).to_owned(),
        note: Some(truncate_utf8(&why.message, MAX_NOTE).to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// A warning for every part that is newly blocked.
pub(crate) fn blocked(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let is_known = |now: &Condition| {
        let mut old = before.iter().filter(|old| old.type_ == now.type_);
        old.any(|old| old.status == now.status && is_same_news(&old.reason, &now.reason))
    };
    // `Ready` repeats the words of the part that is in the way, unless no part has them.
    let in_part = |reason: &str| {
        let mut parts = after.iter().filter(|part| part.type_ != READY);
        parts.any(|part| part.reason == reason)
    };
    let is_warning = |now: &Condition| {
        let reason = now.reason.as_str();
        if now.status == "True" {
            return now.type_ != READY && WARNINGS.contains(&reason);
        }
        !STEPS.contains(&reason) && (now.type_ != READY || !in_part(reason))
    };
    let news = after
        .iter()
        .filter(|now| !REPEATING.contains(&now.type_.as_str()) && is_warning(now) && !is_known(now));
    news.map(|now| warning(&now.type_, &Cause::new(&now.reason, &now.message)))
        .collect()
}

/// Whether `now` says nothing that `before` did not say.
fn is_same_news(before: &str, now: &str) -> bool {
    let alternates = |pair: &[&str; 2]| pair.contains(&before) && pair.contains(&now);
    let ended_before = now == CRASH_LOOP && !STEPS.contains(&before);
    before == now || ended_before || ALTERNATING.iter().any(alternates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "m".to_owned(),
            observed_generation: None,
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        }
    }

    fn reasons(before: &[Condition], after: &[Condition]) -> Vec<String> {
        let told = blocked(before, after);
        assert!(told.iter().all(|event| event.type_ == EventType::Warning));
        told.into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn i12_every_blocked_state_is_reported_once() {
        let waits = [
            condition("Ready", "False", "Unschedulable"),
            condition("ConsumerReady", "False", "Unschedulable"),
            condition("ConsumerScheduled", "False", "Unschedulable"),
            condition("Stopped", "Unknown", "NodeUnreachable"),
        ];
        assert_eq!(reasons(&[], &waits), ["Unschedulable"]);
        assert!(reasons(&waits, &waits).is_empty());
        assert_eq!(
            reasons(&[], &waits[..1]),
            ["Unschedulable"],
            "Ready speaks where nothing else does"
        );
        let stopped = [
            condition("Ready", "False", "TemplateInvalid"),
            condition("ConsumerReady", "False", "Stopped"),
        ];
        assert_eq!(reasons(&[], &stopped), ["TemplateInvalid"]);
    }

    #[test]
    fn i12_what_the_kubelet_alternates_between_is_reported_once() {
        let provider = |reason| [condition("ProviderReady", "False", reason)];
        let [starting, error, pause] = ["Starting", "ErrImagePull", "ImagePullBackOff"].map(provider);
        assert_eq!(reasons(&starting, &error), ["ErrImagePull"]);
        assert!(reasons(&error, &pause).is_empty());
        assert!(reasons(&pause, &error).is_empty());
        let consumer = |reason| [condition("ConsumerReady", "False", reason)];
        let [ended, loops, waits] = ["Error", "CrashLoopBackOff", "Stopping"].map(consumer);
        assert!(reasons(&ended, &loops).is_empty());
        assert_eq!(reasons(&loops, &ended), ["Error"], "it ran, and ended once more");
        assert_eq!(reasons(&waits, &loops), ["CrashLoopBackOff"]);
    }

    #[test]
    fn f22_a_disk_that_is_nearly_full_is_a_warning_until_it_is_not() {
        let fine = [condition("FilesystemReady", "True", "AsRequested")];
        let low = [condition("FilesystemReady", "True", "DiskLow")];
        let failed = [condition("FilesystemReady", "True", "WriteFailed")];
        assert_eq!(reasons(&fine, &failed), ["WriteFailed"]);
        assert_eq!(reasons(&fine, &low), ["DiskLow"]);
        assert!(reasons(&low, &low).is_empty());
        assert!(reasons(&low, &fine).is_empty());
    }

    #[test]
    fn steps_of_the_normal_way_are_no_warnings() {
        let starting = [
            condition("Ready", "False", "Starting"),
            condition("ProviderReady", "False", "Starting"),
        ];
        assert!(reasons(&[], &starting).is_empty());
        let ready = [
            condition("Ready", "True", "AsRequested"),
            condition("ProviderReady", "False", "Released"),
        ];
        assert!(reasons(&starting, &ready).is_empty());
    }
}
