/*!
Whether a disturbed run came to the same end as the undisturbed one.

Compared are the end state, the set of creations and deletions, the data on the disks, and how many
consumers wrote to them. The rules of the [`Monitor`] must hold throughout, and in the end the
controller must have nothing to write.

The end state is every object but events, without UIDs (an object stands for its UID),
resourceVersions and times. Which repeats are legitimate:

- A creation that is answered with `AlreadyExists` is not a second creation: it has no effect.
- A pod may be created more than once, and one that its instance does not record may be deleted: a
  process that ends between the answer of the API server and the record leaves a pod that no later
  process may trust (invariant I16). The agent serves only recorded UIDs, so such a pod never ran.
  So creations of pods count as a set, and deletions only of pods that are recorded.
- A leader that sleeps may create such a pod when it wakes, because a creation has no precondition
  but the name.
- A deletion counts for every client: what the garbage collector or the namespace controller
  deletes, the controller need not.
- Instances and StoppableContainers are created and deleted exactly as often as in the undisturbed
  run.
- A consumer comes to its node by name, or by affinity if there was a placeholder when it was
  created. Which of the two it is may depend on who was faster; the node itself is compared.
- `lastStart` and `lastStop` are history: they depend on what the controller saw, and when.
- `resetInstanceUid` may name an instance that is gone, or nothing: a controller whose cache still
  has the instance records the user's answer for it, and one that knows of its end need not.
- Events may be missing or repeated: they report, and nothing is decided on them.
- The generation of an instance counts the controller's writes of its spec, and a run that was
  disturbed may need fewer of them: two wishes of the user are one write then.

[`Monitor`]: crate::monitor::Monitor
*/

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stoppablecontainer_api::names::{ANNOTATION_PLACEMENT, LABEL_ROLE, ROLE_CONSUMER};

use crate::api::kind::{Key, Kind};
use crate::api::request::Verb;
use crate::api::store::is_deleting;
use crate::run::Record;
use crate::world::{World, uid};

/// Where an instance records its pods.
const RECORDS: [&str; 3] = ["consumerPodUid", "providerPodUid", "placeholderPodUid"];

/// A creation or deletion.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Effect {
    verb: Verb,
    key: Key,
}

/// The end of a run, in a form that two runs can be compared by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) objects: BTreeMap<String, Value>,
    /// Of instances and StoppableContainers: each creation and deletion.
    pub(crate) exact: Vec<Effect>,
    /// Of pods: whether there were any.
    pub(crate) pods: BTreeSet<Effect>,
    /// Data by node and instance, and how many consumers wrote to it.
    pub(crate) data: BTreeMap<String, usize>,
    /// Pods that run, by node.
    pub(crate) running: BTreeSet<String>,
    /// How many consumers ran.
    pub(crate) consumers: usize,
}

// === impl End ===

impl End {
    pub(crate) fn of(record: &Record) -> Self {
        let world = &record.world;
        let names = names(world);
        let named = &|text: &str| names.get(text).cloned().unwrap_or_else(|| text.to_owned());
        let objects = world.store.all().filter(|(key, _)| key.kind != Kind::Event);
        let objects = objects
            .map(|(key, object)| (key.to_string(), normal(object, &names)))
            .collect();
        let (exact, pods) = effects(world);
        let machines = || world.machines.iter();
        let data = machines().flat_map(|(node, machine)| {
            let data = machine.data.iter();
            data.map(move |(of, data)| {
                (
                    format!("{node}: {}, {}", named(of), data.image),
                    data.written_by.len(),
                )
            })
        });
        let running = machines().flat_map(|(node, machine)| {
            let pods = machine.running.values();
            pods.map(move |pod| format!("{node}: {}", pod.name))
        });
        Self {
            objects,
            exact,
            pods,
            data: data.collect(),
            running: running.collect(),
            consumers: world.monitor.consumers.values().map(BTreeSet::len).sum(),
        }
    }

    /// The end for a person.
    pub(crate) fn text(&self) -> String {
        let objects = self.objects.iter().map(|(key, object)| {
            let (spec, status) = (&object["spec"], &object["status"]);
            let parts = [
                &object["metadata"]["deletionTimestamp"],
                &object["metadata"]["finalizers"],
                &spec["nodeName"],
                status,
            ];
            format!("\n  {key}: {}", parts.map(Value::to_string).join(" "))
        });
        let objects: String = objects.collect();
        format!(
            "{objects}\n  data {:?}, running {:?}, consumers {}",
            self.data, self.running, self.consumers
        )
    }

