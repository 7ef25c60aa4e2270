//! Creation, starts, stops and edits.

use serde_json::json;

use crate::scenario::{
    IMAGE, Scenario, Step, answer_offer, create, edit, phase, reason, runs_on, step, writers,
};
use crate::world::World;

pub(super) const CREATE: Step = step(|world| create(world, true, |_| {}));
pub(super) const CREATE_STOPPED: Step = step(|world| create(world, false, |_| {}));
/// The agents have had a filesystem of the image before.
pub(super) const KNOWN_IMAGE: Step = step(|world| {
    world.known_images.insert(IMAGE.to_owned());
});
pub(super) const START: Step = step(start);
pub(super) const STOP: Step = step(stop);
const EDIT: Step = step(|world| {
    edit(world, |container| {
        container["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{ "name": "A", "value": "b" }]);
    });
});
const OTHER_IMAGE: Step = step(|world| {
    edit(world, |container| {
        container["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:1.26");
    });
});
const ACCEPT: Step = step(|world| answer_offer(world, "accept"));
const RESET: Step = step(|world| answer_offer(world, "reset"));
const CREATE_RELEASED: Step = step(|world| {
    create(world, false, |container| {
        container["spec"]["provider"] = json!({ "whileStopped": "Release" });
    });
});
/// Two wishes without a pause between them.
const STOP_AND_START: Step = step(|world| {
    (STOP.act)(world);
    (START.act)(world);
});

pub(crate) fn start(world: &mut World) {
    edit(world, |container| container["spec"]["running"] = json!(true));
}

pub(crate) fn stop(world: &mut World) {
    edit(world, |container| container["spec"]["running"] = json!(false));
}

fn is_running(world: &World) -> bool {
    runs_on(world, "n1") && reason(world, "Ready") == "AsRequested"
}

fn is_stopped(world: &World) -> bool {
    phase(world) == "Stopped" && reason(world, "Ready") == "Stopped"
}

const N1: &[&str] = &["n1"];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "create",
        nodes: N1,
        given: &[],
        when: &[CREATE],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "create with a known image",
        nodes: N1,
        given: &[KNOWN_IMAGE],
        when: &[CREATE],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "create stopped",
        nodes: N1,
        given: &[],
        when: &[CREATE_STOPPED],
        then: is_stopped,
        or: None,
    },
    Scenario {
        name: "start",
        nodes: N1,
        given: &[CREATE_STOPPED],
        when: &[START],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "stop",
        nodes: N1,
        given: &[CREATE],
        when: &[STOP],
        then: is_stopped,
        or: None,
    },
    Scenario {
        name: "stop and start",
        nodes: N1,
        given: &[CREATE],
        when: &[STOP, START],
        then: |world| is_running(world) && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "stop and start at once",
        nodes: N1,
        given: &[CREATE],
        when: &[STOP_AND_START],
        then: |world| is_running(world) && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "quota of two pods",
        nodes: N1,
        given: &[],
        when: &[step(|world| {
            world.quota = Some(2);
            create(world, true, |_| {});
        })],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "quota that is raised",
        nodes: N1,
        given: &[],
        when: &[
            step(|world| {
                world.quota = Some(1);
                create(world, true, |_| {});
            }),
            step(|world| world.quota = None),
        ],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "template edit",
        nodes: N1,
        given: &[CREATE],
        when: &[EDIT, STOP, START],
        then: |world| is_running(world) && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "template edit of a stopped object",
        nodes: N1,
        given: &[CREATE_STOPPED],
        when: &[EDIT, START],
        then: is_running,
        or: None,
    },
    Scenario {
        name: "image edit that is accepted",
        nodes: N1,
        given: &[CREATE, STOP],
        when: &[OTHER_IMAGE, ACCEPT, START],
        then: |world| is_running(world) && writers(world) == 2,
        or: None,
    },
    Scenario {
        name: "image edit with a reset",
        nodes: N1,
        given: &[CREATE, STOP],
        when: &[OTHER_IMAGE, RESET, START],
        then: |world| is_running(world) && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "image edit under a consumer",
        nodes: N1,
        given: &[CREATE],
        when: &[OTHER_IMAGE, STOP],
        then: |world| phase(world) == "Failed" && reason(world, "Ready") == "ImageChanged",
        or: None,
    },
    Scenario {
        name: "release",
        nodes: N1,
        given: &[CREATE_RELEASED],
        when: &[START, STOP],
        then: |world| phase(world) == "Stopped" && reason(world, "ProviderReady") == "Released",
        or: None,
    },
    Scenario {
        name: "start after a release",
        nodes: N1,
        given: &[CREATE_RELEASED],
        when: &[START],
        then: is_running,
        or: None,
    },
];
