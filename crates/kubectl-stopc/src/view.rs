//! What a StoppableContainer says about itself. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{CONSUMER_READY, FILESYSTEM_READY, READY, RESTART_REQUIRED, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};

/// Whether the status describes the present spec.
pub fn is_current(object: &StoppableContainer) -> bool {
    let observed = object
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    observed.is_some() && observed == object.metadata.generation
}

/// The phase, if the object has one.
pub fn phase(object: &StoppableContainer) -> Option<Phase> {
    object.status.as_ref()?.phase
}

/// The phase for people: `Deleting` and `Unknown` too.
pub fn phase_text(object: &StoppableContainer) -> &'static str {
    if is_deleting(object) {
        return "Deleting";
    }
    phase(object).map_or("Unknown", Phase::as_str)
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &StoppableContainer) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// A condition of the object.
pub fn condition<'a>(object: &'a StoppableContainer, kind: &str) -> Option<&'a Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is true.
pub fn is_true(object: &StoppableContainer, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.status == "True")
}

/// Whether the state is what the spec asks for.
pub fn is_as_requested(object: &StoppableContainer) -> bool {
    let wanted = if object.spec.running {
        Phase::Running
    } else {
        Phase::Stopped
    };
    !is_deleting(object) && is_current(object) && phase(object) == Some(wanted) && is_true(object, READY)
}

/// Whether nothing of the container runs. A container can be stopped and `Failed`, if it cannot be
/// started again.
pub fn is_stopped(object: &StoppableContainer) -> bool {
    let consumer_is_gone = || {
        condition(object, CONSUMER_READY).is_some_and(|c| c.status == "False" && c.reason == reason::STOPPED)
            && phase(object) == Some(Phase::Failed)
    };
    !object.spec.running
        && is_current(object)
        && (phase(object) == Some(Phase::Stopped) || consumer_is_gone())
}

/// The condition that says why the state is not as requested, or what needs attention although it
/// is.
pub fn cause(object: &StoppableContainer) -> Option<&Condition> {
    let part = |kind| condition(object, kind);
    // Ready repeats the condition that blocks.
    if let Some(ready) = part(READY).filter(|ready| ready.status != "True") {
        return Some(ready);
    }
    let attention =
        part(FILESYSTEM_READY).filter(|c| c.reason == reason::WRITE_FAILED || c.reason == reason::DISK_LOW);
    attention.or_else(|| part(RESTART_REQUIRED).filter(|c| c.status == "True"))
}

/// The reason of [`cause`], empty if there is none.
pub fn reason_text(object: &StoppableContainer) -> &str {
    cause(object).map_or("", |condition| &condition.reason)
}

/// A condition as one line: `Reason: message`.
pub fn line(condition: &Condition) -> String {
    if condition.message.is_empty() {
        condition.reason.clone()
    } else {
        format!("{}: {}", condition.reason, condition.message)
    }
}

/// Bytes that the kept filesystem takes, if they were measured.
pub fn used(object: &StoppableContainer) -> Option<i64> {
    Some(object.status.as_ref()?.filesystem?.usage?.bytes)
}

