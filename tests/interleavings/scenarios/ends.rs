//! Deletions of all kinds, and objects that are made again under the same name.

use serde_json::json;

use super::life::{CREATE, CREATE_STOPPED, STOP};
use crate::api::kind::Key;
use crate::scenario::{Scenario, Step, WEB, create, nothing_left, reason, runs_on, step, writers};
use crate::world::World;

pub(super) const DELETE: Step = step(delete);
const DELETE_FOREGROUND: Step = step(|world| world.delete(&Key::container(WEB), None, Some("Foreground")));
const DELETE_ORPHAN: Step = step(|world| world.delete(&Key::container(WEB), None, Some("Orphan")));
const CREATE_ELSEWHERE: Step = step(|world| {
    create(world, true, |container| {
        container["spec"]["hostPathPrefix"] = json!("/mnt/other");
    });
});
const N1: &[&str] = &["n1"];

pub(crate) fn delete(world: &mut World) {
    world.delete(&Key::container(WEB), None, None);
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "delete",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "delete in the foreground",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_FOREGROUND],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "delete of a stopped object",
        nodes: N1,
        given: &[CREATE_STOPPED],
        when: &[DELETE],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "delete at once",
        nodes: N1,
        given: &[],
        when: &[step(|world| {
            (CREATE.act)(world);
            (DELETE.act)(world);
        })],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "orphan deletion, taken over",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_ORPHAN, CREATE],
        then: |world| runs_on(world, "n1") && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "orphan deletion, taken over stopped",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_ORPHAN, CREATE_STOPPED],
        then: |world| reason(world, "Ready") == "Stopped" && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "orphan deletion, another prefix",
        nodes: N1,
        given: &[CREATE],
        when: &[DELETE_ORPHAN, CREATE_ELSEWHERE],
        then: |world| reason(world, "Ready") == "NameConflict",
        or: None,
    },
    Scenario {
        name: "recreate",
        nodes: N1,
        given: &[CREATE, STOP],
        when: &[DELETE, CREATE],
        then: |world| runs_on(world, "n1") && writers(world) == 1,
        or: None,
    },
    Scenario {
        name: "namespace",
        nodes: N1,
        given: &[CREATE],
        when: &[step(|world| world.namespace_ends = true)],
        then: nothing_left,
        or: None,
    },
    Scenario {
        name: "forced end of the object",
        nodes: N1,
        given: &[CREATE],
        when: &[
            step(|world| {
                world.change(&Key::container(WEB), |object| {
                    object["metadata"]["finalizers"] = json!([]);
                });
            }),
            DELETE,
        ],
        then: nothing_left,
        or: None,
    },
];
