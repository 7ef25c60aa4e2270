/*!
What objects cost in memory, counted allocation by allocation (invariant I18): for each byte that
etcd holds of an object, how many the operator and the agent hold, and how many are taken for a
moment while it is read, decoded or reviewed.

A binary of its own, because it counts what the whole process allocates. One test after the other:
they take turns.
*/

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use stoppablecontainer::reconcile::context::caches;
use stoppablecontainer::rewrite::{Facts, Wrapper, rewrite};
use stoppablecontainer::selections::{Claims, Nodes, Pods};
use stoppablecontainer_api::trimmed::{Selection, Trimmed, Whole};
use stoppablecontainer_api::{
    MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES, PodTemplate, StoppableContainer, StoppableContainerInstance,
};

use webhook_fixtures::{consumer_of, spec_with_variables};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Trimmed in memory for each byte in etcd, at most: text is as long as it is there, and a cache's
/// entry has a name.
const HELD: f64 = 1.5;

/// Whose turn it is.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that are allocated now and were not at the beginning, and the result, which holds them.
fn held<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let result = work();
    let change = region.change();
    (
        change.bytes_allocated.saturating_sub(change.bytes_deallocated),
        result,
    )
}

/// Bytes that were allocated altogether on the way: more than were held at any moment.
fn passed<T>(work: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    drop(work());
    region.change().bytes_allocated
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(bytes: usize, stored: usize) -> f64 {
    bytes as f64 / stored as f64
}

fn instance(spec: &Value) -> Value {
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
        "metadata": { "name": "a", "namespace": "team", "uid": "u", "resourceVersion": "1" },
        "spec": { "stoppableContainerName": "a", "running": false, "template": { "spec": spec } },
    })
}

/// The object of issue 10, as it was stored before there were bounds.
fn before_the_bounds() -> Value {
    let volumes: Vec<_> = (0..31_000)
        .map(|at| json!({ "name": format!("a{at}") }))
        .collect();
    instance(&json!({ "containers": [{ "name": "main", "image": "i" }], "volumes": volumes }))
}

/// What is largest in memory of what is admitted: as many volumes and containers as there may be,
/// and for the rest the element that is largest for its text.
fn largest_admitted() -> Value {
    let volumes: Vec<_> = (0..512).map(|at| json!({ "name": format!("v{at}") })).collect();
    let container = |at: usize| json!({ "name": format!("c{at}"), "image": "i" });
    let containers: Vec<_> = (0..64).map(container).collect();
    let mut spec = json!({ "containers": containers, "initContainers": containers, "volumes": volumes });
    let mut nodes = 2 * 64 * 3 + 512 * 2 + 10;
    let sources = vec![json!({}); 256];
    for volume in spec["volumes"].as_array_mut().unwrap() {
        if nodes + 300 > MAX_TEMPLATE_NODES {
            break;
        }
        volume["projected"] = json!({ "sources": sources });
        nodes += 258;
    }
    instance(&spec)
}

/// A template with as many bytes as there may be.
fn longest_admitted() -> Value {
    let args = vec!["x".repeat(1_000); MAX_TEMPLATE_BYTES / 1_004];
    instance(&json!({ "containers": [{ "name": "main", "image": "i", "args": args }] }))
}

fn apply<K: DeserializeOwned + Resource<DynamicType = ()> + Clone + 'static, S: Selection>(
    to: &mut kube::runtime::reflector::store::Writer<K>,
    text: &str,
) {
    let object: Trimmed<K, S> = serde_json::from_str(text).unwrap();
    to.apply_watcher_event(&Event::Apply(object.into_object().unwrap()));
}

#[test]
fn i18_memory_follows_the_bytes_in_etcd() {
    let _turn = turn();
    println!(
        "{:<22} {:>9} {:>22} {:>22}",
        "object", "in etcd", "operator", "agent"
    );
    for (name, object) in [
        ("issue 10", before_the_bounds()),
        ("largest admitted", largest_admitted()),
        ("longest admitted", longest_admitted()),
    ] {
        let text = object.to_string();
        let mut container = object.clone();
        container["kind"] = json!("StoppableContainer");
        let container = container.to_string();
        let stored = text.len();
        // Controllers and webhook share the instance.
        let (operator, caches) = held(|| {
            let (readers, mut writers) = caches();
            apply::<StoppableContainer, Whole>(&mut writers.containers, &container);
            apply::<StoppableContainerInstance, Whole>(&mut writers.instances, &text);
            (readers, writers)
        });
        drop(caches);
        let (agent, instance) = held(|| {
            let object: Trimmed<StoppableContainerInstance, Whole> = serde_json::from_str(&text).unwrap();
            std::sync::Arc::new(object.into_object().unwrap())
        });
        drop(instance);
        println!(
            "{name:<22} {stored:>9} {operator:>14} ({:.2} x) {agent:>14} ({:.2} x)",
            ratio(operator, stored),
            ratio(agent, stored)
        );
        // Room for an empty cache and the object's own fields.
        let small = 24 * 1024;
        assert!(
            ratio(operator.saturating_sub(small), stored) < 2.0 * HELD,
            "{name}: {operator}"
        );
        assert!(
            ratio(agent.saturating_sub(small), stored) < HELD,
            "{name}: {agent}"
        );
    }
}