    /// What differs from the undisturbed run, for a person.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let keys: BTreeSet<_> = self.objects.keys().chain(other.objects.keys()).collect();
        for key in keys {
            differ(
                key,
                self.objects.get(key).unwrap_or(&Value::Null),
                other.objects.get(key).unwrap_or(&Value::Null),
                &mut all,
            );
        }
        let mut note = |what: &str, undisturbed: String, disturbed: String| {
            if undisturbed != disturbed {
                all.push(format!(
                    "{what}: undisturbed {undisturbed}, disturbed {disturbed}"
                ));
            }
        };
        note(
            "effects",
            format!("{:?}", self.exact),
            format!("{:?}", other.exact),
        );
        note(
            "effects on pods",
            format!("{:?}", self.pods),
            format!("{:?}", other.pods),
        );
        note("data", format!("{:?}", self.data), format!("{:?}", other.data));
        note(
            "running",
            format!("{:?}", self.running),
            format!("{:?}", other.running),
        );
        note(
            "consumers",
            self.consumers.to_string(),
            other.consumers.to_string(),
        );
        all
    }
}

fn differ(path: &str, one: &Value, other: &Value, all: &mut Vec<String>) {
    if one == other {
        return;
    }
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        for key in keys {
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            differ(&format!("{path}.{key}"), &of(one), &of(other), all);
        }
        return;
    }
    all.push(format!("{path}: undisturbed {one}, disturbed {other}"));
}

/// Creations and deletions by all clients: of instances and StoppableContainers each one, of pods
/// whether there were any.
fn effects(world: &World) -> (Vec<Effect>, BTreeSet<Effect>) {
    let history = world.store.history();
    let instances = history.iter().filter(|change| change.key.kind == Kind::Instance);
    let recorded: BTreeSet<_> = instances
        .flat_map(|change| RECORDS.map(|field| change.object["status"][field].as_str().unwrap_or_default()))
        .collect();
    let mut seen = BTreeSet::new();
    let (mut exact, mut pods) = (Vec::new(), BTreeSet::new());
    for change in history
        .iter()
        .filter(|change| change.key.kind.is_namespaced() && change.key.kind != Kind::Event)
    {
        let uid = uid(&change.object);
        let verb = if change.deleted || is_deleting(&change.object) {
            Verb::Delete
        } else {
            Verb::Create
        };
        if !seen.insert((verb, uid)) {
            continue;
        }
        let effect = Effect {
            verb,
            key: change.key.clone(),
        };
        if change.key.kind != Kind::Pod {
            exact.push(effect);
        } else if verb == Verb::Create || recorded.contains(uid) {
            pods.insert(effect);
        }
    }
    exact.sort();
    (exact, pods)
}

/// Every UID that there ever was, in both forms in which it is written, and what stands for it.
fn names(world: &World) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for change in world.store.history() {
        let uid = uid(&change.object).to_owned();
        let is_there = world
            .store
            .get(&change.key)
            .is_some_and(|object| self::uid(object) == uid);
        let name = format!("<{}{}>", if is_there { "" } else { "gone " }, change.key);
        let plain: String = uid.chars().filter(char::is_ascii_alphanumeric).collect();
        names.insert(plain, name.clone());
        names.insert(uid, name);
    }
    names
}

fn normal(object: &Value, names: &BTreeMap<String, String>) -> Value {
    let mut text = object.to_string();
    for (uid, name) in names {
        if text.contains(uid.as_str()) {
            text = text.replace(uid.as_str(), name);
        }
    }
    let mut object: Value = serde_json::from_str(&text).unwrap();
    strip(&mut object);
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(reset) = status.get("resetInstanceUid").and_then(Value::as_str)
        && reset.starts_with("<gone ")
    {
        status.remove("resetInstanceUid");
    }
    if object["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER {
        let ways = [
            ("/spec", "affinity"),
            ("/metadata/annotations", ANNOTATION_PLACEMENT),
        ];
        for (at, way) in ways {
            if let Some(map) = object.pointer_mut(at).and_then(Value::as_object_mut) {
                map.remove(way);
            }
        }
    }
    object
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for history in ["lastStart", "lastStop"] {
                map.remove(history);
            }
            for field in [
                "uid",
                "resourceVersion",
                "lastTransitionTime",
                "generation",
                "observedGeneration",
            ] {
                if let Some(value) = map.get_mut(field) {
                    *value = json!("");
                }
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}
