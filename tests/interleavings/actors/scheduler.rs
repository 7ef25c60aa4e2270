//! The fake scheduler: binds pods without gates to the first node that they may run on.

use serde_json::{Value, json};
use stoppablecontainer_api::names::{LABEL_ROLE, ROLE_CONSUMER};

use crate::api::kind::{Key, Kind};
use crate::api::store::is_deleting;
use crate::world::{World, name};

pub(super) fn schedule(world: &mut World) -> bool {
    let pods: Vec<_> = world.store.of_kind(Kind::Pod).cloned().collect();
    pods.iter().any(|pod| {
        let gated = pod["spec"]["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty());
        let waits = pod["spec"]["nodeName"].is_null() && !gated && !is_deleting(pod);
        waits && place(world, pod)
    })
}

fn place(world: &mut World, pod: &Value) -> bool {
    let key = Key::pod(name(pod));
    let nodes: Vec<_> = world.store.of_kind(Kind::Node).cloned().collect();
    let consumer = pod["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER;
    let may = |node: &&std::sync::Arc<Value>| {
        let ready = node["status"]["conditions"][0]["status"] == "True";
        let full = consumer && world.machines.get(name(node)).is_some_and(|machine| machine.full);
        ready && !full && node["spec"]["unschedulable"] != true && allows(pod, name(node))
    };
    let fitting: Vec<_> = nodes.iter().filter(may).collect();
    let preferred = fitting.iter().find(|node| !avoids(pod, name(node)));
    let Some(node) = preferred.or(fitting.first()) else {
        let said = json!([{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0 nodes are available",
        }]);
        if pod["status"]["conditions"] == said {
            return false;
        }
        world.change(&key, |pod| {
            pod["status"]["phase"] = json!("Pending");
            pod["status"]["conditions"] = said;
        });
        return true;
    };
    let node = name(node).to_owned();
    world.change(&key, |pod| {
        pod["spec"]["nodeName"] = json!(node);
        pod["status"] =
            json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] });
    });
    true
}

/// Required node affinity by name; no other is used here.
fn allows(pod: &Value, node: &str) -> bool {
    let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let Some(terms) = terms.as_array() else {
        return true;
    };
    terms.iter().any(|term| {
        let mut fields = term["matchFields"].as_array().into_iter().flatten();
        fields.all(|field| {
            field["values"]
                .as_array()
                .is_some_and(|names| names.iter().any(|name| name == node))
        })
    })
}

fn avoids(pod: &Value, node: &str) -> bool {
    let preferred =
        &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = preferred.as_array().into_iter().flatten();
    terms.any(|term| {
        let field = &term["preference"]["matchFields"][0];
        field["operator"] == "NotIn" && field["values"][0] == node
    })
}
