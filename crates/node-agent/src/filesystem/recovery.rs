/*!
Recovery from a failure: offered in the status under an identifier, answered by an annotation with
that identifier, carried out once.

An answer to one failure must never delete data because of another failure. So the identifier is new
for every failure. An answer counts only while the agent still finds the failure of that identifier.
The agent writes the decision to the record next to the data before anything else, so that neither a
crash of the agent nor a failed write of the status repeats it.
*/

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use stoppablecontainer_api::{
    FilesystemState, FilesystemStatus, RecoveryAnswer, RecoveryOffer, RecoveryVerb,
    StoppableContainerInstance,
};

use super::data::{self, Data};
use super::failure::Failure;
use super::record::DataRecord;
use crate::instance::DataGuard;
use crate::node::Host;

/// A decision of the user, and the identifier of the failure that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) verb: RecoveryVerb,
    pub(crate) id: String,
}

/// What goes into the status of a failure: the offer that is there, if the failure is the same,
/// else a new one.
pub(crate) fn offer(before: Option<&FilesystemStatus>, failure: &Failure) -> Option<RecoveryOffer> {
    if failure.verbs.is_empty() {
        return None;
    }
    let same = before.filter(|before| shows(before, failure));
    same.and_then(|before| before.recovery.clone())
        .filter(|offer| offer.verbs == failure.verbs)
        .or_else(|| Some(new_offer(failure.verbs.clone())))
}

/// An offer with a new identifier.
pub(crate) fn new_offer(verbs: Vec<RecoveryVerb>) -> RecoveryOffer {
    // The standard library's seed is the kernel's randomness; each one is different.
    let random = RandomState::new().hash_one(0_u8);
    RecoveryOffer {
        id: format!("{random:016x}"),
        verbs,
    }
}

/// The user's decision about the failure that was just found.
pub(crate) fn decision(
    object: &StoppableContainerInstance,
    before: Option<&FilesystemStatus>,
    found: Result<(), &Failure>,
    data: &Data,
) -> Option<Decision> {
    let before = before?;
    let about = match found {
        Err(failure) => shows(before, failure),
        Ok(()) => is_too_large(object, before),
    };
    answered(object, before).filter(|_| about && !is_carried_out(Some(before), data))
}

/// Whether the offer in the status was decided on and carried out. The record next to the data is
/// written first.
pub(crate) fn is_carried_out(before: Option<&FilesystemStatus>, data: &Data) -> bool {
    let offered = before.and_then(|before| before.recovery.as_ref());
    let Data::Recorded(record) = data else {
        return false;
    };
    !record.resetting && offered.is_some_and(|offer| record.recovered.as_ref() == Some(&offer.id))
}

/// Whether the user decided to empty a filesystem that works.
pub(crate) fn reset_wanted(object: &StoppableContainerInstance, filesystem: &FilesystemStatus) -> bool {
    is_too_large(object, filesystem) && answered(object, filesystem).is_some()
}

/// Begins a reset, or continues one: records it and deletes the data. Refused while the data is in
/// use; a later try may succeed.
pub(crate) async fn clear(
    host: &Arc<Host>,
    object: &StoppableContainerInstance,
    record: DataRecord,
    guard: &mut DataGuard,
) -> Result<()> {
    let host = Arc::clone(host);
    let prefix = PathBuf::from(&object.spec.host_path_prefix);
    let key = object.metadata.uid.clone().context("an object without UID")?;
    let work = move || {
        let Some(kept) = data::open(&host.root, &prefix, &key)? else {
            return Ok(());
        };
        let _locked = data::lock_unused(&host, &kept)?;
        kept.set_record(&serde_json::to_vec(&record).context("write the record")?)?;
        anyhow::Ok(kept.clear()?)
    };
    guard.without_limit(work).await.context("delete the data")?
}

/// The failure is the one that the status shows.
fn shows(status: &FilesystemStatus, failure: &Failure) -> bool {
    status.state == FilesystemState::Failed
        && status.reason.as_deref() == Some(failure.reason)
        && status.message.as_ref() == Some(&failure.message)
}

fn is_too_large(object: &StoppableContainerInstance, status: &FilesystemStatus) -> bool {
    status.state == FilesystemState::Ready && object.storage_excess(Some(status)).is_some()
}

