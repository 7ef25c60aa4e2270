//! Events: what blocks an object, and that it is ready, for `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use stoppablecontainer_api::conditions::{READY, reason};
use stoppablecontainer_api::truncate_utf8;

use crate::reconcile::context::Context;

/// Longest note of an event, in bytes: the API server takes 1 kB.
const MAX_NOTE: usize = 1024;

/// Reasons for not being ready that are steps of a normal start or stop.
const STEPS: [&str; 6] = [
    reason::AS_REQUESTED,
    reason::STOPPED,
    reason::STOPPING,
    reason::STARTING,
    reason::PREPARING,
    reason::DELETING,
];

/// Reasons of conditions that are True and still need attention.
const WARNINGS: [&str; 2] = [reason::WRITE_FAILED, reason::DISK_LOW];

/// Publishes an event for every part that is newly blocked, and one when the whole became ready. An
/// event that cannot be published is only logged: the conditions say the same.
pub(crate) async fn changes(
    context: &Context,
    object: ObjectReference,
    before: &[Condition],
    after: &[Condition],
) {
    for event in events(before, after) {
        if let Err(error) = context.recorder.publish(&event, &object).await {
            tracing::debug!(%error, name = object.name, "event not published");
        }
    }
}

fn events(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let changed = |now: &&Condition| {
        !before
            .iter()
            .any(|old| old.type_ == now.type_ && old.status == now.status && old.reason == now.reason)
    };
    // `Ready` repeats the words of the part that is in the way, unless no part has them.
    let in_part = |reason: &str| {
        after
            .iter()
            .any(|part| part.type_ != READY && part.reason == reason)
    };
    after
        .iter()
        .filter(changed)
        .filter_map(|now| {
            let blocked = now.status != "True" && !STEPS.contains(&now.reason.as_str());
            let type_ = match (now.type_ == READY, now.status == "True") {
                (true, true) => EventType::Normal,
                (false, _) if blocked || WARNINGS.contains(&now.reason.as_str()) => EventType::Warning,
                (true, false) if blocked && !in_part(&now.reason) => EventType::Warning,
                _ => return None,
            };
            let reason = if now.reason == reason::AS_REQUESTED {
                READY.to_owned()
            } else {
                now.reason.clone()
            };
            Some(Event {
                type_,
                reason: truncate_utf8(&reason, 128).to_owned(),
                note: Some(truncate_utf8(&now.message, MAX_NOTE).to_owned()),
                action: now.type_.clone(),
                secondary: None,
            })
        })
        .collect()
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

    #[test]
    fn i12_every_blocked_state_is_reported_once() {
        let blocked = [
            condition("Ready", "False", "Unschedulable"),
            condition("ConsumerReady", "False", "Unschedulable"),
        ];
        let told = events(&[], &blocked);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].type_, told[0].reason.as_str()),
            (EventType::Warning, "Unschedulable")
        );
        assert!(events(&blocked, &blocked).is_empty());
        assert_eq!(
            events(&[], &blocked[..1]).len(),
            1,
            "Ready speaks where nothing else does"
        );
        let stopped = [
            condition("Ready", "False", "TemplateInvalid"),
            condition("ConsumerReady", "False", "Stopped"),
        ];
        assert_eq!(events(&[], &stopped)[0].reason, "TemplateInvalid");
    }

    #[test]
    fn f22_a_disk_that_is_nearly_full_is_a_warning_until_it_is_not() {
        let fine = [condition("FilesystemReady", "True", "AsRequested")];
        let low = [condition("FilesystemReady", "True", "DiskLow")];
        let failed = [condition("FilesystemReady", "True", "WriteFailed")];
        assert_eq!(events(&fine, &failed)[0].type_, EventType::Warning);
        let told = events(&fine, &low);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].type_, told[0].reason.as_str()),
            (EventType::Warning, "DiskLow")
        );
        assert!(events(&low, &low).is_empty());
        assert!(events(&low, &fine).is_empty());
    }

    #[test]
    fn steps_of_the_normal_way_are_no_events() {
        let starting = [
            condition("Ready", "False", "Starting"),
            condition("ProviderReady", "False", "Starting"),
        ];
        assert!(events(&[], &starting).is_empty());
        let ready = [
            condition("Ready", "True", "AsRequested"),
            condition("ProviderReady", "True", "AsRequested"),
        ];
        let told = events(&starting, &ready);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].type_, told[0].reason.as_str()),
            (EventType::Normal, "Ready")
        );
    }
}
