//! What is created: nodes, pods and claims of others, and StoppableContainers.

use std::fmt::Debug;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use scale_load::number;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::names::CSI_DRIVER;
use tokio::time::Instant;

/// Namespace of the StoppableContainers.
pub(crate) const NAMESPACE: &str = "scale";
/// Namespace of what does not belong to the product.
const FOREIGN: &str = "foreign";
/// Creations under way at the same time.
const CONCURRENCY: usize = 64;

/// Objects of each kind that are applied.
const APPLIES: usize = 500;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) objects: usize,
    pub(crate) nodes: usize,
    pub(crate) foreign: usize,
}

/// Creates nodes, and the pods and claims of others.
pub(crate) async fn prepare(client: &Client, scale: Scale) -> Result<()> {
    let namespaces = [NAMESPACE, FOREIGN].map(|name| json!({ "metadata": { "name": name } }));
    create_all(&Api::<Namespace>::all(client.clone()), namespaces.to_vec()).await?;
    let nodes = (0..scale.nodes).map(node).collect();
    create_all(&Api::<Node>::all(client.clone()), nodes).await?;
    let drivers = (0..scale.nodes).map(drivers).collect();
    create_all(&Api::<CSINode>::all(client.clone()), drivers).await?;
    let claims = (0..scale.foreign).map(claim).collect();
    create_all(&namespaced::<PersistentVolumeClaim>(client, FOREIGN), claims).await?;
    let pods = (0..scale.foreign).map(|index| foreign_pod(index, scale.nodes));
    create_all(&namespaced::<Pod>(client, FOREIGN), pods.collect()).await
}

/// Creates the StoppableContainers, running.
pub(crate) async fn create(client: &Client, scale: Scale) -> Result<()> {
    let objects = (0..scale.objects).map(stoppable_container).collect();
    create_all(&namespaced::<StoppableContainer>(client, NAMESPACE), objects).await
}

/// Applies that the API server answers in a second.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Applies {
    /// Of StoppableContainers: the schema with its rules, and the webhook.
    ours: f64,
    /// Of pods with the same template, of which no webhook is asked.
    pods: f64,
}

/// Applies objects as dry runs, so that only the API server and the webhook work.
pub(crate) async fn apply(client: &Client) -> Result<Applies> {
    let objects = (0..APPLIES).map(stoppable_container);
    let pods = (0..APPLIES).map(|index| {
        let mut pod = stoppable_container(index)["spec"]["template"].take();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name(index));
        pod
    });
    let containers = namespaced::<StoppableContainer>(client, NAMESPACE);
    Ok(Applies {
        ours: apply_all(&containers, objects).await?,
        pods: apply_all(&namespaced::<Pod>(client, NAMESPACE), pods).await?,
    })
}

/// Returns how many were answered in a second.
async fn apply_all<K>(api: &Api<K>, objects: impl Iterator<Item = Value>) -> Result<f64>
where
    K: Clone + Debug + DeserializeOwned,
{
    let params = PatchParams::apply("load").dry_run();
    let begin = Instant::now();
    stream::iter(objects)
        .map(|object| {
            let params = &params;
            async move {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let applied = api.patch(name, params, &Patch::Apply(&object)).await;
                applied.map(drop).context("applying an object of the load")
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(number(APPLIES) / begin.elapsed().as_secs_f64())
}

/// Name of a StoppableContainer.
pub(crate) fn name(index: usize) -> String {
    format!("work-{index}")
}

async fn create_all<K>(api: &Api<K>, objects: Vec<Value>) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    stream::iter(objects)
        .map(|object| async move {
            let object: K = serde_json::from_value(object).context("an object of the load")?;
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(()),
                Err(error) => Err(anyhow::Error::from(error).context("creating an object of the load")),
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

fn node_name(index: usize) -> String {
    format!("kwok-{index}")
}

fn node(index: usize) -> Value {
    let name = node_name(index);
    let room = json!({ "cpu": "256", "memory": "1Ti", "pods": "2000", "ephemeral-storage": "1Ti" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok" },
        },
        "status": { "allocatable": room, "capacity": room },
    })
}

/// The kubelet registers the driver where a node agent runs.
fn drivers(index: usize) -> Value {
    let name = node_name(index);
    json!({
        "metadata": { "name": name },
        "spec": { "drivers": [{ "name": CSI_DRIVER, "nodeID": name, "topologyKeys": null }] },
    })
}

fn claim(index: usize) -> Value {
    json!({
        "metadata": { "name": format!("claim-{index}") },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "foreign",
            "resources": { "requests": { "storage": "1Gi" } },
        },
    })
}

fn foreign_pod(index: usize, nodes: usize) -> Value {
    json!({
        "metadata": { "name": format!("pod-{index}"), "labels": { "app": format!("app-{}", index % 100) } },
        "spec": {
            "nodeName": node_name(index % nodes), "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": "registry.example.org/foreign:1" }],
        },
    })
}

/// A template as users write it.
fn stoppable_container(index: usize) -> Value {
    let env =
        (0..10).map(|n| json!({ "name": format!("SETTING_{n}"), "value": format!("value of setting {n}") }));
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": { "name": name(index), "labels": { "app": "work", "owner": format!("user-{}", index % 100) } },
        "spec": { "running": true, "template": {
            "metadata": { "labels": { "app": "work" } },
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": "registry.example.org/work:1",
                    "command": ["sleep", "infinity"],
                    "env": env.collect::<Vec<_>>(),
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                    "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
                }],
                "volumes": [{ "name": "scratch", "emptyDir": {} }],
            },
        } },
    })
}
