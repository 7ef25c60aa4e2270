//! Clusters of several nodes: where an object goes, and what becomes of it when its node goes.
//!
//! Each test says how many nodes it needs, and a run adds what is missing. They run alone, because
//! most of them change what a node has.

mod away;
mod claims;
mod first_node;
mod given_up;

use serde_json::{Value, json};

use crate::support::shell_template;

/// A shell that could be anywhere and is on this node if there is room.
fn preferring(node: &str) -> Value {
    let mut template = shell_template();
    let nodes = &mut template["spec"]["affinity"]["nodeAffinity"];
    nodes["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "weight": 100,
        "preference": { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] },
    }]);
    template
}
