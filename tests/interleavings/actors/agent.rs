/*!
The fake node agents. They keep the protocol of `status.filesystem`: `Preparing` before there is
data, with image and user if they are known before the provider runs, `Ready` when there is,
`Failed` with an offer if the data is lost or of another image, `Removed` when the instance is being
deleted and nothing uses the data any more.

They write by server-side apply with the instance's UID, as the real ones do.
*/

use std::sync::Arc;

use serde_json::{Value, json};
use stoppablecontainer_api::names::{ANNOTATION_IMAGE, ANNOTATION_RECOVERY};

use crate::api::apply_filesystem;
use crate::api::kind::{Key, Kind};
use crate::api::store::is_deleting;
use crate::world::{Data, World, name, uid};

/// Announces the filesystem for a provider that was bound, if its image is known.
pub(super) fn announce(world: &mut World) -> bool {
    let instances: Vec<_> = world.store.of_kind(Kind::Instance).cloned().collect();
    instances.iter().any(|instance| {
        let node = instance["status"]["nodeName"].as_str().unwrap_or_default();
        let provider = instance["status"]["providerPodUid"].as_str().unwrap_or_default();
        let Some((_, pod)) = world.store.by_uid(provider) else {
            return false;
        };
        let image = pod["metadata"]["annotations"][ANNOTATION_IMAGE]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let is_new = instance["status"]["filesystem"].is_null() && !is_deleting(instance);
        let is_there = pod["spec"]["nodeName"] == node && world.answers(node);
        let has_data = world
            .machines
            .get(node)
            .is_some_and(|machine| machine.data.contains_key(uid(instance)));
        if !is_new || !is_there || has_data || !world.known_images.contains(&image) {
            return false;
        }
        let mut report = json!({ "nodeName": node, "providerPodUid": provider, "state": "Preparing" });
        report["announced"] = json!(true);
        add_image(&mut report, &image);
        apply_filesystem(&mut world.store, name(instance), uid(instance), &report).is_ok()
    })
}

fn add_image(report: &mut Value, image: &str) {
    report["image"] = json!({ "reference": image, "id": format!("sha256:{image}"), "entrypoint": ["/run"] });
    report["identity"] = json!({ "user": "", "uid": 0, "gid": 0 });
}

/// Prepares the filesystem for a provider that runs.
pub(super) fn prepare(world: &mut World) -> bool {
    let instances: Vec<_> = world.store.of_kind(Kind::Instance).cloned().collect();
    instances.iter().any(|instance| {
        let node = instance["status"]["nodeName"].as_str().unwrap_or_default();
        let provider = instance["status"]["providerPodUid"].as_str().unwrap_or_default();
        let holds = world
            .machines
            .get(node)
            .is_some_and(|machine| machine.running.contains_key(provider));
        holds && world.answers(node) && !is_deleting(instance) && prepare_for(world, instance, node, provider)
    })
}

fn prepare_for(world: &mut World, instance: &Arc<Value>, node: &str, provider: &str) -> bool {
    let known = &instance["status"]["filesystem"];
    let pod = world
        .store
        .by_uid(provider)
        .map(|(_, pod)| Arc::clone(pod))
        .unwrap_or_default();
    let image = pod["metadata"]["annotations"][ANNOTATION_IMAGE]
        .as_str()
        .unwrap_or_default();
    let data = world.machine(node).data.get(uid(instance)).cloned();
    let offered = known["recovery"]["id"].as_str().unwrap_or_default().to_owned();
    let answer = instance["metadata"]["annotations"][ANNOTATION_RECOVERY]
        .as_str()
        .unwrap_or_default();
    let (verb, of) = answer.split_once('-').unwrap_or_default();
    let decided = !of.is_empty() && of == offered;
    let failure = match &data {
        Some(data) if data.image != image => Some(("ImageChanged", json!(["accept", "reset"]))),
        None if known["state"] == "Ready" || known["state"] == "Failed" => {
            Some(("FilesystemLost", json!(["reset"])))
        }
        _ => None,
    };
    let mut report = json!({ "nodeName": node, "providerPodUid": provider });
    match failure {
        Some((reason, verbs)) if !decided => {
            let id = if known["reason"] == reason {
                offered
            } else {
                format!("offer{}{}", reason, image.replace([':', '.'], ""))
            };
            report["state"] = json!("Failed");
            report["reason"] = json!(reason);
            report["message"] = json!(format!("{reason} with {image}"));
            report["recovery"] = json!({ "id": id, "verbs": verbs });
        }
        None if known.is_null() => report["state"] = json!("Preparing"),
        _ => {
            if verb == "reset" && decided {
                world.monitor.data_removed_by_answer(uid(instance), answer);
                world.machine(node).data.remove(uid(instance));
            }
            let made = || Data {
                image: image.to_owned(),
                written_by: Vec::new(),
                recovered: None,
            };
            let data = world
                .machine(node)
                .data
                .entry(uid(instance).to_owned())
                .or_insert_with(made);
            image.clone_into(&mut data.image);
            report["state"] = json!("Ready");
            add_image(&mut report, image);
        }
    }
    if known == &report {
        return false;
    }
    // A change by the controller since then is not lost: the agent owns only its field.
    apply_filesystem(&mut world.store, name(instance), uid(instance), &report).is_ok()
}

/// Removes the data of an instance that is being deleted.
pub(super) fn remove(world: &mut World) -> bool {
    let instances: Vec<_> = world.store.of_kind(Kind::Instance).cloned().collect();
    instances.iter().any(|instance| {
        let node = instance["status"]["nodeName"].as_str().unwrap_or_default();
        let uses = |world: &World| {
            let running = world.machines.get(node).map(|machine| &machine.running);
            running.is_some_and(|running| running.values().any(|pod| pod.instance == uid(instance)))
        };
        let known = &instance["status"]["filesystem"];
        if !is_deleting(instance) || !world.answers(node) || uses(world) || known["state"] == "Removed" {
            return false;
        }
        world.monitor.data_removed(instance, &world.store);
        world.machine(node).data.remove(uid(instance));
        let report = json!({ "state": "Removed", "nodeName": node });
        apply_filesystem(&mut world.store, name(instance), uid(instance), &report).is_ok()
    })
}

/// The instance that is not there any more keeps nothing: what remains of it is an orphan, which
/// the agent reports and does not delete.
#[cfg(test)]
#[test]
fn remains_of_an_instance_without_an_object_are_kept() {
    let mut world = World::with_nodes(&["n1"]);
    let data = Data {
        image: "a".to_owned(),
        written_by: Vec::new(),
        recovered: None,
    };
    world.machine("n1").data.insert("gone".to_owned(), data);
    assert!(!super::act(&mut world));
    assert!(world.machine("n1").data.contains_key("gone"));
    assert!(world.store.get(&Key::instance("web")).is_none());
}
