//! What a user can do about a cause that others reported. The cause stays in their words.

use kube::ResourceExt;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::{Cause, ConditionState};

/// The part with the next step at the end of its message, if there is one to name.
pub(super) fn with_next_step(instance: &StoppableContainerInstance, part: ConditionState) -> ConditionState {
    let step = next_step(instance, &part.cause).filter(|_| part.status == Some(false));
    let Some(step) = step else {
        return part;
    };
    let message = format!("{}. {step}", part.cause.message.trim_end_matches('.'));
    ConditionState {
        cause: Cause {
            message,
            ..part.cause
        },
        ..part
    }
}

fn next_step(instance: &StoppableContainerInstance, cause: &Cause) -> Option<String> {
    let Cause { reason, message } = cause;
    let says = |words: &str| message.contains(words);
    let step = match reason.as_str() {
        // The words of `pinned` are more exact.
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" if !says("The files were made with") => {
            "Correct the image in the template, or make it available in its registry and see imagePullSecrets; \
             the kubelet tries again by itself"
        }
        "ErrImageNeverPull" => "Load the image into the node, or set another imagePullPolicy in the template",
        "InvalidImageName" => "Correct the image in the template",
        "CreateContainerConfigError" if says("not found") => {
            "Create it in this namespace, or correct the template; the kubelet tries again by itself"
        }
        "CreateContainerConfigError" => "Correct the template",
        "CrashLoopBackOff" => {
            return Some(format!(
                "Its output: kubectl logs -n {} {} -c {} --previous",
                instance.namespace().unwrap_or_default(),
                instance.name_any(),
                instance.spec.main_container()
            ));
        }
        reason::CREATION_REFUSED if says("exceeded quota") => {
            "Free some of the quota, have it raised, or request less in the template; the controller tries again \
             by itself"
        }
        reason::CREATION_REFUSED if says("violates PodSecurity") => {
            "Correct these fields in the template, or have the level of the namespace changed; the controller tries \
             again by itself"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::reconcile::pods::fixtures;

    #[rstest]
    #[case("ErrImagePull", "not found", "not found. Correct the image")]
    #[case("ImagePullBackOff", "Back-off.", "Back-off. Correct the image")]
    #[case("ErrImageNeverPull", "not present", ". Load the image")]
    #[case("InvalidImageName", "bad", ". Correct the image in the template")]
    #[case(
        "CreateContainerConfigError",
        "secret \"s\" not found",
        "not found. Create it in this namespace"
    )]
    #[case("CreateContainerConfigError", "runs as root", "root. Correct the template")]
    #[case(
        "CrashLoopBackOff",
        "ended",
        "ended. Its output: kubectl logs -n team web -c main --previous"
    )]
    #[case("CreationRefused", "exceeded quota: q", "q. Free some of the quota")]
    #[case(
        "CreationRefused",
        "violates PodSecurity \"restricted\"",
        ". Correct these fields"
    )]
    fn i12_a_cause_has_a_next_step(#[case] reason: &str, #[case] message: &str, #[case] expected: &str) {
        let part = ConditionState::false_with(reason, message);
        let told = with_next_step(&fixtures::instance(json!({})), part).cause;
        assert_eq!(told.reason, reason);
        assert!(told.message.contains(expected), "{}", told.message);
    }

    #[test]
    fn words_that_need_none_stay_as_they_are() {
        let pinned = "gone. The files were made with nginx at x";
        for (reason, message) in [
            ("Unschedulable", "0/3 nodes"),
            ("ImagePullBackOff", pinned),
            ("CreationRefused", "a webhook says no"),
        ] {
            let part = ConditionState::false_with(reason, message);
            assert_eq!(with_next_step(&fixtures::instance(json!({})), part.clone()), part);
        }
    }
}