#[test]
fn i18_what_is_decoded_for_a_moment_is_bounded() {
    let _turn = turn();
    println!(
        "{:<22} {:>9} {:>14} {:>14}",
        "template", "bytes", "read", "decoded"
    );
    for (name, object, admitted) in [
        ("issue 10", before_the_bounds(), false),
        ("largest admitted", largest_admitted(), true),
        ("longest admitted", longest_admitted(), true),
    ] {
        let text = object["spec"]["template"].to_string();
        let read = passed(|| serde_json::from_str::<PodTemplate>(&text).unwrap());
        let template: PodTemplate = serde_json::from_str(&text).unwrap();
        let (facts, ()) =
            held(|| assert_eq!(template.problem().is_none(), admitted, "{:?}", template.problem()));
        let (decoded, _pod) = held(|| template.decode());
        println!("{name:<22} {:>9} {read:>14} {decoded:>14}", text.len());
        assert!(facts < 4_096, "{name}: what is remembered of it: {facts}");
        assert!(decoded < 32 << 20, "{name}: {decoded}");
        // Text grows by doubling.
        assert!(ratio(read, text.len()) < 10.0, "{name}: {read}");
        if !admitted {
            assert!(decoded < 4_096, "{name}: {decoded}");
        }
    }
}

#[test]
fn i18_of_what_is_not_ours_a_little_is_held() {
    let _turn = turn();
    let many = |element: Value, count: usize| Value::Array(vec![element; count]);
    let labels = json!({ "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer" });
    let metadata = json!({ "name": "n", "namespace": "team", "uid": "u", "labels": labels,
        "annotations": { "a": "x".repeat(200_000) }, "managedFields": many(json!({ "manager": "m" }), 5_000) });
    let volumes = json!({ "metadata": metadata, "spec": {
        "containers": [{ "name": "c" }], "volumes": many(json!({ "name": "a" }), 31_000),
    } });
    let containers =
        json!({ "metadata": metadata, "spec": { "containers": many(json!({ "name": "c" }), 31_000) } });
    let node = json!({ "metadata": metadata, "spec": { "taints": many(json!({ "key": "k", "effect": "x" }), 31_000) },
        "status": { "images": many(json!({ "names": [] }), 31_000), "conditions": many(json!({ "type": "x" }), 31_000) } });
    let claim = json!({ "metadata": metadata, "spec": { "accessModes": many(json!("x"), 31_000) },
        "status": { "conditions": many(json!({ "type": "x" }), 31_000) } });
    println!("{:<34} {:>9} {:>9}", "object of another user", "in etcd", "held");
    let costs = [
        ("pod with 31,000 volumes", cost::<Pod, Pods>(&volumes)),
        ("pod with 31,000 containers", cost::<Pod, Pods>(&containers)),
        ("node", cost::<Node, Nodes>(&node)),
        ("claim", cost::<PersistentVolumeClaim, Claims>(&claim)),
    ];
    for (name, (stored, held)) in costs {
        println!("{name:<34} {stored:>9} {held:>9}");
        assert!(ratio(held, stored) < 1.0, "{name}: {held} of {stored}");
    }
}

/// Stored and held bytes of an object.
fn cost<K: DeserializeOwned + Resource<DynamicType = ()>, S: Selection>(object: &Value) -> (usize, usize) {
    let text = object.to_string();
    let (held, object) = held(|| {
        serde_json::from_str::<Trimmed<K, S>>(&text)
            .unwrap()
            .into_object()
            .unwrap()
    });
    drop(object);
    (text.len(), held)
}

/// Counts of allocations and of bytes, because a time cannot be asserted. With the variables of the
/// pod they grow in proportion: a list that is copied once for each of its elements would not.
#[test]
fn i18_a_rewrite_allocates_in_proportion_to_the_pod() {
    let _turn = turn();
    println!(
        "{:>9} {:>9} {:>12} {:>9}",
        "variables", "pod", "allocations", "bytes"
    );
    let mut per_variable = Vec::new();
    for variables in [20, 200, 2_000] {
        let (instance, pod) = consumer_of(&spec_with_variables(variables));
        let stored = pod.to_string().len();
        let instance: StoppableContainerInstance = serde_json::from_value(instance).unwrap();
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let wrapper = Wrapper {
            image: "example/wrapper:1".to_owned(),
            pull_secret: None,
        };
        let facts = Facts {
            wrapper: &wrapper,
            instance: &instance,
            node: None,
            scheduler_claims: &BTreeSet::new(),
            placement: None,
        };
        let region = Region::new(ALLOCATOR);
        drop(rewrite(&pod, &facts).unwrap());
        let change = region.change();
        let (allocations, bytes) = (change.allocations, change.bytes_allocated);
        println!("{variables:>9} {stored:>9} {allocations:>12} {bytes:>9}");
        assert!(
            allocations < 30 * variables + 1_000,
            "{variables}: {allocations} allocations"
        );
        assert!(
            ratio(bytes, stored) < 60.0,
            "{variables}: {bytes} bytes for {stored}"
        );
        per_variable.push(ratio(bytes, variables));
    }
    let (few, many) = (per_variable[1], per_variable[2]);
    assert!(
        many < 1.5 * few,
        "bytes for each variable: {few} of 200, {many} of 2,000"
    );
}
