/*!
The fake kubelets. A pod starts when the agent publishes its volume, which it does only for the UIDs
that the status of the instance records; a placeholder never starts.
*/

use serde_json::{Value, json};
use stoppablecontainer_api::names::{LABEL_ROLE, ROLE_CONSUMER, ROLE_PROVIDER};

use crate::api::kind::{Key, Kind};
use crate::api::store::{NOW, is_deleting};
use crate::world::{Refuses, Running, World, controller, name, uid};

/// Starts a pod that is bound, or refuses it.
pub(super) fn start_pods(world: &mut World) -> bool {
    let pods: Vec<_> = world.store.of_kind(Kind::Pod).cloned().collect();
    pods.iter().any(|pod| {
        let waits = matches!(pod["status"]["phase"].as_str(), None | Some("Pending"));
        waits && !is_deleting(pod) && start(world, pod)
    })
}

fn start(world: &mut World, pod: &Value) -> bool {
    let (key, node) = (
        Key::pod(name(pod)),
        pod["spec"]["nodeName"].as_str().unwrap_or_default(),
    );
    let consumer = pod["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER;
    let provider = pod["metadata"]["labels"][LABEL_ROLE] == ROLE_PROVIDER;
    if !world.answers(node) || !(consumer || provider) {
        return false;
    }
    let refused = match world.machine(node).refuses {
        Refuses::None => false,
        Refuses::Unscheduled => pod["spec"]["affinity"].is_null(),
        Refuses::All => true,
    };
    if consumer && refused {
        world.machine(node).full = world.machine(node).refuses == Refuses::All;
        world.change(&key, |pod| {
            pod["status"] = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu" });
        });
        return true;
    }
    let Some(instance) = published(world, pod, node, consumer) else {
        return false;
    };
    let main = pod["spec"]["containers"][0]["name"].clone();
    let id = format!("containerd://{}", uid(pod));
    let running = Running {
        name: name(pod).to_owned(),
        instance: instance.clone(),
        consumer,
    };
    world.machine(node).running.insert(uid(pod).to_owned(), running);
    if consumer {
        if let Some(data) = world.machine(node).data.get_mut(&instance) {
            data.written_by.push(uid(pod).to_owned());
        }
        let live = world.live_consumers(&instance);
        world.monitor.consumer_started(&instance, uid(pod), &live);
    }
    world.change(&key, |pod| {
        pod["status"]["phase"] = json!("Running");
        pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
        pod["status"]["containerStatuses"] = json!([{
            "name": main, "ready": true, "started": true, "restartCount": 0, "image": "", "imageID": "",
            "containerID": id, "state": { "running": { "startedAt": NOW } },
        }]);
    });
    true
}

/// The UID of the instance whose volume the agent publishes for this pod.
fn published(world: &World, pod: &Value, node: &str, consumer: bool) -> Option<String> {
    let (_, instance) = world.store.by_uid(controller(pod)?)?;
    let status = &instance["status"];
    let recorded = if consumer {
        "consumerPodUid"
    } else {
        "providerPodUid"
    };
    if status[recorded] != uid(pod) || status["nodeName"] != node {
        return None;
    }
    let machine = world.machines.get(node)?;
    let instance_uid = uid(instance);
    // The agent gives the filesystem to one consumer at a time, and only if it is there.
    let ready = machine.data.contains_key(instance_uid) && status["filesystem"]["state"] == "Ready";
    let free = world.live_consumers(instance_uid).is_empty();
    (!consumer || (ready && free)).then(|| instance_uid.to_owned())
}

/// Ends the containers of a pod that is being deleted or does not exist any more.
pub(super) fn end_pods(world: &mut World) -> bool {
    let machines: Vec<_> = world
        .machines
        .iter()
        .map(|(node, machine)| (node.clone(), machine.running.clone()))
        .collect();
    for (node, running) in machines {
        if !world.answers(&node) {
            continue;
        }
        for (uid, pod) in running {
            let object = world
                .store
                .get(&Key::pod(&pod.name))
                .filter(|found| self::uid(found) == uid);
            if object.is_none_or(|object| is_deleting(object)) {
                world.machine(&node).running.remove(&uid);
                return true;
            }
        }
    }
    let pods: Vec<_> = world.store.of_kind(Kind::Pod).cloned().collect();
    pods.iter().any(|pod| {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let runs = world
            .machines
            .values()
            .any(|machine| machine.running.contains_key(uid(pod)));
        let has_ended = is_deleting(pod) && !runs && pod["metadata"]["deletionGracePeriodSeconds"] != 0;
        if !has_ended || !world.answers(node) {
            return false;
        }
        world.delete(&Key::pod(name(pod)), Some(0), None);
        true
    })
}
