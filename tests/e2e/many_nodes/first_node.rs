//! The first node is the one that a plain pod of the same template would get.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{PROVIDER_READY, reason};
use stoppablecontainer_api::names::placeholder_pod_name;
use testkit::{Namespace, alone_in_namespace};

use crate::support::nodes::{self, GPU};
use crate::support::{blocked_saying, cleaned_up, create, node_of, running, shell_template};

/// A kind of need, how many objects have it, and what they ask for besides a shell.
struct Need {
    name: &'static str,
    count: usize,
    spec: Value,
}

/// Where objects of a need may be, as a plain pod of the template shows.
type Landed = BTreeMap<&'static str, Vec<String>>;

/// A template with these fields in its pod, and a label of its need.
fn template(need: &str, spec: &Value) -> Value {
    let mut template = shell_template();
    json_patch::merge(&mut template["spec"], spec);
    template["metadata"]["labels"] = json!({ "need": need });
    template
}

fn requests(resources: Value) -> Value {
    let mut spec = shell_template()["spec"].clone();
    spec["containers"][0]["resources"] = resources;
    json!({ "containers": spec["containers"] })
}

/// Thirty objects. Each need has one answer: all on one node, or as many on each.
fn needs(zone: &str, cpu_millis: u64, memory_mib: u64) -> Vec<Need> {
    let apart = |need: &str| json!({ "matchLabels": { "need": need } });
    let need = |name, count, spec| Need { name, count, spec };
    vec![
        need("gpu", 4, requests(json!({ "limits": { GPU: 1 } }))),
        need(
            "zone",
            6,
            json!({ "nodeSelector": { "topology.kubernetes.io/zone": zone } }),
        ),
        need("port", 3, {
            let mut spec = requests(json!({}));
            spec["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 18080 }]);
            spec
        }),
        need(
            "apart",
            3,
            json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": "kubernetes.io/hostname", "labelSelector": apart("apart") },
        ] } } }),
        ),
        need(
            "spread",
            6,
            json!({ "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": apart("spread"),
        }] }),
        ),
        need(
            "cpu",
            3,
            requests(json!({ "requests": { "cpu": format!("{cpu_millis}m") } })),
        ),
        need(
            "memory",
            3,
            requests(json!({ "requests": { "memory": format!("{memory_mib}Mi") } })),
        ),
        need(
            "together",
            2,
            json!({
                "nodeSelector": { "topology.kubernetes.io/zone": zone },
                "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                    { "topologyKey": "kubernetes.io/hostname", "labelSelector": apart("zone") },
                ] } },
            }),
        ),
    ]
}

fn name(need: &Need, index: usize) -> String {
    format!("{}-{index}", need.name)
}

/// The nodes of the pods of each need.
async fn landed(ns: &Namespace, needs: &[Need]) -> Result<Landed> {
    let at = nodes::nodes_of(ns, |_| true).await?;
    let mut landed = Landed::new();
    for need in needs {
        let names = (0..need.count).map(|index| name(need, index));
        let nodes = names.map(|name| {
            at.get(&name)
                .cloned()
                .with_context(|| format!("{name} has no node"))
        });
        let mut nodes = nodes.collect::<Result<Vec<_>>>()?;
        nodes.sort();
        landed.insert(need.name, nodes);
    }
    Ok(landed)
}

#[tokio::test]
async fn thirty_objects_of_mixed_needs_land_as_plain_pods_would() {
    alone_in_namespace("needs", async |ns, _alone| {
        let all = nodes::at_least(&ns, 3).await?;
        ensure!(
            all.len() == 3,
            "the needs are made for three nodes, there are {all:?}"
        );
        let gpu = all.last().context("no node")?.clone();
        let zones = nodes::zones(&ns).await?;
        let zone = zones.keys().nth(1).context("fewer than two zones")?.clone();
        // More than half of a node, so that two of them never fit.
        let node = ns.cluster_api::<Node>().get(&all[0]).await?;
        let has = node
            .status
            .and_then(|status| status.allocatable)
            .unwrap_or_default();
        let cpus: u64 = has["cpu"].0.parse()?;
        let memory: u64 = has["memory"].0.trim_end_matches("Ki").parse()?;
        let needs = needs(&zone, cpus * 520, memory * 52 / 100 / 1024);
        nodes::with_devices(&ns, &gpu, 4, async || {
            for need in &needs {
                for index in 0..need.count {
                    let template = template(need.name, &need.spec);
                    let pod = json!({
                        "apiVersion": "v1", "kind": "Pod",
                        "metadata": { "name": name(need, index), "labels": template["metadata"]["labels"] },
                        "spec": template["spec"],
                    });
                    ns.create_json::<Pod>(pod).await?;
                }
            }
            for need in &needs {
                for index in 0..need.count {
                    let bound = |pod: &Pod| node_of(pod).is_ok();
                    ns.wait(&name(need, index), "it has a node", bound).await?;
                }
            }
            let plain = landed(&ns, &needs).await?;
            // Not by force: while a kubelet still ends them, it has no room for others.
            ns.kubectl(&["delete", "pods", "--all", "--grace-period=1"])
                .await?
                .success()?;

            for need in &needs {
                for index in 0..need.count {
                    create(&ns, &name(need, index), true, template(need.name, &need.spec)).await?;
                }
            }
            for need in &needs {
                for index in 0..need.count {
                    running(&ns, &name(need, index)).await?;
                }
            }
            let ours = landed(&ns, &needs).await?;
            for (need, nodes) in &ours {
                ensure!(
                    nodes == &plain[need],
                    "{need}: {nodes:?}, plain pods: {:?}",
                    plain[need]
                );
            }
            let given_up = ns
                .api::<StoppableContainer>()
                .list(&ListParams::default())
                .await?;
            for object in given_up {
                let nodes = object
                    .status
                    .as_ref()
                    .and_then(|status| status.given_up_nodes.as_ref());
                ensure!(nodes.is_none(), "{} gave nodes up: {nodes:?}", object.name_any());
            }
            Ok(())
        })
        .await
    })
    .await;
}

