//! The node agents of the installed release: found by their labels, restarted, removed, and run
//! with other arguments.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use testkit::{Namespace, kubectl};

use crate::support::{AGENTS, cleaned_up};

/// A node label that does not exist.
const NOWHERE: &str = "stoppablecontainer.xtlsoft.top/nowhere";

/// The agents of the cluster, with their original arguments.
pub(crate) struct Agents {
    client: Client,
    name: String,
    namespace: String,
    /// Their state when they were found.
    pub(crate) arguments: Vec<String>,
}

// === impl Agents ===

impl Agents {
    pub(crate) async fn find(ns: &Namespace) -> Result<Self> {
        let found = Api::<DaemonSet>::all(ns.client.clone())
            .list(&ListParams::default().labels(AGENTS))
            .await?
            .items;
        let agent = found
            .into_iter()
            .next()
            .context("no node agent on this cluster")?;
        let pod = agent.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let arguments = pod.and_then(|pod| pod.containers.first()?.args.clone());
        Ok(Self {
            client: ns.client.clone(),
            name: agent.name_any(),
            namespace: agent.namespace().unwrap_or_default(),
            arguments: arguments.context("a node agent without arguments")?,
        })
    }

    /// The kubelet's directory, from the agents' arguments.
    pub(crate) fn kubelet_directory(&self) -> &str {
        let mut arguments = self.arguments.iter();
        arguments
            .find_map(|argument| argument.strip_prefix("--kubelet-dir="))
            .unwrap_or("/var/lib/kubelet")
    }

    /// Their pods.
    pub(crate) async fn pods(&self) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(AGENTS);
        Ok(self.api::<Pod>().list(&params).await?.items)
    }

    /// Restarts every agent and waits until the new ones are ready.
    pub(crate) async fn restart(&self) -> Result<()> {
        let args = ["-n", &self.namespace, "rollout", "restart", &self.target()];
        kubectl(&args, "").await?.success()?;
        self.rolled_out().await
    }

    /// Runs them with other arguments.
    pub(crate) async fn run_with(&self, arguments: &[String]) -> Result<()> {
        let change =
            json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments }]);
        let change = Patch::Json::<()>(serde_json::from_value(change)?);
        self.api::<DaemonSet>()
            .patch(&self.name, &PatchParams::default(), &change)
            .await?;
        self.rolled_out().await
    }

    /// Runs `work` while the agents are removed from all nodes.
    pub(crate) async fn away<Fut: Future<Output = Result<()>>>(
        &self,
        work: impl FnOnce() -> Fut,
    ) -> Result<()> {
        self.select(json!("true")).await?;
        let worked = async {
            for pod in self.pods().await? {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let gone = kube::runtime::conditions::is_deleted(&uid);
                kube::runtime::wait::await_condition(self.api::<Pod>(), &pod.name_any(), gone).await?;
            }
            work().await
        }
        .await;
        let back = async {
            self.select(Value::Null).await?;
            self.rolled_out().await
        };
        cleaned_up(worked, back.await)
    }

    async fn select(&self, nowhere: Value) -> Result<()> {
        let change = json!({ "spec": { "template": { "spec": { "nodeSelector": { NOWHERE: nowhere } } } } });
        self.api::<DaemonSet>()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(change))
            .await?;
        Ok(())
    }

    async fn rolled_out(&self) -> Result<()> {
        let args = [
            "-n",
            &self.namespace,
            "rollout",
            "status",
            &self.target(),
            "--timeout=120s",
        ];
        kubectl(&args, "").await?.success().map(drop)
    }

    fn target(&self) -> String {
        format!("daemonset/{}", self.name)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