fn answered(object: &StoppableContainerInstance, status: &FilesystemStatus) -> Option<Decision> {
    let answer = RecoveryAnswer::of(object)?;
    let verb = status.recovery.as_ref()?.taken(&answer)?;
    Some(Decision { verb, id: answer.id })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::record::FORMAT;
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure {
            reason: "ImageChanged",
            message: message.to_owned(),
            verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
        }
    }

    /// The status that shows `failure`.
    fn shown(failure: &Failure, before: Option<&FilesystemStatus>) -> FilesystemStatus {
        let mut status: FilesystemStatus =
            serde_json::from_value(json!({ "state": "Failed", "nodeName": "n1" })).unwrap();
        status.reason = Some(failure.reason.to_owned());
        status.message = Some(failure.message.clone());
        status.recovery = offer(before, failure);
        status
    }

    fn object(answer: &str, limits: &Value) -> StoppableContainerInstance {
        serde_json::from_value(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web", "annotations": { "stoppablecontainer.xtlsoft.top/recovery": answer } },
            "spec": { "stoppableContainerName": "web", "template": { "spec": {
                "containers": [{ "name": "main", "resources": { "limits": limits } }],
            }}},
        }))
        .unwrap()
    }

    fn answer(verb: &str, status: &FilesystemStatus) -> StoppableContainerInstance {
        let id = &status.recovery.as_ref().unwrap().id;
        object(&format!("{verb}-{id}"), &json!({}))
    }

    #[test]
    fn i1_each_failure_has_an_identifier_of_its_own_and_keeps_it() {
        let (first, other) = (failure("image 2"), failure("image 3"));
        let before = shown(&first, None);
        assert_eq!(offer(Some(&before), &first), before.recovery, "found again");
        assert_ne!(offer(Some(&before), &other), before.recovery);
        // It was repaired in between.
        assert_ne!(offer(None, &first), before.recovery);
        assert_eq!(offer(None, &Failure::new("UserUnknown", String::new())), None);
    }

    #[test]
    fn i1_an_answer_counts_for_the_failure_that_it_names_alone() {
        let (found, other) = (failure("image 2"), failure("image 3"));
        let before = shown(&found, None);
        let decide = |object: &StoppableContainerInstance, before: &FilesystemStatus, found, data: &Data| {
            decision(object, Some(before), found, data).map(|decision| decision.verb)
        };
        let reset = answer("reset", &before);
        assert_eq!(
            decide(&reset, &before, Err(&found), &Data::WithoutRecord),
            Some(RecoveryVerb::Reset)
        );
        assert_eq!(
            decide(
                &answer("accept", &before),
                &before,
                Err(&found),
                &Data::WithoutRecord
            ),
            Some(RecoveryVerb::Accept)
        );
        // The user repaired it and left the annotation.
        assert_eq!(decide(&reset, &before, Ok(()), &Data::WithoutRecord), None);
        // Something else is the matter by now, or again.
        assert_eq!(decide(&reset, &before, Err(&other), &Data::WithoutRecord), None);
        assert_eq!(
            decide(&reset, &shown(&found, None), Err(&found), &Data::WithoutRecord),
            None
        );
        assert_eq!(decision(&reset, None, Err(&found), &Data::WithoutRecord), None);
    }

    /// The agent carried it out and could not write the status, so the offer still stands there.
    #[test]
    fn i1_i9_an_answer_that_was_carried_out_is_never_taken_again() {
        let found = failure("image 2");
        let before = shown(&found, None);
        let data = Data::Recorded(DataRecord {
            namespace: String::new(),
            name: String::new(),
            image_id: String::new(),
            image: String::new(),
            repo_digest: String::new(),
            recovered: before.recovery.as_ref().map(|offer| offer.id.clone()),
            resetting: false,
            format: FORMAT,
            features: Vec::new(),
        });
        assert_eq!(
            decision(&answer("reset", &before), Some(&before), Err(&found), &data),
            None
        );
    }

    #[test]
    fn i9_what_was_carried_out_is_known_from_the_record() {
        let before = shown(&failure("image 2"), None);
        let record = |recovered: Option<&str>, resetting| {
            Data::Recorded(DataRecord {
                namespace: String::new(),
                name: String::new(),
                image_id: String::new(),
                image: String::new(),
                repo_digest: String::new(),
                recovered: recovered.map(str::to_owned),
                resetting,
                format: FORMAT,
                features: Vec::new(),
            })
        };
        let id = before.recovery.as_ref().map(|offer| offer.id.as_str());
        assert!(is_carried_out(Some(&before), &record(id, false)));
        assert!(!is_carried_out(Some(&before), &record(id, true)), "begun");
        assert!(!is_carried_out(Some(&before), &record(Some("another"), false)));
        assert!(!is_carried_out(Some(&before), &record(None, false)));
        let nothing_offered = FilesystemStatus {
            recovery: None,
            ..before
        };
        assert!(!is_carried_out(Some(&nothing_offered), &record(None, false)));
        assert!(!is_carried_out(None, &Data::Absent));
    }

    #[test]
    fn i1_a_filesystem_that_works_is_emptied_only_while_it_is_too_large() {
        let mut status: FilesystemStatus =
            serde_json::from_value(json!({ "state": "Ready", "nodeName": "n1" })).unwrap();
        status.recovery = Some(new_offer(vec![RecoveryVerb::Reset]));
        status.usage = Some(stoppablecontainer_api::FilesystemUsage {
            bytes: 2000,
            inodes: 1,
        });
        let reset = format!("reset-{}", status.recovery.as_ref().unwrap().id);
        let wanted = |limit: &str| {
            let object = object(&reset, &json!({ "ephemeral-storage": limit }));
            let decided = decision(&object, Some(&status), Ok(()), &Data::WithoutRecord).is_some();
            assert_eq!(decided, reset_wanted(&object, &status));
            decided
        };
        assert!(wanted("1k"));
        assert!(!wanted("2k"), "the limit was raised");
    }
}
