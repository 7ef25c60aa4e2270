//! A replica that cannot reach the API server (F11).

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer::reconcile::pods::consumer_pod;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, alone_in_namespace, patience};

use crate::support::release::{PATIENCE, Release};
use crate::support::{container_id, create, node_of, run, running, shell_template, uid_of};

/// A replica, and the means to disconnect it.
struct Replica<'a> {
    ns: &'a Namespace,
    release: Release,
    pod: Pod,
    shell: NodeShell<'a>,
    /// Address of the API server, as pods know it.
    api_server: String,
}

#[tokio::test]
async fn f11_a_replica_without_api_server_answers_what_it_knows_and_starts_unready() {
    alone_in_namespace("egress", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        let replica = Replica::not_leading(&ns).await?;

        let answer = replica
            .cut_off(async || replica.knows_and_says("kept").await)
            .await;
        answer.context("while the API server could not be reached")?;
        create(&ns, "later", true, shell_template()).await?;
        running(&ns, "later").await?;
        replica.learns("later").await?;

        let started = replica.cut_off(async || replica.starts_unready().await).await;
        started.context("at a start without API server")?;
        let uid = uid_of(&replica.pod);
        replica
            .release
            .endpoints("the replica is called again", |ready| {
                ready.len() >= 2 && ready.contains(&uid)
            })
            .await?;
        replica.learns("later").await
    })
    .await;
}

// === impl Replica ===

impl<'a> Replica<'a> {
    /// A replica that does not lead, because the test is not about reconciliation.
    async fn not_leading(ns: &'a Namespace) -> Result<Self> {
        let release = Release::find(&ns.client).await?;
        let leader = release.leader("a replica leads", |_| true).await?;
        let pods = release.controllers().await?;
        let other = pods.into_iter().find(|pod| pod.name_any() != leader);
        let pod = other.context("every replica leads")?;
        let shell = NodeShell::on(ns, &node_of(&pod)?).await?;
        let services = Api::<Service>::namespaced(ns.client.clone(), "default");
        let spec = services.get("kubernetes").await?.spec;
        let address = spec.and_then(|spec| spec.cluster_ip);
        Ok(Self {
            ns,
            release,
            pod,
            shell,
            api_server: address.context("the API server's Service has no address")?,
        })
    }

    /// Runs `work` while all packets of the replica to the API server are dropped, as with an
    /// unplugged cable.
    async fn cut_off(&self, work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let family = if self.api_server.contains(':') {
            "ip6"
        } else {
            "ip"
        };
        let rule = format!("{family} daddr {} drop", self.api_server);
        let table =
            format!("table inet e2e {{ chain out {{ type filter hook output priority 0; {rule}; }}; }}");
        self.in_network(&format!("nft '{table}'")).await?;
        let done = work().await;
        self.in_network("nft delete table inet e2e").await?;
        done
    }

    /// Runs a command of the node in the replica's network namespace.
    async fn in_network(&self, command: &str) -> Result<()> {
        let pod = self.release.api::<Pod>().get(&self.pod.name_any()).await?;
        let id = container_id(&pod, "operator")?;
        self.shell.in_network_of(&id, command).await.map(drop)
    }

    /// The replica admits a consumer from its caches, and an object without a dry run of the pod by
    /// the API server.
    async fn knows_and_says(&self, name: &str) -> Result<()> {
        let answer = self.review_consumer(name).await?;
        ensure!(
            answer["allowed"] == json!(true) && answer["patch"].is_string(),
            "the consumer was not admitted: {answer}"
        );
        let (group, version) = ("stoppablecontainer.xtlsoft.top", "v1alpha1");
        let request = json!({
            "kind": {"group": group, "version": version, "kind": "StoppableContainer"},
            "resource": {"group": group, "version": version, "resource": "stoppablecontainers"},
            "name": name, "object": self.ns.api::<StoppableContainer>().get(name).await?,
            "userInfo": {"username": "somebody"},
        });
        let answer = self.ask("/validate", &request).await?;
        // Also shows that the replica is disconnected.
        ensure!(
            answer["allowed"] == json!(true)
                && answer["warnings"]
                    .to_string()
                    .contains("was not checked by the API server"),
            "the object was not admitted with a warning: {answer}"
        );
        Ok(())
    }

    /// Waits until the replica admits the consumer of an object that it may not have received yet.
    /// Each call waits for news.
    async fn learns(&self, name: &str) -> Result<()> {
        let learnt = async {
            while self.review_consumer(name).await?["allowed"] != json!(true) {}
            Ok(())
        };
        let timeout = tokio::time::timeout(patience(PATIENCE), learnt).await;
        timeout.map_err(|_| anyhow!("{name} is not known to the replica after {PATIENCE:?}"))?
    }

    /// After the kubelet killed and restarted the replica, it reports that it is not ready, and is
    /// not called.
    async fn starts_unready(&self) -> Result<()> {
        let (name, uid) = (self.pod.name_any(), uid_of(&self.pod));
        let pods = self.release.api::<Pod>();
        self.shell
            .kill_first(&container_id(&pods.get(&name).await?, "operator")?)
            .await?;
        self.release
            .endpoints("the replica is not called any more", |ready| {
                !ready.contains(&uid)
            })
            .await?;
        let mut last = String::new();
        let says = async {
            while !last.contains("waiting for: ") {
                ensure!(
                    !last.starts_with("HTTP/1.1 200"),
                    "it says that it is ready: {last}"
                );
                // Until the replica listens, the tunnel ends with an error or without a response.
                let tunnel = self.release.tunnel(&self.pod, "admin").await?;
                last = tunnel
                    .get("/readyz")
                    .await
                    .unwrap_or_else(|error| error.to_string());
            }
            Ok(())
        };
        let says = tokio::time::timeout(patience(PATIENCE), says).await;
        says.map_err(|_| anyhow!("the replica did not start again; its readiness: {last}"))??;
        ensure!(last.contains("caches"), "it waits for something else: {last}");
        self.release
            .endpoints("the replica is still not called", |ready| {
                !ready.is_empty() && !ready.contains(&uid)
            })
            .await
    }

    /// Requests the consumer of an object, as the API server does for the controller.
    async fn review_consumer(&self, name: &str) -> Result<Value> {
        let instance = self.ns.api::<StoppableContainerInstance>().get(name).await?;
        let pod = consumer_pod(&instance)?;
        let request = json!({
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": name, "object": pod, "userInfo": {"username": self.release.controller_user()?},
        });
        self.ask("/mutate", &request).await
    }

    /// Sends a review to this replica.
    async fn ask(&self, path: &str, request: &Value) -> Result<Value> {
        let mut request = request.clone();
        request["uid"] = json!("e2e");
        request["operation"] = json!("CREATE");
        request["namespace"] = json!(self.ns.name);
        request["dryRun"] = json!(true);
        let review =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let connection = self.release.shake_hands(&self.pod).await?.connection?;
        let answer = connection
            .post(&self.release.host(), path, &review.to_string())
            .await?;
        Ok(serde_json::from_str::<Value>(&answer)?["response"].take())
    }
}
