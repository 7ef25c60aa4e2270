/*!
The fake garbage collectors: of objects whose owners are gone or deleted in the foreground, of pods
whose node is gone, and of a namespace.
*/

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::kind::{Key, Kind};
use crate::api::store::{finalizers, is_deleting};
use crate::world::{World, name, uid};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(super) fn collect(world: &mut World) -> bool {
    !world.collector_sleeps
        && (pods_of_nodes(world) || namespace(world) || owners(world) || orphans(world) || foreground(world))
}

/// Pods on nodes that do not exist are deleted by force.
fn pods_of_nodes(world: &mut World) -> bool {
    let pods: Vec<_> = world.store.of_kind(Kind::Pod).cloned().collect();
    pods.iter().any(|pod| {
        let node = pod["spec"]["nodeName"].as_str();
        let lost = node.is_some_and(|node| world.store.get(&Key::node(node)).is_none());
        let may = lost && (!is_deleting(pod) || pod["metadata"]["deletionGracePeriodSeconds"] != 0);
        if may {
            world.delete(&Key::pod(name(pod)), Some(0), None);
        }
        may
    })
}

fn namespace(world: &mut World) -> bool {
    if !world.namespace_ends {
        return false;
    }
    let all: Vec<_> = world
        .store
        .all()
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    all.into_iter().any(|(key, object)| {
        let due = key.kind.is_namespaced() && !is_deleting(&object);
        if due {
            world.delete(&key, None, None);
        }
        due
    })
}

/// Deletes an object all of whose owners are gone.
fn owners(world: &mut World) -> bool {
    let uids: BTreeSet<_> = world
        .store
        .all()
        .map(|(_, object)| uid(object).to_owned())
        .collect();
    let all: Vec<_> = world
        .store
        .all()
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    all.into_iter().any(|(key, object)| {
        let mut owners = owner_uids(&object).peekable();
        let due =
            owners.peek().is_some() && !owners.any(|owner| uids.contains(owner)) && !is_deleting(&object);
        if due {
            world.delete(&key, None, None);
        }
        due
    })
}

/// Cuts loose what an orphan deletion leaves, and then takes its finalizer off.
fn orphans(world: &mut World) -> bool {
    let Some((key, owner)) = with_finalizer(world, ORPHAN) else {
        return false;
    };
    if let Some(dependent) = dependents(world, &owner).first() {
        world.change(dependent, |object| {
            if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|reference| reference["uid"] != uid(&owner));
            }
        });
    } else {
        remove_finalizer(world, &key, ORPHAN);
    }
    true
}

/// Deletes what a foreground deletion waits for, and then takes its finalizer off.
fn foreground(world: &mut World) -> bool {
    let Some((key, owner)) = with_finalizer(world, FOREGROUND) else {
        return false;
    };
    let dependents = dependents(world, &owner);
    if dependents.is_empty() {
        remove_finalizer(world, &key, FOREGROUND);
        return true;
    }
    dependents.into_iter().any(|key| {
        let due = world.store.get(&key).is_some_and(|object| !is_deleting(object));
        if due {
            world.delete(&key, None, Some("Foreground"));
        }
        due
    }) || nested(world, &key)
}

/// A dependent may wait for its own dependents.
fn nested(world: &mut World, above: &Key) -> bool {
    let waiting: Vec<_> = world
        .store
        .all()
        .filter(|(key, object)| *key != above && finalizers(object).iter().any(|f| f == FOREGROUND))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    waiting.into_iter().any(|(key, owner)| {
        let below = dependents(world, &owner);
        if below.is_empty() {
            remove_finalizer(world, &key, FOREGROUND);
            return true;
        }
        below.into_iter().any(|key| {
            let due = world.store.get(&key).is_some_and(|object| !is_deleting(object));
            if due {
                world.delete(&key, None, Some("Foreground"));
            }
            due
        })
    })
}

fn with_finalizer(world: &World, finalizer: &str) -> Option<(Key, Arc<Value>)> {
    let mut all = world.store.all();
    let found =
        all.find(|(_, object)| is_deleting(object) && finalizers(object).iter().any(|f| f == finalizer));
    found.map(|(key, object)| (key.clone(), Arc::clone(object)))
}

fn remove_finalizer(world: &mut World, key: &Key, finalizer: &str) {
    world.change(key, |object| {
        let rest: Vec<_> = finalizers(object)
            .into_iter()
            .filter(|f| f != finalizer)
            .collect();
        object["metadata"]["finalizers"] = json!(rest);
    });
}

fn dependents(world: &World, owner: &Value) -> Vec<Key> {
    let all = world.store.all();
    let owned = all.filter(|(_, object)| owner_uids(object).any(|of| of == uid(owner)));
    owned.map(|(key, _)| key.clone()).collect()
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    owners.filter_map(|owner| owner["uid"].as_str())
}