/// What the user can do about a reason: the text behind "next:".
pub fn advice(object: &StoppableContainer, reason: &str) -> Option<String> {
    let name = object.name_any();
    Some(match reason {
        reason::FILESYSTEM_LOST | reason::FILESYSTEM_UNREACHABLE => {
            format!("restore the data, or give it up and start empty: kubectl stopc reset {name}")
        }
        reason::IMAGE_CHANGED => format!(
            "restore the old image in the template; or use the files with the new image: kubectl stopc accept \
             {name}; or start empty: kubectl stopc reset {name}"
        ),
        reason::EVICTED => format!(
            "raise the limit: kubectl stopc resize {name} --size SIZE; or delete the files: kubectl stopc reset {name}"
        ),
        reason::NODE_GONE => format!(
            "name the node that has its disk now (docs/api.md, moved-to), or give the files up: kubectl stopc reset \
             {name}"
        ),
        reason::TEMPLATE_EDITED => format!("restart it: kubectl stopc restart {name}"),
        reason::NODE_CORDONED => format!(
            "uncordon its node: kubectl uncordon {}",
            object
                .status
                .as_ref()
                .and_then(|status| status.node_name.as_deref())
                .unwrap_or("NODE")
        ),
        reason::NODE_AGENT_MISSING | reason::NODE_AGENT_OUTDATED | reason::NOT_REWRITTEN => {
            "check the installation: kubectl stopc doctor".to_owned()
        }
        reason::TEMPLATE_INVALID | reason::TEMPLATE_TOO_LARGE | reason::CREATION_REFUSED => {
            format!("edit the template: kubectl edit stopc {name}")
        }
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" => {
            "check the image's name and the pull secret of the template".to_owned()
        }
        reason::STOPPED => format!("start it: kubectl stopc start {name}"),
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod fixtures {
    use serde_json::{Value, json};
    use stoppablecontainer_api::StoppableContainer;

    /// An object in this state; `conditions` are (type, status, reason, message).
    pub(crate) fn object(
        running: bool,
        phase: &str,
        conditions: &[(&str, &str, &str, &str)],
    ) -> StoppableContainer {
        serde_json::from_value(value(running, phase, conditions)).unwrap()
    }

    /// The same as JSON.
    pub(crate) fn value(running: bool, phase: &str, conditions: &[(&str, &str, &str, &str)]) -> Value {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason, message)| {
                json!({
                    "type": kind, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:10Z", "observedGeneration": 2,
                })
            })
            .collect();
        json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": {
                "name": "web", "namespace": "team", "uid": "u1", "generation": 2, "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "running": running,
                "template": { "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] } },
            },
            "status": {
                "phase": phase, "observedGeneration": 2, "nodeName": "node1", "instanceName": "web",
                "instanceUid": "11111111-2222-3333-4444-555555555555",
                "filesystem": { "usage": { "bytes": 1536, "inodes": 12 } },
                "conditions": conditions,
            },
        })
    }

    /// A running one.
    pub(crate) fn running() -> StoppableContainer {
        object(
            true,
            "Running",
            &[("Ready", "True", "AsRequested", "pod web is ready")],
        )
    }

    /// A stopped one.
    pub(crate) fn stopped() -> StoppableContainer {
        object(
            false,
            "Stopped",
            &[
                (
                    "Ready",
                    "True",
                    "Stopped",
                    "stopped as requested; the filesystem is kept",
                ),
                ("ConsumerReady", "False", "Stopped", "running is false"),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{object, running, stopped};
    use super::*;

    #[test]
    fn a_status_of_an_older_spec_is_not_current() {
        let mut object = running();
        assert!(is_as_requested(&object));
        object.metadata.generation = Some(3);
        assert!(!is_current(&object));
        assert!(!is_as_requested(&object));
    }

    #[test]
    fn stopped_is_also_what_failed_without_a_pod() {
        assert!(is_stopped(&stopped()));
        assert!(!is_stopped(&running()));
        let lost = |reason| {
            object(
                false,
                "Failed",
                &[
                    ("Ready", "False", "FilesystemLost", "gone"),
                    ("ConsumerReady", "False", reason, ""),
                ],
            )
        };
        assert!(is_stopped(&lost("Stopped")));
        assert!(!is_stopped(&lost("Stopping")), "its pod is still there");
    }

    #[test]
    fn the_cause_is_what_blocks_or_needs_attention() {
        assert_eq!(cause(&running()), None);
        assert_eq!(cause(&stopped()), None);
        let pulling = object(
            true,
            "Pending",
            &[
                ("Ready", "False", "ImagePullBackOff", "no such image"),
                ("ProviderReady", "False", "ImagePullBackOff", "no such image"),
            ],
        );
        assert_eq!(reason_text(&pulling), "ImagePullBackOff");
        let low = object(
            true,
            "Running",
            &[
                ("Ready", "True", "AsRequested", ""),
                ("FilesystemReady", "True", "DiskLow", "2% free"),
            ],
        );
        assert_eq!(reason_text(&low), "DiskLow");
        let edited = object(
            true,
            "Running",
            &[
                ("Ready", "True", "AsRequested", ""),
                ("RestartRequired", "True", "TemplateEdited", "env"),
            ],
        );
        assert_eq!(reason_text(&edited), "TemplateEdited");
        assert_eq!(
            advice(&edited, reason_text(&edited)).as_deref(),
            Some("restart it: kubectl stopc restart web")
        );
    }
}
