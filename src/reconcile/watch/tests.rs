//! Who is woken by what, and that the cache is up to date by then.

use futures::stream;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::reconcile::context::caches;

struct Watched {
    caches: Caches,
    wake: Wake,
    queues: Queues,
    writers: CacheWriters,
}

fn watched() -> Watched {
    let (caches, writers) = caches();
    let wake = Wake::default();
    let queues = wake.lead(&caches);
    Watched {
        caches,
        wake,
        queues,
        writers,
    }
}

fn list<K: DeserializeOwned>(objects: &[Value]) -> Vec<watcher::Result<Event<K>>> {
    let read = |object: &Value| Ok(Event::InitApply(serde_json::from_value(object.clone()).unwrap()));
    std::iter::once(Ok(Event::Init))
        .chain(objects.iter().map(read))
        .chain([Ok(Event::InitDone)])
        .collect()
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn instance(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
        "metadata": { "name": name, "namespace": "team" },
        "spec": { "stoppableContainerName": name, "template": { "spec": { "containers": [] } } },
        "status": { "nodeName": node },
    })
}

fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } })
}

fn woken<K: Resource<DynamicType = ()>>(queue: &mut UnboundedReceiver<ObjectRef<K>>) -> Vec<String> {
    std::iter::from_fn(|| queue.try_recv().ok())
        .map(|object| object.name)
        .collect()
}

#[tokio::test]
async fn an_instance_wakes_itself_and_its_parent() {
    let Watched {
        caches,
        wake,
        mut queues,
        writers,
    } = watched();
    let events = vec![Ok(Event::Apply(object(instance("web", "n1"))))];
    mirror(stream::iter(events), writers.instances, |event| {
        wake.on_instance(event, &caches)
    })
    .await;
    assert_eq!(woken(&mut queues.instances), ["web"]);
    assert_eq!(woken(&mut queues.containers), ["web"]);
    assert_eq!(caches.instances.len(), 1);
}

/// A deletion that fell into a gap of the watch is seen by what the new list lacks.
#[tokio::test]
async fn the_end_of_a_list_queues_every_object() {
    let Watched {
        caches,
        wake,
        mut queues,
        writers,
    } = watched();
    let instances = list(&[instance("a", "n1"), instance("b", "n2")]);
    mirror(stream::iter(instances), writers.instances, |event| {
        wake.on_instance(event, &caches)
    })
    .await;
    let mut names = woken(&mut queues.instances);
    names.sort();
    assert_eq!(names, ["a", "b"]);
    mirror(stream::iter(list(&[])), writers.pods, |event| {
        wake.on_pod(event, &caches)
    })
    .await;
    assert_eq!(woken(&mut queues.instances).len(), 2);
}

