/*!
Recovery options for a filesystem that cannot be used, and the user's choice.

The node agent offers the options with an identifier that is new for every failure. The user answers
with an annotation that contains the identifier. An answer that a tool applies again, or that a
backup restores, therefore does not affect a later failure.
*/

use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ANNOTATION_RECOVERY;

/// A recovery option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecoveryVerb {
    /// Keep the data and use it with the current image.
    Accept,
    /// Delete the data and prepare an empty filesystem.
    Reset,
}

/// The recovery options for one failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryOffer {
    /// Identifier of the failure. It is not used again.
    pub id: String,
    /// The recovery options to choose from.
    pub verbs: Vec<RecoveryVerb>,
}

/// Value of the annotation [`ANNOTATION_RECOVERY`]: `accept-ID` or `reset-ID`. The identifier is
/// that of a failure, or the UID of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryAnswer {
    /// The chosen option.
    pub verb: RecoveryVerb,
    /// Identifier of the failure, or the UID of the instance without its dashes.
    pub id: String,
}

// === impl RecoveryVerb ===

impl RecoveryVerb {
    /// The verb as written in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reset => "reset",
        }
    }
}

// === impl RecoveryOffer ===

impl RecoveryOffer {
    /// The chosen verb, if `answer` has the identifier of this offer and one of its verbs.
    pub fn taken(&self, answer: &RecoveryAnswer) -> Option<RecoveryVerb> {
        (answer.id == self.id && self.verbs.contains(&answer.verb)).then_some(answer.verb)
    }
}

// === impl RecoveryAnswer ===

impl RecoveryAnswer {
    /// The answer with which the user gives up the data of an instance: one that exists, is gone,
    /// or whose node is. A UID is never used again, and neither is this.
    pub fn abandoning(instance_uid: &str) -> Self {
        Self {
            verb: RecoveryVerb::Reset,
            id: instance_uid
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(64)
                .collect(),
        }
    }

    /// Parses a value of the annotation. A UID may be written with or without its dashes. `None` if
    /// the value is not an answer.
    pub fn parse(value: &str) -> Option<Self> {
        let (verb, id) = value.split_once('-')?;
        let id = if is_dashed_uid(id) {
            id.replace('-', "")
        } else {
            id.to_owned()
        };
        let verb = [RecoveryVerb::Accept, RecoveryVerb::Reset]
            .into_iter()
            .find(|known| known.as_str() == verb)?;
        let is_id = (8..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric());
        is_id.then_some(Self { verb, id })
    }

    /// The answer in the annotation of an object.
    pub fn of(object: &impl ResourceExt) -> Option<Self> {
        Self::parse(object.annotations().get(ANNOTATION_RECOVERY)?)
    }
}

/// Whether a text has the form of a UID, as `status.instanceUid` shows it (RFC 9562).
fn is_dashed_uid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
}

impl std::fmt::Display for RecoveryAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.verb.as_str(), self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verb_with_an_id_is_an_answer() {
        let answer = RecoveryAnswer::parse("reset-0123abcd").unwrap();
        assert_eq!(
            (answer.verb, answer.id.as_str()),
            (RecoveryVerb::Reset, "0123abcd")
        );
        assert_eq!(answer.to_string(), "reset-0123abcd");
        for none in [
            "",
            "reset",
            "accept",
            "reset-",
            "reset-1",
            "Reset-0123abcd",
            "wipe-0123abcd",
            "reset-0123 abcd",
        ] {
            assert_eq!(RecoveryAnswer::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn i1_an_answer_may_name_an_instance_as_its_status_shows_it() {
        let uid = "0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4c";
        let plain = RecoveryAnswer::abandoning(uid);
        for written in [format!("reset-{uid}"), plain.to_string()] {
            assert_eq!(RecoveryAnswer::parse(&written), Some(plain.clone()), "{written}");
        }
        let other = "reset-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4d";
        assert_ne!(RecoveryAnswer::parse(other), Some(plain));
        for none in [
            "reset-0b6e9f3c-1d2e",
            "reset-0b6e9f3c-1d2e-4f5a-8b7c-9d0e1f2a3b4/",
        ] {
            assert_eq!(RecoveryAnswer::parse(none), None, "{none}");
        }
    }

    #[test]
    fn i1_an_answer_is_for_one_failure_and_what_was_offered() {
        let offer = RecoveryOffer {
            id: "0123abcd".to_owned(),
            verbs: vec![RecoveryVerb::Reset],
        };
        let taken = |value| offer.taken(&RecoveryAnswer::parse(value).unwrap());
        assert_eq!(taken("reset-0123abcd"), Some(RecoveryVerb::Reset));
        assert_eq!(taken("reset-0123abce"), None);
        assert_eq!(taken("accept-0123abcd"), None);
    }
}
