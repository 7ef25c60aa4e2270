/*!
The objects of the simulated API server with the rules that a controller relies on: UIDs,
resourceVersions, generations, preconditions, finalizers, graceful deletion, and a history from
which watches and older states are served.

What is not simulated: validation by schemas, field managers except for the agent's one field, and
admission (see [`super::admission`]).
*/

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kind::{Key, Kind, NAMESPACE};

/// The time of everything that happens: conditions and pods have it, and the end states are
/// compared without it.
pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

/// The objects and how they came to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Change>,
    revision: u64,
    /// Changes of anything but events.
    changes: usize,
    uids: u32,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    /// The object; the last state of one that was deleted.
    pub(crate) object: Arc<Value>,
    pub(crate) deleted: bool,
}

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What a deletion insists on, and how it is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) grace: Option<i64>,
    /// `Foreground` or `Orphan`; else in the background.
    pub(crate) policy: Option<String>,
}

// === impl Store ===

impl Store {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects in the order of their keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Value>> {
        let all = self.objects.iter();
        all.filter(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object)
    }

    /// The object with this UID.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<(&Key, &Arc<Value>)> {
        self.objects
            .iter()
            .find(|(_, object)| object["metadata"]["uid"] == uid)
    }

    /// The objects alone.
    pub(crate) fn snapshot(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            ..Self::default()
        }
    }

    /// How often anything but an event changed.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }

    /// Everything that happened. A position in it is what the driver calls a revision.
    pub(crate) fn history(&self) -> &[Change] {
        &self.history
    }

    /// The objects of a kind as they were at an earlier revision.
    pub(crate) fn at(&self, kind: Kind, revision: usize) -> BTreeMap<Key, Arc<Value>> {
        let mut objects = BTreeMap::new();
        for change in self
            .history
            .iter()
            .take(revision)
            .filter(|change| change.key.kind == kind)
        {
            if change.deleted {
                objects.remove(&change.key);
            } else {
                objects.insert(change.key.clone(), Arc::clone(&change.object));
            }
        }
        objects
    }

    /// What happened since the last time, which is forgotten.
    pub(crate) fn take_history(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.history)
    }

    /// Forgets how the objects came to be: what is there now is the beginning.
    pub(crate) fn forget_history(&mut self) {
        self.history = self
            .objects
            .iter()
            .map(|(key, object)| Change {
                key: key.clone(),
                object: Arc::clone(object),
                deleted: false,
            })
            .collect();
    }

    /// Stores a new object.
    pub(crate) fn create(&mut self, kind: Kind, mut object: Value) -> Result<Arc<Value>, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = Key::new(kind, &name);
        if self.objects.contains_key(&key) {
            return Err(Refusal::new(
                409,
                "AlreadyExists",
                format!("{} \"{name}\" already exists", kind.plural()),
            ));
        }
        self.uids += 1;
        let (api_version, type_name) = kind.type_meta();
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(type_name);
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("{:08x}-0000-4000-8000-{:012x}", self.uids, self.uids));
        metadata["creationTimestamp"] = json!(NOW);
        metadata["generation"] = json!(1);
        if kind.is_namespaced() {
            metadata["namespace"] = json!(NAMESPACE);
        }
        Ok(self.put(key, object))
    }

    /// Replaces an object with what a write made of it. Nothing changes if nothing differs.
    pub(crate) fn replace(&mut self, key: &Key, mut new: Value) -> Result<Arc<Value>, Refusal> {
        let old = Arc::clone(self.objects.get(key).ok_or_else(|| Refusal::not_found(key))?);
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == *old {
            return Ok(old);
        }
        if matches!(key.kind, Kind::Container | Kind::Instance) && new["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if is_deleting(&new) && finalizers(&new).is_empty() && !is_ending(&new) {
            return Ok(self.remove(key, new));
        }
        Ok(self.put(key.clone(), new))
    }

    /// Deletes an object, or asks for its deletion. `None` if the preconditions hold and the object
    /// is removed at once.
    pub(crate) fn delete(&mut self, key: &Key, deletion: &Deletion) -> Result<Arc<Value>, Refusal> {
        let old = Arc::clone(self.objects.get(key).ok_or_else(|| Refusal::not_found(key))?);
        let metadata = &old["metadata"];
        let differs = |wanted: &Option<String>, field: &str| {
            wanted.as_deref().is_some_and(|wanted| metadata[field] != wanted)
        };
        if differs(&deletion.uid, "uid") || differs(&deletion.version, "resourceVersion") {
            return Err(Refusal::conflict(key, "the preconditions do not hold"));
        }
        let mut new = (*old).clone();
        let policy_finalizer = match deletion.policy.as_deref() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = policy_finalizer.filter(|_| !is_deleting(&old)) {
            let mut all = finalizers(&old);
            all.push(finalizer.to_owned());
            new["metadata"]["finalizers"] = json!(all);
        }
        let grace = if key.kind == Kind::Pod {
            grace(&old, deletion.grace)
        } else {
            0
        };
        if is_deleting(&old) && (grace > 0 || !finalizers(&old).is_empty() && !is_ending(&old)) {
            return Ok(old);
        }
        new["metadata"]["deletionTimestamp"] = json!(NOW);
        if key.kind == Kind::Pod {
            new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        } else {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if grace > 0 || !finalizers(&new).is_empty() {
            return Ok(self.put(key.clone(), new));
        }
        Ok(self.remove(key, (*old).clone()))
    }

    fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&object));
        self.changes += usize::from(key.kind != Kind::Event);
        self.history.push(Change {
            key,
            object: Arc::clone(&object),
            deleted: false,
        });
        object
    }

    fn remove(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        self.objects.remove(key);
        self.changes += usize::from(key.kind != Kind::Event);
        self.history.push(Change {
            key: key.clone(),
            object: Arc::clone(&object),
            deleted: true,
        });
        object
    }
}

/// Deletion was asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Its containers still have time to end.
fn is_ending(pod: &Value) -> bool {
    pod["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default()
        > 0
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let all = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    all.filter_map(|finalizer| finalizer.as_str().map(str::to_owned))
        .collect()
}

/// The kubelet ends only the containers of pods that are bound and have not ended.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if pod["spec"]["nodeName"].is_null() || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    asked.or(own).unwrap_or(30)
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            reason,
            message,
        }
    }

    pub(crate) fn not_found(key: &Key) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{}\" not found", key.kind.plural(), key.name),
        )
    }

    pub(crate) fn conflict(key: &Key, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            key.kind.plural(),
            key.name
        );
        Self::new(409, "Conflict", message)
    }
}
