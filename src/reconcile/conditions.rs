/*!
Conditions: whether something holds and why, as the API server accepts it.

The lowest room. The text of a message does not belong here, only its form.
*/

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use stoppablecontainer_api::truncate_utf8;

/// Why something is not as requested: a CamelCase reason and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// CamelCase, as conditions want it.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
}

/// Whether something holds, if that is known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionState {
    /// `None` if it is not known.
    pub status: Option<bool>,
    /// The reason and the message of the condition.
    pub cause: Cause,
}

// === impl Cause ===

impl Cause {
    /// A cause from its two parts. An empty reason, which conditions refuse, becomes `Unknown`.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        let reason: String = reason.into();
        let reason = if reason.is_empty() {
            "Unknown".to_owned()
        } else {
            reason
        };
        Self {
            reason,
            message: message.into(),
        }
    }
}

// === impl ConditionState ===

impl ConditionState {
    /// The condition is True.
    pub(super) fn true_with(reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: Some(true),
            cause: Cause::new(reason, message),
        }
    }

    /// The condition is Unknown.
    pub(super) fn unknown_with(reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: None,
            cause: Cause::new(reason, message),
        }
    }

    /// The condition is False.
    pub(super) fn false_with(reason: &str, message: impl Into<String>) -> Self {
        Self::false_for(Cause::new(reason, message))
    }

    /// The condition is False for a known cause.
    pub(super) fn false_for(cause: Cause) -> Self {
        Self {
            status: Some(false),
            cause,
        }
    }

    /// Whether it is known to hold.
    pub(super) fn is_true(&self) -> bool {
        self.status == Some(true)
    }
}

// === Conditions ===

/// Conditions from verdicts, as a whole: nothing of the old list stays but the time at which a
/// status that is still the same began.
pub(super) fn conditions<const N: usize>(
    old: &[Condition],
    states: [(&str, ConditionState); N],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    states
        .into_iter()
        .map(|(kind, state)| {
            let status = match state.status {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = old
                .iter()
                .find(|c| c.type_ == kind && c.status == status)
                .map(|c| c.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: condition_reason(&state.cause.reason),
                message: condition_message(state.cause.message),
                observed_generation: generation,
                last_transition_time: since.unwrap_or(Time(now)),
            }
        })
        .collect()
}

/// The API server takes `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$` of at most 1,024 bytes; others'
/// reasons may be anything.
fn condition_reason(reason: &str) -> String {
    let kept: String = reason
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(1024)
        .collect();
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) {
        kept
    } else {
        format!("Reason{kept}")
    }
}

/// The API server takes at most 32,768 characters.
fn condition_message(message: String) -> String {
    if message.len() <= 32_768 {
        message
    } else {
        truncate_utf8(&message, 8_000).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("OutOfnvidia.com/gpu", "OutOfnvidiacomgpu")]
    #[case("", "Reason")]
    #[case("1st", "Reason1st")]
    fn reasons_are_what_the_api_server_takes(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(condition_reason(given), expected);
    }
}