/// The scheduler tries the pods that wait for the device again in the moment in which the
/// placeholder goes. They have a lower priority, so that the object's turn comes before theirs.
#[tokio::test]
async fn pods_that_wait_do_not_take_the_room_of_an_object_at_its_first_start() {
    alone_in_namespace("contended", async |ns, _alone| {
        let all = nodes::at_least(&ns, 1).await?;
        let class = json!({ "metadata": { "name": ns.name }, "value": -1 });
        let classes = ns.cluster_api::<PriorityClass>();
        classes
            .create(&PostParams::default(), &serde_json::from_value(class)?)
            .await?;
        let tested = nodes::with_devices(&ns, &all[0], 1, async || contended(&ns).await).await;
        let removed = classes.delete(&ns.name, &DeleteParams::default()).await;
        cleaned_up(tested, removed.map(drop).map_err(Into::into))
    })
    .await;
}

async fn contended(ns: &Namespace) -> Result<()> {
    let needs_device = template("gpu", &requests(json!({ "limits": { GPU: 1 } })));
    let plain = |name: &str| {
        let mut pod = needs_device.clone();
        pod["metadata"]["name"] = json!(name);
        pod
    };
    ns.create_json::<Pod>(plain("first")).await?;
    ns.pod_ready("first").await?;
    let waiting = ["second", "third", "fourth"];
    for name in waiting {
        let mut pod = plain(name);
        pod["spec"]["priorityClassName"] = json!(ns.name);
        ns.create_json::<Pod>(pod).await?;
        ns.wait(name, "it waits", is_unschedulable).await?;
    }
    create(ns, "ours", true, needs_device.clone()).await?;
    blocked_saying(ns, "ours", PROVIDER_READY, reason::UNSCHEDULABLE, GPU).await?;
    ns.delete::<Pod>("first").await?;
    running(ns, "ours").await?;
    let object = ns.api::<StoppableContainer>().get("ours").await?;
    let given_up = object.status.and_then(|status| status.given_up_nodes);
    ensure!(given_up.is_none(), "the room was taken: {given_up:?}");
    for name in waiting {
        let pod = ns.api::<Pod>().get(name).await?;
        ensure!(node_of(&pod).is_err(), "{name} got the device");
        ns.delete::<Pod>(name).await?;
    }
    ns.delete::<StoppableContainer>("ours").await
}

fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let reason =
        |reason: &str| conditions.is_some_and(|all| all.iter().any(|c| c.reason.as_deref() == Some(reason)));
    reason("Unschedulable")
}

/// It waits with the scheduler's words, holds nothing meanwhile, and goes on when there is room.
#[tokio::test]
async fn i12_an_object_that_fits_nowhere_waits_with_the_schedulers_words() {
    alone_in_namespace("nowhere", async |ns, _alone| {
        let all = nodes::at_least(&ns, 2).await?;
        let needs_device = template("gpu", &requests(json!({ "limits": { GPU: 1 } })));
        create(&ns, "waits", true, needs_device).await?;
        let message = blocked_saying(&ns, "waits", PROVIDER_READY, reason::UNSCHEDULABLE, GPU).await?;
        ensure!(message.contains(&placeholder_pod_name("waits")), "{message}");
        nodes::with_devices(&ns, &all[1], 1, async || {
            let pod = running(&ns, "waits").await?;
            ensure!(node_of(&pod)? == all[1], "it runs on {}", node_of(&pod)?);
            ensure!(
                nodes::nodes_of(&ns, |name| name.ends_with("-placeholder"))
                    .await?
                    .is_empty()
            );
            ns.delete::<StoppableContainer>("waits").await
        })
        .await
    })
    .await;
}
