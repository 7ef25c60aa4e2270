//! Nodes that are silent, gone, back, or not suitable.

use serde_json::json;
use stoppablecontainer_api::names::ANNOTATION_MOVED_TO;

use super::ends::DELETE;
use super::life::{CREATE, KNOWN_IMAGE, START, STOP};
use crate::api::kind::Key;
use crate::scenario::{
    Scenario, Step, WEB, abandon, create, edit, nothing_left, phase, reason, remove_node, runs_on, silence,
    step, unsilence, writers,
};
use crate::world::{Refuses, World};

const SILENCE: Step = step(|world| silence(world, "n1"));
const UNSILENCE: Step = step(|world| unsilence(world, "n1"));
const REMOVE: Step = step(|world| remove_node(world, "n1"));
const ABANDON: Step = step(abandon);
const RETURN: Step = step(|world| {
    world.machine("n1").silent = false;
    world.add_node("n1");
});
const MOVE: Step = step(|world| {
    world.machine("n2").data = std::mem::take(&mut world.machine("n1").data);
    edit(world, |container| {
        container["metadata"]["annotations"][ANNOTATION_MOVED_TO] = json!("n2");
    });
});
/// The kubelet of the first node refuses every consumer.
const CREATE_REFUSED: Step = step(|world| {
    world.machine("n1").refuses = Refuses::All;
    create(world, true, |_| {});
});
const REFUSE: Step = step(|world| world.machine("n1").refuses = Refuses::Unscheduled);
const N1: &[&str] = &["n1"];
const BOTH: &[&str] = &["n1", "n2"];

/// The deletion of the consumer, in the state in which the kubelet had refused it, is the only
/// proof that it never ran. A process that ends before it records the proof takes it along. The
/// object then stays on its node and waits there, because the consumer may have written files
/// (invariant I1).
///
/// A leader that sleeps before it creates the instance, and wakes while that one is replaced,
/// creates one that does not know the node that was given up. The creation has no precondition. It
/// costs another try.
fn or_refused(world: &World) -> bool {
    let waits = phase(world) == "ProviderReady" && reason(world, "Ready") == "Unschedulable";
    let stays = waits && writers(world) == 0 && world.monitor.consumers.is_empty();
    let container = world.store.get(&Key::container(WEB)).cloned().unwrap_or_default();
    let twice =
        container["status"]["givenUpNodes"]["count"] == 2 && runs_on(world, "n2") && writers(world) == 1;
    stays || twice
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "silent node",
        nodes: BOTH,
        given: &[CREATE],
        when: &[SILENCE],
        then: |world| phase(world) == "Running" && reason(world, "Ready") == "NodeUnreachable",
        or: None,
    },
    Scenario {
        name: "silent node that is back",
        nodes: BOTH,
        given: &[CREATE],
        when: &[SILENCE, STOP, UNSILENCE, START],
        then: |world| runs_on(world, "n1") && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "delete on a silent node",
        nodes: BOTH,
        given: &[CREATE],
        when: &[SILENCE, DELETE, UNSILENCE],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "node that is gone",
        nodes: BOTH,
        given: &[CREATE],
        when: &[REMOVE],
        then: |world| phase(world) == "Failed" && reason(world, "Ready") == "NodeGone",
        or: None,
    },
    Scenario {
        name: "node that is gone and back",
        nodes: BOTH,
        given: &[CREATE],
        when: &[REMOVE, RETURN],
        then: |world| runs_on(world, "n1") && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "node that is gone, given up",
        nodes: BOTH,
        given: &[CREATE],
        when: &[REMOVE, ABANDON],
        then: |world| runs_on(world, "n2") && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "node that is gone, disk moved",
        nodes: BOTH,
        given: &[CREATE],
        when: &[REMOVE, MOVE],
        then: |world| runs_on(world, "n2") && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "node that is gone, deleted",
        nodes: BOTH,
        given: &[CREATE],
        when: &[REMOVE, DELETE, step(|world| world.machine("n1").data.clear())],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "first consumer refused",
        nodes: BOTH,
        given: &[],
        when: &[CREATE_REFUSED],
        then: |world| runs_on(world, "n2") && writers(world) == 1,
        or: Some(or_refused),
    },
    Scenario {
        name: "first consumer refused, with a known image",
        nodes: BOTH,
        given: &[KNOWN_IMAGE],
        when: &[CREATE_REFUSED],
        then: |world| runs_on(world, "n2") && writers(world) == 1,
        or: Some(or_refused),
    },
    Scenario {
        name: "first node gone, with a known image",
        nodes: BOTH,
        given: &[KNOWN_IMAGE],
        when: &[CREATE, REMOVE],
        then: |world| runs_on(world, "n2") || reason(world, "Ready") == "NodeGone",
        or: None,
    },
    Scenario {
        name: "later consumer refused",
        nodes: BOTH,
        given: &[CREATE, STOP],
        when: &[REFUSE, START],
        then: |world| runs_on(world, "n1") && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "first node gone before the start",
        nodes: BOTH,
        given: &[step(|world| create(world, false, |_| {}))],
        when: &[REMOVE, START],
        then: |world| runs_on(world, "n2") && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "cordoned node",
        nodes: N1,
        given: &[CREATE, STOP],
        when: &[
            step(|world| {
                world.change(&Key::node("n1"), |node| {
                    node["spec"]["unschedulable"] = json!(true);
                });
            }),
            START,
            step(|world| world.change(&Key::node("n1"), |node| node["spec"] = json!({}))),
        ],
        then: |world| runs_on(world, "n1") && writers(world) == 2,
        or: None,
    },
];
