/*!
Which pods this process created, per instance and role, by the answers of the API server, until the
status records them and the caches have seen that.

A process that ends loses only the knowledge of pods that it created and did not record yet. The
next one replaces them; the node agent did not serve them.

Also which pods are gone, by the answers of the API server: a cache may show such a pod for as long
as its watch lags, or until the next list if the watch lost the event. Without this the controller
would record the pod and take the record back in every pass, and each of these writes starts the
next pass.
*/

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::reconcile::pods::Role;

/// UIDs of pods by UID of the instance and role: the last one each.
#[derive(Debug, Default)]
pub struct Created {
    pods: Mutex<HashMap<(String, Role), String>>,
    /// The last one of each role that is gone.
    gone: Mutex<HashMap<(String, Role), String>>,
}

// === impl Created ===

impl Created {
    /// The API server created `pod` for us.
    pub fn note(&self, instance: &str, role: Role, pod: &str) {
        lock(&self.pods).insert((instance.to_owned(), role), pod.to_owned());
    }

    /// UID of the pod that was created last.
    pub fn pod(&self, instance: &str, role: Role) -> Option<String> {
        lock(&self.pods).get(&(instance.to_owned(), role)).cloned()
    }

    /// The API server answered that `pod` does not exist any more.
    pub fn note_gone(&self, instance: &str, role: Role, pod: &str) {
        lock(&self.gone).insert((instance.to_owned(), role), pod.to_owned());
    }

    /// Whether the API server answered that `pod` does not exist any more.
    pub fn is_gone(&self, instance: &str, role: Role, pod: &str) -> bool {
        let gone = lock(&self.gone);
        gone.get(&(instance.to_owned(), role)).map(String::as_str) == Some(pod)
    }

    /// The instance is gone: forget its pods.
    pub fn forget(&self, instance: &str) {
        for pods in [&self.pods, &self.gone] {
            lock(pods).retain(|(of, _), _| of != instance);
        }
    }
}

fn lock(pods: &Mutex<HashMap<(String, Role), String>>) -> MutexGuard<'_, HashMap<(String, Role), String>> {
    // A panic elsewhere cannot leave a map of plain values half-written in a way that matters.
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i16_the_last_pod_of_each_role_is_known_until_the_instance_is_forgotten() {
        let created = Created::default();
        created.note("a", Role::Consumer, "1");
        created.note("a", Role::Consumer, "2");
        created.note("a", Role::Provider, "3");
        created.note("b", Role::Consumer, "4");
        assert_eq!(created.pod("a", Role::Consumer).as_deref(), Some("2"));
        assert_eq!(created.pod("a", Role::Provider).as_deref(), Some("3"));
        created.forget("a");
        assert_eq!(created.pod("a", Role::Provider), None);
        assert_eq!(created.pod("b", Role::Consumer).as_deref(), Some("4"));
    }

    #[test]
    fn i18_a_pod_that_is_gone_is_known_until_the_instance_is_forgotten() {
        let created = Created::default();
        created.note_gone("a", Role::Consumer, "1");
        assert!(created.is_gone("a", Role::Consumer, "1"));
        assert!(!created.is_gone("a", Role::Provider, "1"));
        assert!(!created.is_gone("a", Role::Consumer, "2"));
        created.forget("a");
        assert!(!created.is_gone("a", Role::Consumer, "1"));
    }
}
