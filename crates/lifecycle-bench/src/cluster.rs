//! The requests of the benchmark.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use tokio::time::{Duration, Instant, timeout};

/// Label of a node with the name that selects it.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A namespace of the cluster, and the pod that is measured.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    spec: Value,
}

// === impl Cluster ===

impl Cluster {
    /// Makes a namespace in which pods with this spec can be created at once.
    pub(crate) async fn prepare(client: Client, spec: Value, limit: Duration) -> Result<Self> {
        let namespaces = Api::<Namespace>::all(client.clone());
        let wanted = serde_json::from_value(json!({ "metadata": { "generateName": "bench-" } }))?;
        let made = namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .context("creating the namespace")?;
        let cluster = Self {
            namespace: made.name_any(),
            client,
            spec,
        };
        // Pods that are created before it wait for it.
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), &cluster.namespace);
        let exists = |account: Option<&ServiceAccount>| account.is_some();
        timeout(limit, await_condition(accounts, "default", exists))
            .await
            .context("waiting for the default service account")??;
        Ok(cluster)
    }

    /// The spec of its pods.
    pub(crate) fn spec(&self) -> &Value {
        &self.spec
    }

    /// The same namespace with other pods.
    pub(crate) fn with_spec(&self, spec: Value) -> Self {
        Self { spec, ..self.clone() }
    }

    /// Creates a plain pod. Returns the time before the request.
    pub(crate) async fn create_plain(&self, name: &str) -> Result<Instant> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": self.spec,
        }))?;
        let begin = Instant::now();
        self.pods().create(&PostParams::default(), &pod).await?;
        Ok(begin)
    }

    /// Deletes a plain pod. Returns the time before the request.
    pub(crate) async fn delete_plain(&self, name: &str) -> Result<Instant> {
        let begin = Instant::now();
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(begin)
    }

    /// Creates a StoppableContainer that runs. Returns the time before the request.
    pub(crate) async fn create(&self, name: &str) -> Result<Instant> {
        self.create_with(name, json!({})).await
    }

    /// The same with a provider that may use one processor. The default limit is a tenth of that,
    /// and the runtime's own start of a container counts against it.
    pub(crate) async fn create_with_quick_provider(&self, name: &str) -> Result<Instant> {
        let resources = json!({
            "requests": { "cpu": "10m", "memory": "16Mi" },
            "limits": { "cpu": "1", "memory": "64Mi" },
        });
        self.create_with(name, json!({ "resources": resources })).await
    }

    async fn create_with(&self, name: &str, provider: Value) -> Result<Instant> {
        let object: StoppableContainer = serde_json::from_value(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
            "kind": "StoppableContainer",
            "metadata": { "name": name },
            "spec": { "running": true, "template": { "spec": self.spec }, "provider": provider },
        }))?;
        let begin = Instant::now();
        self.objects().create(&PostParams::default(), &object).await?;
        Ok(begin)
    }

    /// Stops or starts a StoppableContainer. Returns the time before the request.
    pub(crate) async fn set_running(&self, name: &str, running: bool) -> Result<Instant> {
        let patch = Patch::Merge(json!({ "spec": { "running": running } }));
        let begin = Instant::now();
        self.objects()
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(begin)
    }

    /// Deletes a StoppableContainer. Returns the time before the request.
    pub(crate) async fn delete(&self, name: &str) -> Result<Instant> {
        let begin = Instant::now();
        self.objects().delete(name, &DeleteParams::default()).await?;
        Ok(begin)
    }

    /// What the cluster is, from the first node's status.
    pub(crate) async fn facts(&self) -> Result<BTreeMap<String, String>> {
        let nodes = self.nodes().await?;
        let first = nodes.first().context("the cluster has no node")?;
        facts(first, nodes.len())
    }

    /// What the cluster is, and a node that pods can run on: its name, and the node selector for
    /// it.
    pub(crate) async fn facts_and_node(&self) -> Result<(BTreeMap<String, String>, String, Value)> {
        let nodes = self.nodes().await?;
        let node = nodes.iter().find(|node| takes_pods(node));
        let node =
            node.context("the cluster has no node that is Ready and takes pods without tolerations")?;
        let hostname = node.labels().get(HOSTNAME);
        let hostname = hostname
            .with_context(|| format!("node {} does not have the label {HOSTNAME}", node.name_any()))?;
        Ok((
            facts(node, nodes.len())?,
            node.name_any(),
            json!({ HOSTNAME: hostname }),
        ))
    }

    /// The nodes that a pod without tolerations can run on.
    pub(crate) async fn nodes_for_pods(&self) -> Result<Vec<Node>> {
        let nodes = self.nodes().await?.into_iter();
        Ok(nodes.filter(takes_pods).collect())
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = nodes.list(&ListParams::default()).await;
        Ok(nodes.context("listing the nodes")?.items)
    }

    /// The namespace as the owner of an object that is not in it.
    pub(crate) async fn owner(&self) -> Result<Value> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let namespace = namespaces.get(&self.namespace).await;
        let uid = namespace.context("reading the namespace")?.uid();
        Ok(json!({ "apiVersion": "v1", "kind": "Namespace", "name": self.namespace, "uid": uid }))
    }

    /// Deletes the namespace, whose objects are gone.
    pub(crate) async fn remove(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .context("deleting the namespace")?;
        Ok(())
    }

    /// The pods of the namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn objects(&self) -> Api<StoppableContainer> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The spec of a pod with one container.
pub(crate) fn pod_spec(image: &str, args: &[String]) -> Value {
    json!({
        "containers": [{
            "name": "main",
            "image": image,
            "args": args,
            "resources": { "requests": { "cpu": "5m", "memory": "8Mi" } },
        }],
    })
}

fn facts(node: &Node, nodes: usize) -> Result<BTreeMap<String, String>> {
    let status = node.status.as_ref().context("the node has no status")?;
    let info = status
        .node_info
        .as_ref()
        .context("the node does not say what it is")?;
    let capacity = status.capacity.as_ref();
    let capacity = |name| {
        capacity
            .and_then(|capacity| capacity.get(name))
            .map_or("", |quantity| &quantity.0)
    };
    let facts = [
        ("nodes", nodes.to_string()),
        (
            "processors and memory of a node",
            format!("{}, {}", capacity("cpu"), capacity("memory")),
        ),
        ("Kubernetes", info.kubelet_version.clone()),
        (
            "container runtime",
            info.container_runtime_version.replace("://", " "),
        ),
        ("kernel", info.kernel_version.clone()),
    ];
    Ok(facts.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Whether a pod without tolerations can run on it.
fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
    let mut taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tainted = taints.any(|taint| taint.effect != "PreferNoSchedule");
    let mut conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !unschedulable && !tainted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_pods_if_it_is_ready_and_nothing_keeps_them_away() {
        let takes = |ready: &str, spec: Value| {
            let conditions = json!([{ "type": "Ready", "status": ready }]);
            let node = json!({ "spec": spec, "status": { "conditions": conditions } });
            takes_pods(&serde_json::from_value(node).unwrap())
        };
        let taint = |effect: &str| json!({ "taints": [{ "key": "a", "effect": effect }] });
        assert!(takes("True", json!({})));
        assert!(takes("True", taint("PreferNoSchedule")));
        assert!(!takes("False", json!({})));
        assert!(!takes("True", json!({ "unschedulable": true })));
        assert!(!takes("True", taint("NoSchedule")));
    }
}
