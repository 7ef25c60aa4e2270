/*!
What this process wrote last and the caches may not have yet.

An answer of the API server arrives before the event of the same write. A pass in between would
decide on a state from before the write, and end in a conflict or write the same again. So a pass
takes the later of the two: the object of the cache, or the answer. No pass waits for an event.

Only objects that a cache has, and of the same UID: an object that is gone does not come back. An
answer is forgotten when the cache has caught up. Versions are compared as numbers, as client-go's
`MutationCache` does; versions that are not numbers leave the cache's object, and then the API
server refuses what was decided on it.
*/

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::reconcile::pods::Role;

/// The last answers to our writes, by kind.
#[derive(Debug, Default)]
pub struct OwnWrites {
    /// Of StoppableContainers.
    pub containers: Answers<StoppableContainer>,
    /// Of instances.
    pub instances: Answers<StoppableContainerInstance>,
    /// Of pods.
    pub pods: Answers<Pod>,
}

/// The last answers about objects of one kind, by namespace and name.
#[derive(Debug)]
pub struct Answers<K>(Mutex<HashMap<(String, String), Arc<K>>>);

// === impl OwnWrites ===

impl OwnWrites {
    /// No object of this name has an instance any more: forget it and its pods.
    pub fn forget_instance(&self, namespace: &str, name: &str) {
        self.instances.forget(namespace, name);
        for role in [Role::Provider, Role::Consumer, Role::Placeholder] {
            self.pods.forget(namespace, &role.pod_name(name));
        }
    }
}

// === impl Answers ===

impl<K> Default for Answers<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource<DynamicType = ()>> Answers<K> {
    /// Remembers what the API server answered, unless a later answer is known. Returns it.
    pub fn note(&self, answer: Arc<K>) -> Arc<K> {
        let key = (answer.namespace().unwrap_or_default(), answer.name_any());
        let mut answers = self.lock();
        if answers
            .get(&key)
            .is_none_or(|known| !is_later(&**known, &*answer))
        {
            answers.insert(key, Arc::clone(&answer));
        }
        answer
    }

    /// The later of the object that the cache has and the last answer about it.
    pub fn or_later(&self, cached: Arc<K>) -> Arc<K> {
        let key = (cached.namespace().unwrap_or_default(), cached.name_any());
        let mut answers = self.lock();
        match answers.get(&key) {
            Some(answer) if is_later(&**answer, &*cached) => Arc::clone(answer),
            Some(_) => {
                answers.remove(&key);
                cached
            }
            None => cached,
        }
    }

    /// The object is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// How many answers the caches do not have yet.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the caches have every answer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<K>>> {
        // A panic elsewhere cannot leave a map of whole values half-written in a way that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `one` is a later state of the same object than `other`.
fn is_later<K: Resource>(one: &K, other: &K) -> bool {
    let version = |object: &K| object.resource_version()?.parse::<u64>().ok();
    one.uid() == other.uid()
        && version(one)
            .zip(version(other))
            .is_some_and(|(one, other)| one > other)
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;

    fn pod(uid: &str, version: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("team".to_owned()),
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Arc::new(Pod {
            metadata,
            ..Pod::default()
        })
    }

    fn version(pod: &Pod) -> String {
        pod.resource_version().unwrap_or_default()
    }

    #[test]
    fn i17_a_pass_does_not_act_on_a_cache_that_is_older_than_the_own_write() {
        let answers = Answers::default();
        answers.note(pod("u", "10"));
        assert_eq!(version(&answers.or_later(pod("u", "9"))), "10");
        assert_eq!(
            version(&answers.or_later(pod("u", "9"))),
            "10",
            "as often as needed"
        );
        answers.note(pod("u", "8"));
        assert_eq!(
            version(&answers.or_later(pod("u", "9"))),
            "10",
            "answers may arrive out of order"
        );
        assert_eq!(version(&answers.or_later(pod("u", "11"))), "11");
        assert!(answers.is_empty(), "the cache has caught up");
    }

    #[test]
    fn i17_an_answer_does_not_stand_for_another_object_of_the_name() {
        let answers = Answers::default();
        answers.note(pod("old", "10"));
        assert_eq!(answers.or_later(pod("new", "9")).uid().as_deref(), Some("new"));
        assert!(answers.is_empty());
    }

    #[test]
    fn i17_versions_that_are_not_numbers_leave_the_cache_in_charge() {
        let answers = Answers::default();
        answers.note(pod("u", "b"));
        assert_eq!(version(&answers.or_later(pod("u", "a"))), "a");
    }

    #[test]
    fn i18_nothing_is_kept_of_what_is_gone() {
        let own = OwnWrites::default();
        let consumer = Role::Consumer.pod_name("web");
        own.pods.note(pod("u", "10"));
        assert_eq!(consumer, "web");
        own.forget_instance("team", "web");
        assert!(own.pods.is_empty());
    }
}
