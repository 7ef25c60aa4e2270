//! Scenarios: what a user or an administrator does, step by step.

use serde_json::{Value, json};
use stoppablecontainer_api::names::ANNOTATION_RECOVERY;

use crate::api::kind::{Key, Kind};
use crate::world::{World, uid};

/// What happens before and during a run.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: &'static [&'static str],
    /// Undisturbed.
    pub(crate) given: &'static [Step],
    /// With the fault somewhere in it. Each step waits until the one before has its effect.
    pub(crate) when: &'static [Step],
    /// What the end must be, so that a scenario that does not do what its name says fails.
    pub(crate) then: fn(&World) -> bool,
    /// Another end that a fault may lead to, see where it is set.
    pub(crate) or: Option<fn(&World) -> bool>,
}

/// Something that a user or an administrator does.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) act: fn(&mut World),
}

pub(crate) const fn step(act: fn(&mut World)) -> Step {
    Step { act }
}

/// The object of all scenarios.
pub(crate) const WEB: &str = "web";
pub(crate) const IMAGE: &str = "nginx:1.25";

/// Creates the object.
pub(crate) fn create(world: &mut World, running: bool, change: impl FnOnce(&mut Value)) {
    let mut container = json!({
        "metadata": { "name": WEB, "annotations": {} },
        "spec": {
            "running": running,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": IMAGE }] },
            },
            "provider": {},
            "hostPathPrefix": "/var/lib/stoppablecontainer",
        },
    });
    change(&mut container);
    world.must(|store| store.create(Kind::Container, container));
}

/// Edits the object.
pub(crate) fn edit(world: &mut World, change: impl FnOnce(&mut Value)) {
    world.change(&Key::container(WEB), change);
}

/// Answers a question of the object.
pub(crate) fn answer(world: &mut World, answer: &str) {
    edit(world, |container| {
        container["metadata"]["annotations"][ANNOTATION_RECOVERY] = json!(answer);
    });
}

/// Gives up the files of an instance, by its UID in the status.
pub(crate) fn abandon(world: &mut World) {
    let container = world.store.get(&Key::container(WEB)).cloned().unwrap_or_default();
    let of = container["status"]["instanceUid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let id: String = of.chars().filter(char::is_ascii_alphanumeric).collect();
    answer(world, &format!("reset-{id}"));
}

/// Answers the agent's offer.
pub(crate) fn answer_offer(world: &mut World, verb: &str) {
    let instance = world.store.get(&Key::instance(WEB)).cloned().unwrap_or_default();
    let id = instance["status"]["filesystem"]["recovery"]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    answer(world, &format!("{verb}-{id}"));
}

/// The API server does not hear from a node any more.
pub(crate) fn silence(world: &mut World, node: &str) {
    world.machine(node).silent = true;
    world.change(&Key::node(node), |node| {
        node["status"]["conditions"] =
            json!([{ "type": "Ready", "status": "Unknown", "message": "no word" }]);
    });
}

pub(crate) fn unsilence(world: &mut World, node: &str) {
    world.machine(node).silent = false;
    world.change(&Key::node(node), |node| {
        node["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    });
}

/// The Node object is deleted, and the machine has no power.
pub(crate) fn remove_node(world: &mut World, node: &str) {
    world.machine(node).silent = true;
    world.machine(node).running.clear();
    world.delete(&Key::node(node), None, None);
    world.delete(&Key::new(Kind::Driver, node), None, None);
}

/// The phase of the object.
pub(crate) fn phase(world: &World) -> String {
    let container = world.store.get(&Key::container(WEB)).cloned().unwrap_or_default();
    container["status"]["phase"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The reason of a condition of the object.
pub(crate) fn reason(world: &World, kind: &str) -> String {
    let container = world.store.get(&Key::container(WEB)).cloned().unwrap_or_default();
    let conditions = container["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let condition = conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .cloned()
        .unwrap_or_default();
    condition["reason"].as_str().unwrap_or_default().to_owned()
}

/// Whether the consumer runs on this node.
pub(crate) fn runs_on(world: &World, node: &str) -> bool {
    let running = world.machines.get(node).map(|machine| &machine.running);
    phase(world) == "Running" && running.is_some_and(|running| running.values().any(|pod| pod.consumer))
}

/// Whether nothing is left but nodes.
pub(crate) fn nothing_left(world: &World) -> bool {
    let mut left = world
        .store
        .all()
        .filter(|(key, _)| key.kind.is_namespaced() && key.kind != Kind::Event);
    let data = world
        .machines
        .values()
        .any(|machine| !machine.data.is_empty() || !machine.running.is_empty());
    left.next().is_none() && !data
}

/// How many consumers wrote to the data of the object.
pub(crate) fn writers(world: &World) -> usize {
    let instance = world.store.get(&Key::instance(WEB)).cloned().unwrap_or_default();
    let mut data = world
        .machines
        .values()
        .filter_map(|machine| machine.data.get(uid(&instance)));
    data.next().map_or(0, |data| data.written_by.len())
}
