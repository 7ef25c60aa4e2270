//! Pods, instances and data that vanish.

use serde_json::json;

use super::life::{CREATE, CREATE_STOPPED, START, STOP};
use crate::api::kind::Key;
use crate::scenario::{Scenario, Step, WEB, abandon, answer_offer, phase, reason, runs_on, step, writers};
use crate::world::{World, uid};

const DELETE_CONSUMER: Step = step(|world| world.delete(&Key::pod("web"), None, None));
const FORCE_CONSUMER: Step = step(|world| world.delete(&Key::pod("web"), Some(0), None));
const DELETE_PROVIDER: Step = step(|world| world.delete(&Key::pod("web-provider"), None, None));
const FORCE_PROVIDER: Step = step(|world| world.delete(&Key::pod("web-provider"), Some(0), None));
const EVICT_PROVIDER: Step = step(|world| evict(world, "web-provider"));
const EVICT_CONSUMER: Step = step(|world| evict(world, "web"));
/// With the rights to remove a finalizer.
const DESTROY_INSTANCE: Step = step(|world| {
    let instance = world.store.get(&Key::instance(WEB)).cloned().unwrap_or_default();
    world.monitor.given_up.insert(uid(&instance).to_owned());
    world.delete(&Key::instance(WEB), None, None);
});
const LOSE_DATA: Step = step(|world| world.machine("n1").data.clear());
const RESET: Step = step(|world| answer_offer(world, "reset"));
const ABANDON: Step = step(abandon);
const N1: &[&str] = &["n1"];

/// The kubelet ends a pod for good.
fn evict(world: &mut World, pod: &str) {
    let of = world.store.get(&Key::pod(pod)).map(|pod| uid(pod).to_owned());
    world.machine("n1").running.remove(&of.unwrap_or_default());
    world.change(&Key::pod(pod), |pod| {
        pod["status"] = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory" });
    });
}

fn runs_again(world: &World) -> bool {
    runs_on(world, "n1") && writers(world) == 2
}

fn still_runs(world: &World) -> bool {
    runs_on(world, "n1") && writers(world) == 1 && reason(world, "Ready") == "AsRequested"
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "consumer deleted",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_CONSUMER],
        then: runs_again,
        or: None,
    },
    Scenario {
        name: "consumer deleted by force",
        nodes: N1,
        given: &[CREATE],
        when: &[FORCE_CONSUMER],
        then: runs_again,
        or: None,
    },
    Scenario {
        name: "consumer evicted",
        nodes: N1,
        given: &[CREATE],
        when: &[EVICT_CONSUMER],
        then: runs_again,
        or: None,
    },
    Scenario {
        name: "provider deleted",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_PROVIDER],
        then: still_runs,
        or: None,
    },
    Scenario {
        name: "provider deleted by force",
        nodes: N1,
        given: &[CREATE],
        when: &[FORCE_PROVIDER],
        then: still_runs,
        or: None,
    },
    Scenario {
        name: "provider evicted",
        nodes: N1,
        given: &[CREATE],
        when: &[EVICT_PROVIDER],
        then: still_runs,
        or: None,
    },
    Scenario {
        name: "instance deleted, given up",
        nodes: N1,
        given: &[CREATE],
        when: &[DESTROY_INSTANCE, ABANDON],
        then: still_runs,
        or: None,
    },
    Scenario {
        name: "instance deleted",
        nodes: N1,
        given: &[CREATE_STOPPED],
        when: &[DESTROY_INSTANCE],
        then: |world| phase(world) == "Failed" && reason(world, "Ready") == "FilesystemLost",
        or: None,
    },
    Scenario {
        name: "data lost",
        nodes: N1,
        given: &[CREATE, STOP],
        when: &[LOSE_DATA, DELETE_PROVIDER, START],
        then: |world| phase(world) == "Failed" && reason(world, "Ready") == "FilesystemLost",
        or: None,
    },
    Scenario {
        name: "data lost, reset",
        nodes: N1,
        given: &[CREATE, STOP, LOSE_DATA, DELETE_PROVIDER],
        when: &[RESET, START],
        then: still_runs,
        or: None,
    },
];
