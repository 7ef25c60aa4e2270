/*!
What must hold at every moment of a run, whatever is disturbed, and what the run did, for the
comparison at its end.

The rules:

- I2: an instance has at most one consumer whose containers run;
- I1, I11, I17: an instance is deleted by the controller, and data by an agent, only if the user
  asked for it: by deleting the object, by an answer that names the UID, or by an edit before the
  first start (a node that was given up);
- I1: the finalizer that holds data is not taken off while a node that exists has data;
- I14: a consumer is not recorded, and so not served, while the instance's newest spec says stopped;
- the controller does not write `status.filesystem`, which is the agent's.
*/

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stoppablecontainer_api::names::{ANNOTATION_RECOVERY, FINALIZER};

use crate::api::kind::Kind;
use crate::api::request::{Call, Verb};
use crate::api::store::{Store, finalizers, is_deleting};
use crate::world::{World, controller, uid};

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Monitor {
    /// Rules that were broken.
    pub(crate) violations: Vec<String>,
    /// The consumers that ran, by the UID of their instance.
    pub(crate) consumers: BTreeMap<String, BTreeSet<String>>,
    /// Instances whose data the user gave up.
    pub(crate) given_up: BTreeSet<String>,
}

// === impl Monitor ===

impl Monitor {
    pub(crate) fn break_rule(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A consumer's containers run; `live` are all of the instance.
    pub(crate) fn consumer_started(&mut self, instance: &str, pod: &str, live: &BTreeSet<String>) {
        if live.len() > 1 {
            self.break_rule(format!("I2: instance {instance} has the live consumers {live:?}"));
        }
        self.consumers
            .entry(instance.to_owned())
            .or_default()
            .insert(pod.to_owned());
    }

    /// The agent resets data on the user's answer.
    pub(crate) fn data_removed_by_answer(&mut self, instance: &str, answer: &str) {
        if !answer.starts_with("reset-") {
            self.break_rule(format!(
                "I1: the data of {instance} was reset on the answer {answer}"
            ));
        }
    }

    /// The agent removes the data of an instance that is being deleted.
    pub(crate) fn data_removed(&mut self, instance: &Value, store: &Store) {
        if !self.may_go(instance, store) {
            self.break_rule(format!(
                "I1: the data of {} is removed, and its user did not ask for that",
                uid(instance)
            ));
        }
    }

    /// Whether the user wants, or does not need, the data of an instance any more.
    fn may_go(&self, instance: &Value, store: &Store) -> bool {
        let owner = controller(instance).and_then(|of| store.by_uid(of));
        let alnum: String = uid(instance)
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let wished = owner.is_none_or(|(_, container)| {
            let answer = &container["metadata"]["annotations"][ANNOTATION_RECOVERY];
            is_deleting(container) || *answer == format!("reset-{alnum}")
        });
        let unused = !instance["status"]["givenUp"].is_null() && !self.consumers.contains_key(uid(instance));
        wished || unused || self.given_up.contains(uid(instance))
    }

    /// Judges a call of the controller that took effect, by what there was before and after it.
    pub(crate) fn judge(&mut self, call: &Call, before: &Store, after: &World) {
        let (old, new) = (before.get(&call.key), after.store.get(&call.key));
        let gone = |object: Option<&std::sync::Arc<Value>>| object.is_none_or(|object| is_deleting(object));
        if call.verb == Verb::Delete && call.key.kind == Kind::Instance && !gone(old) && gone(new) {
            let old = old.cloned().unwrap_or_default();
            if !self.may_go(&old, before) {
                self.break_rule(format!(
                    "I1: the controller deletes instance {} unasked",
                    uid(&old)
                ));
            }
        }
        let (Some(old), Verb::Patch) = (old, call.verb) else {
            return;
        };
        let has = |object: &Value| finalizers(object).iter().any(|finalizer| finalizer == FINALIZER);
        let released = has(old) && !new.is_some_and(|new| has(new));
        if released && call.key.kind == Kind::Instance && after.has_data(uid(old)) {
            self.break_rule(format!(
                "I1: the finalizer of instance {} is taken off, and its data is there",
                uid(old)
            ));
        }
        if released && call.key.kind == Kind::Container {
            let mut instances = before.of_kind(Kind::Instance);
            if instances.any(|instance| controller(instance) == Some(uid(old))) {
                self.break_rule(format!(
                    "I11: the finalizer of {} is taken off before its instance is gone",
                    call.key
                ));
            }
        }
        if call.key.kind == Kind::Instance && call.status {
            let old_consumer = &old["status"]["consumerPodUid"];
            let recorded = new
                .map(|new| &new["status"]["consumerPodUid"])
                .filter(|uid| !uid.is_null());
            if recorded.is_some_and(|uid| uid != old_consumer) && old["spec"]["running"] == false {
                self.break_rule(format!(
                    "I14: a consumer is recorded for {}, which is stopped",
                    call.key
                ));
            }
            if !call.body["status"]["filesystem"].is_null() {
                self.break_rule(format!("the controller writes status.filesystem of {}", call.key));
            }
        }
    }
}
