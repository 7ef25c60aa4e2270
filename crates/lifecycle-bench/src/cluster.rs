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

/// A namespace of the cluster, and the container that is measured.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    image: String,
    args: Vec<String>,
}

// === impl Cluster ===

impl Cluster {
    /// Makes a namespace in which pods can be created at once.
    pub(crate) async fn prepare(
        client: Client,
        image: String,
        args: Vec<String>,
        limit: Duration,
    ) -> Result<Self> {
        let namespaces = Api::<Namespace>::all(client.clone());
        let wanted = serde_json::from_value(json!({ "metadata": { "generateName": "bench-" } }))?;
        let made = namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .context("creating the namespace")?;
        let cluster = Self {
            namespace: made.name_any(),
            client,
            image,
            args,
        };
        // Pods that are created before it wait for it.
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), &cluster.namespace);
        let exists = |account: Option<&ServiceAccount>| account.is_some();
        timeout(limit, await_condition(accounts, "default", exists))
            .await
            .context("waiting for the default service account")??;
        Ok(cluster)
    }

    /// Creates a plain pod. Returns the time before the request.
    pub(crate) async fn create_plain(&self, name: &str) -> Result<Instant> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": self.pod_spec(),
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
            "spec": { "running": true, "template": { "spec": self.pod_spec() }, "provider": provider },
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
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = nodes
            .list(&ListParams::default())
            .await
            .context("listing the nodes")?;
        let status = nodes.items.first().and_then(|node| node.status.as_ref());
        let status = status.context("the cluster has no node with a status")?;
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
            ("nodes", nodes.items.len().to_string()),
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

    /// Deletes the namespace, whose objects are gone.
    pub(crate) async fn remove(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .context("deleting the namespace")?;
        Ok(())
    }

    fn pod_spec(&self) -> Value {
        json!({
            "containers": [{
                "name": "main",
                "image": self.image,
                "args": self.args,
                "resources": { "requests": { "cpu": "5m", "memory": "8Mi" } },
            }],
        })
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn objects(&self) -> Api<StoppableContainer> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
