/*!
The simulated cluster: the objects of the API server, the machines behind the nodes, and the notes
of the [`Monitor`]. A value without clients and clocks, so that it can be copied and compared.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use stoppablecontainer_api::names::CSI_DRIVER;

use crate::api::kind::{Key, Kind};
use crate::api::store::{Deletion, Refusal, Store};
use crate::monitor::Monitor;

/// Everything that there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) store: Store,
    /// Machines by the names of their nodes. A machine stays when its Node object goes.
    pub(crate) machines: BTreeMap<String, Machine>,
    /// The images of which the agents know config and user before a provider runs.
    pub(crate) known_images: BTreeSet<String>,
    /// Most pods that the namespace's quota allows.
    pub(crate) quota: Option<usize>,
    /// The namespace is being deleted.
    pub(crate) namespace_ends: bool,
    /// The garbage collector and the namespace controller do not work yet.
    pub(crate) collector_sleeps: bool,
    pub(crate) monitor: Monitor,
}

/// What a node's kubelet, runtime and agent know.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Machine {
    /// The API server does not hear from it, and it does not hear from the API server.
    pub(crate) silent: bool,
    /// The consumers that the kubelet refuses.
    pub(crate) refuses: Refuses,
    /// The kubelet refused a consumer, so the scheduler knows that there is no room for another.
    pub(crate) full: bool,
    /// The kept filesystems by the UIDs of their instances.
    pub(crate) data: BTreeMap<String, Data>,
    /// The pods whose containers run, by UID.
    pub(crate) running: BTreeMap<String, Running>,
}

/// The consumers that a kubelet refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refuses {
    #[default]
    None,
    /// Those that did not come through the scheduler, which knows that the node is full.
    Unscheduled,
    All,
}

/// A kept filesystem on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// The image that it was made with.
    pub(crate) image: String,
    /// The consumers that wrote to it, in their order.
    pub(crate) written_by: Vec<String>,
    /// The recovery offer that was carried out last.
    pub(crate) recovered: Option<String>,
}

/// A pod whose containers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) consumer: bool,
}

// === impl World ===

impl World {
    /// A cluster with these nodes and nothing else.
    pub(crate) fn with_nodes(names: &[&str]) -> Self {
        let mut world = Self::default();
        for name in names {
            world.add_node(name);
        }
        world
    }

    pub(crate) fn add_node(&mut self, name: &str) {
        let node = json!({
            "metadata": { "name": name },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let driver = json!({
            "metadata": { "name": name },
            "spec": { "drivers": [{ "name": CSI_DRIVER, "nodeID": name }] },
        });
        self.must(|store| store.create(Kind::Node, node));
        self.must(|store| store.create(Kind::Driver, driver));
        self.machines.entry(name.to_owned()).or_default();
    }

    pub(crate) fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.entry(name.to_owned()).or_default()
    }

    /// Whether the kubelet and the agent of a node can talk to the API server.
    pub(crate) fn answers(&self, node: &str) -> bool {
        self.machines.get(node).is_some_and(|machine| !machine.silent)
            && self.store.get(&Key::node(node)).is_some()
    }

    /// The consumers of an instance whose containers run, wherever that is.
    pub(crate) fn live_consumers(&self, instance: &str) -> BTreeSet<String> {
        let running = self.machines.values().flat_map(|machine| &machine.running);
        let consumers = running.filter(|(_, pod)| pod.consumer && pod.instance == instance);
        consumers.map(|(uid, _)| uid.clone()).collect()
    }

    /// Whether a node that exists has data of the instance.
    pub(crate) fn has_data(&self, instance: &str) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|(node, machine)| {
            machine.data.contains_key(instance) && self.store.get(&Key::node(node)).is_some()
        })
    }

    /// Changes an object that is there.
    pub(crate) fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let Some(object) = self.store.get(key) else {
            panic!("{key} does not exist");
        };
        let mut object = (**object).clone();
        change(&mut object);
        self.must(|store| store.replace(key, object));
    }

    /// A deletion without preconditions that the API server does not refuse.
    pub(crate) fn delete(&mut self, key: &Key, grace: Option<i64>, policy: Option<&str>) {
        let deletion = Deletion {
            grace,
            policy: policy.map(str::to_owned),
            ..Deletion::default()
        };
        self.must(|store| store.delete(key, &deletion));
    }

    pub(crate) fn must(
        &mut self,
        write: impl FnOnce(&mut Store) -> Result<Arc<Value>, Refusal>,
    ) -> Arc<Value> {
        match write(&mut self.store) {
            Ok(object) => object,
            Err(refusal) => panic!("the API server refused: {refusal:?}"),
        }
    }
}

/// The UID of the controller among the owners.
pub(crate) fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
}

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
