//! The first node is the one that a plain pod of the same template would get.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{PROVIDER_READY, reason};
use stoppablecontainer_api::names::placeholder_pod_name;
use testkit::{Namespace, alone_in_namespace};

use crate::support::nodes::{self, GPU};
use crate::support::{blocked_saying, cleaned_up, create, keeping_node, node_of, running, shell_template};

/// The priority of one of the needs. Other pods have none.
const PRIORITY: i32 = 10;

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

/// Amounts of which a node has room for one and not for two.
struct Large {
    cpu_millis: u64,
    memory_mib: u64,
    disk_mib: u64,
}

// === impl Large ===

impl Large {
    /// The node is one of equals.
    async fn on(ns: &Namespace, node: &str) -> Result<Self> {
        let node = ns.cluster_api::<Node>().get(node).await?;
        let has = node.status.and_then(|status| status.allocatable);
        let has = has.context("a node without resources")?;
        let amount = |resource: &str| {
            let amount = has.get(resource).map(|amount| amount.0.as_str());
            amount.with_context(|| format!("the node has no {resource}"))
        };
        let cpus: u64 = amount("cpu")?.parse()?;
        let mebibytes = |resource: &str| -> Result<u64> {
            let amount = amount(resource)?;
            let bytes = match amount.strip_suffix("Ki") {
                Some(kibibytes) => kibibytes.parse::<u64>()? * 1024,
                None => amount.parse()?,
            };
            Ok(bytes / 1024 / 1024)
        };
        Ok(Self {
            cpu_millis: cpus * 520,
            memory_mib: mebibytes("memory")? * 52 / 100,
            disk_mib: mebibytes("ephemeral-storage")? * 52 / 100,
        })
    }
}

/// Thirty objects. Each need has one answer: all on one node, or as many on each. `class` is the
/// name of a priority class, and also of a claim in the zone.
fn needs(zone: &str, class: &str, large: &Large) -> Vec<Need> {
    let in_zone = json!({ "topology.kubernetes.io/zone": zone });
    let apart = |need: &str| json!({ "matchLabels": { "need": need } });
    let need = |name, count, spec| Need { name, count, spec };
    vec![
        need("gpu", 4, requests(json!({ "limits": { GPU: 1 } }))),
        need("zone", 3, json!({ "nodeSelector": in_zone })),
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
            3,
            json!({ "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": apart("spread"),
        }] }),
        ),
        need(
            "cpu",
            3,
            requests(json!({ "requests": { "cpu": format!("{}m", large.cpu_millis) } })),
        ),
        need(
            "memory",
            3,
            requests(json!({ "requests": { "memory": format!("{}Mi", large.memory_mib) } })),
        ),
        need(
            "disk",
            3,
            requests(json!({ "requests": { "ephemeral-storage": format!("{}Mi", large.disk_mib) } })),
        ),
        need(
            "priority",
            1,
            json!({ "nodeSelector": in_zone, "priorityClassName": class }),
        ),
        need("claim", 2, {
            let mut spec = requests(json!({}));
            spec["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": class } }]);
            spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
            spec
        }),
        need(
            "together",
            2,
            json!({
                "nodeSelector": in_zone,
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
        let needs = needs(&zone, &ns.name, &Large::on(&ns, &all[0]).await?);
        let count: usize = needs.iter().map(|need| need.count).sum();
        ensure!(count == 30, "{count} objects");
        with_priority_class(&ns, PRIORITY, async || {
            with_volume_in(&ns, &zone, async || {
                nodes::with_devices(&ns, &gpu, 4, async || land_alike(&ns, &needs).await).await
            })
            .await
        })
        .await
    })
    .await;
}

/// A priority class with the namespace's name, for as long as `test` runs.
async fn with_priority_class(
    ns: &Namespace,
    value: i32,
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let class = json!({ "metadata": { "name": ns.name }, "value": value });
    let classes = ns.cluster_api::<PriorityClass>();
    classes
        .create(&PostParams::default(), &serde_json::from_value(class)?)
        .await?;
    let tested = test().await;
    let removed = classes.delete(&ns.name, &DeleteParams::default()).await;
    cleaned_up(tested, removed.map(drop).map_err(Into::into))
}

/// A volume of nodes in this zone and its claim, both with the namespace's name, for as long as
/// `test` runs.
async fn with_volume_in(ns: &Namespace, zone: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let terms = json!([{ "matchExpressions": [
        { "key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone] },
    ] }]);
    let volume = json!({
        "metadata": { "name": ns.name }, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "",
            "claimRef": { "name": ns.name, "namespace": ns.name },
            "hostPath": { "path": "/tmp", "type": "Directory" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": terms } },
        },
    });
    let volumes = ns.cluster_api::<PersistentVolume>();
    volumes
        .create(&PostParams::default(), &serde_json::from_value(volume)?)
        .await?;
    let tested = async {
        ns.create_json::<PersistentVolumeClaim>(json!({
            "metadata": { "name": ns.name }, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": ns.name,
                "resources": { "requests": { "storage": "1Gi" } },
            },
        }))
        .await?;
        test().await
    };
    let tested = tested.await;
    let removed = volumes.delete(&ns.name, &DeleteParams::default()).await;
    cleaned_up(tested, removed.map(drop).map_err(Into::into))
}

async fn land_alike(ns: &Namespace, needs: &[Need]) -> Result<()> {
    for need in needs {
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
    for need in needs {
        for index in 0..need.count {
            let bound = |pod: &Pod| node_of(pod).is_ok();
            ns.wait(&name(need, index), "it has a node", bound).await?;
        }
    }
    let plain = landed(ns, needs).await?;
    // Not by force: while a kubelet still ends them, it has no room for others.
    ns.kubectl(&["delete", "pods", "--all", "--grace-period=1"])
        .await?
        .success()?;

    for need in needs {
        for index in 0..need.count {
            create(ns, &name(need, index), true, template(need.name, &need.spec)).await?;
        }
    }
    for need in needs {
        for index in 0..need.count {
            let pod = running(ns, &name(need, index)).await?;
            let priority = pod.spec.and_then(|spec| spec.priority);
            let expected = if need.name == "priority" { PRIORITY } else { 0 };
            ensure!(priority == Some(expected), "{}: {priority:?}", need.name);
        }
    }
    let ours = landed(ns, needs).await?;
    for (need, nodes) in &ours {
        ensure!(
            nodes == &plain[need],
            "{need}: {nodes:?}, plain pods: {:?}",
            plain[need]
        );
    }
    let objects = ns.api::<StoppableContainer>();
    for object in objects.list(&ListParams::default()).await? {
        let nodes = object
            .status
            .as_ref()
            .and_then(|status| status.given_up_nodes.as_ref());
        ensure!(nodes.is_none(), "{} gave nodes up: {nodes:?}", object.name_any());
    }
    Ok(())
}

/// The scheduler tries the pods that wait for the device again in the moment in which the
/// placeholder goes. They have a lower priority, so that the object's turn comes before theirs.
#[tokio::test]
async fn pods_that_wait_do_not_take_the_room_of_an_object_at_its_first_start() {
    alone_in_namespace("contended", async |ns, _alone| {
        let all = nodes::at_least(&ns, 1).await?;
        with_priority_class(&ns, -1, async || {
            nodes::with_devices(&ns, &all[0], 1, async || contended(&ns).await).await
        })
        .await
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
        let placeholder = placeholder_pod_name("waits");
        ensure!(message.contains(&placeholder), "{message}");
        let placeholder = ns.api::<Pod>().get(&placeholder).await?;
        ensure!(keeping_node(&placeholder).is_empty(), "{placeholder:#?}");
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