#[tokio::test]
async fn a_pod_wakes_the_instance_of_its_owner_reference_before_that_of_its_label() {
    let Watched {
        caches,
        wake,
        mut queues,
        writers,
    } = watched();
    let pod = json!({
        "metadata": {
            "name": "p", "namespace": "team",
            "labels": { "stoppablecontainer.xtlsoft.top/instance": "labelled" },
            "ownerReferences": [{ "apiVersion": "v", "kind": "StoppableContainerInstance", "name": "owner", "uid": "u" }],
        },
    });
    let mut orphan = pod.clone();
    orphan["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("ownerReferences");
    let events = vec![Ok(Event::Apply(object(pod))), Ok(Event::Delete(object(orphan)))];
    mirror(stream::iter(events), writers.pods, |event| {
        wake.on_pod(event, &caches)
    })
    .await;
    assert_eq!(woken(&mut queues.instances), ["owner", "labelled"]);
}

#[tokio::test]
async fn a_node_wakes_its_instances_when_it_comes_or_goes() {
    let Watched {
        caches,
        wake,
        mut queues,
        mut writers,
    } = watched();
    for event in list(&[instance("a", "n1"), instance("b", "n2")])
        .into_iter()
        .flatten()
    {
        writers.instances.apply_watcher_event(&event);
    }
    let n1 = || object::<Node>(node("n1"));
    let mut events = list(&[node("n1")]);
    events.extend([
        Ok(Event::Apply(n1())),
        Ok(Event::Delete(n1())),
        Ok(Event::Apply(n1())),
        Ok(Event::Apply(n1())),
    ]);
    mirror(stream::iter(events), writers.nodes, |event| {
        wake.on_node(event, &caches)
    })
    .await;
    let names = woken(&mut queues.instances);
    assert_eq!(
        names.len(),
        4,
        "all once for the list, then one for its end and one for its return: {names:?}"
    );
    assert_eq!(&names[2..], ["a", "a"]);
    assert!(caches.node_exists("n1"));
}

/// A node reports every few seconds; only a change of its readiness, or of whether it reports at
/// all, starts a pass.
#[tokio::test]
async fn f28_a_node_that_falls_silent_or_is_not_ready_wakes_its_instances_once() {
    let Watched {
        caches,
        wake,
        mut queues,
        mut writers,
    } = watched();
    for event in list(&[instance("a", "n1"), instance("b", "n2")])
        .into_iter()
        .flatten()
    {
        writers.instances.apply_watcher_event(&event);
    }
    let heard = |status: &str, words: &str| {
        let mut node = node("n1");
        node["status"] = json!({ "conditions": [
            { "type": "DiskPressure", "status": "Unknown", "message": "not looked at" },
            { "type": "Ready", "status": status, "message": words },
        ] });
        Ok(Event::Apply(object::<Node>(node)))
    };
    let mut events = list(&[node("n1")]);
    events.extend([
        heard("True", "ready"),
        heard("False", "PLEG was last seen active 3m5s ago"),
        heard("False", "PLEG was last seen active 3m15s ago"),
        heard("Unknown", "stopped posting"),
        heard("Unknown", "stopped posting"),
    ]);
    let (mut silent, mut unready) = (Vec::new(), Vec::new());
    mirror(stream::iter(events), writers.nodes, |event| {
        silent.push(caches.node_unreachable("n1"));
        unready.push(caches.node_not_ready("n1"));
        wake.on_node(event, &caches)
    })
    .await;
    let names = woken(&mut queues.instances);
    assert_eq!(
        names[2..],
        ["a", "a"],
        "both for the list, then one twice: {names:?}"
    );
    let words = Some("PLEG was last seen active 3m15s ago".to_owned());
    assert!(unready.contains(&words), "{unready:?}");
    assert_eq!(unready.last(), Some(&None));
    assert_eq!(silent.last(), Some(&Some("stopped posting".to_owned())));
}

#[tokio::test]
async fn an_agent_wakes_the_instances_of_its_node_when_it_comes_or_goes() {
    let Watched {
        caches,
        wake,
        mut queues,
        mut writers,
    } = watched();
    for event in list(&[instance("a", "n1"), instance("b", "n2")])
        .into_iter()
        .flatten()
    {
        writers.instances.apply_watcher_event(&event);
    }
    let node = |drivers: &[&str]| {
        let drivers: Vec<_> = drivers
            .iter()
            .map(|name| json!({ "name": name, "nodeID": "n1" }))
            .collect();
        object::<CSINode>(json!({ "metadata": { "name": "n1" }, "spec": { "drivers": drivers } }))
    };
    let mut events = list(&[]);
    events.extend([
        Ok(Event::Apply(node(&["other"]))),
        Ok(Event::Apply(node(&[
            "other",
            "csi.stoppablecontainer.xtlsoft.top",
        ]))),
        Ok(Event::Apply(node(&["csi.stoppablecontainer.xtlsoft.top"]))),
        Ok(Event::Apply(node(&[]))),
    ]);
    mirror(stream::iter(events), writers.drivers, |event| {
        wake.on_drivers(event, &caches)
    })
    .await;
    assert_eq!(
        woken(&mut queues.instances)[2..],
        ["a", "a"],
        "after the list: once for coming, once for going"
    );
    assert!(!caches.agent_registered("n1"));
}

/// A replica that does not lead keeps its caches up to date, and queues everything when it leads.
#[tokio::test]
async fn f15_the_next_leader_begins_with_what_its_caches_have() {
    let (caches, writers) = caches();
    let wake = Wake::default();
    let mut events = list(&[instance("a", "n1")]);
    events.push(Ok(Event::Apply(object(instance("b", "n1")))));
    mirror(stream::iter(events), writers.instances, |event| {
        wake.on_instance(event, &caches)
    })
    .await;
    let mut first = wake.lead(&caches);
    let mut names = woken(&mut first.instances);
    names.sort();
    assert_eq!(names, ["a", "b"]);
    let mut second = wake.lead(&caches);
    wake.instance(ObjectRef::new("a").within("team"));
    assert_eq!(woken(&mut second.instances).len(), 3);
    assert!(
        woken(&mut first.instances).is_empty(),
        "a leadership that is over"
    );
}
