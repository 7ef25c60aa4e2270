//! The installed release, found by its labels: the controllers, and their objects in the API
//! server.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::reflector::Store;
use kube::runtime::wait::await_condition;
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::tunnel::{self, Handshake, Tunnel};
use testkit::{kubectl, patience};

/// Time limit of waits. They usually take a moment; a loaded machine gets more time than any repair
/// may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Labels of all objects of the release.
const RELEASE: &str = "app.kubernetes.io/name=stoppablecontainer";
/// Labels of the controllers' Deployment and pods.
pub(crate) const CONTROLLERS: &str =
    "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=controller";

/// The release in its state when it was found.
#[derive(Clone)]
pub(crate) struct Release {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) deployment: Deployment,
    /// Name of the Service in front of the webhook.
    pub(crate) service: String,
}

impl Release {
    /// Finds the release. It needs two replicas, because these tests do not apply to a single one.
    pub(crate) async fn find(client: &Client) -> Result<Self> {
        let found = Api::<Deployment>::all(client.clone())
            .list(&ListParams::default().labels(CONTROLLERS))
            .await?
            .items;
        let deployment = found
            .into_iter()
            .next()
            .context("no Deployment of the controller on this cluster")?;
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|s| s.replicas).unwrap_or_default();
        ensure!(
            replicas >= 2,
            "the webhook needs two replicas for this, not {replicas}"
        );
        let namespace = deployment.namespace().unwrap_or_default();
        let service: Service = first(&Api::namespaced(client.clone(), &namespace), |_| true).await?;
        Ok(Self {
            client: client.clone(),
            namespace,
            deployment,
            service: service.name_any(),
        })
    }

    /// The API of a kind in the release's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The user that creates consumer pods.
    pub(crate) fn controller_user(&self) -> Result<String> {
        let spec = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref());
        let account = spec.and_then(|s| s.service_account_name.as_ref());
        let account = account.context("the controller has no service account")?;
        Ok(format!("system:serviceaccount:{}:{account}", self.namespace))
    }

    /// The controllers' pods that are not being deleted.
    pub(crate) async fn controllers(&self) -> Result<Vec<Pod>> {
        let mut pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(CONTROLLERS))
            .await?
            .items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Changes the pod template and waits until the last old pod is deleted.
    pub(crate) async fn roll(&self, template: Value) -> Result<()> {
        let old = self.controllers().await?;
        let change = Patch::Merge(json!({"spec": {"template": template}}));
        self.api::<Deployment>()
            .patch(&self.deployment.name_any(), &PatchParams::default(), &change)
            .await?;
        for pod in old {
            self.gone(&pod).await?;
        }
        Ok(())
    }

    /// Ends the controllers without their time for draining connections, and waits for the next
    /// ones. The API server keeps connections to a webhook; for new connections it resolves the
    /// webhook's address again.
    pub(crate) async fn replace_controllers(&self) -> Result<()> {
        let pods = self.controllers().await?;
        for pod in &pods {
            let at_once = DeleteParams::default().grace_period(1);
            self.api::<Pod>().delete(&pod.name_any(), &at_once).await?;
        }
        for pod in &pods {
            self.gone(pod).await?;
        }
        self.rolled_out().await
    }

    /// Waits until all replicas match the Deployment and are ready.
    pub(crate) async fn rolled_out(&self) -> Result<()> {
        let name = self.deployment.name_any();
        let timeout = format!("--timeout={}s", patience(PATIENCE).as_secs());
        let args = [
            "-n",
            &self.namespace,
            "rollout",
            "status",
            "deployment",
            &name,
            &timeout,
        ];
        kubectl(&args, "").await?.success()?;
        Ok(())
    }

    /// Waits until a pod is deleted.
    pub(crate) async fn gone(&self, pod: &Pod) -> Result<()> {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let gone = await_condition(self.api::<Pod>(), &name, is_deleted(&uid));
        let timeout = tokio::time::timeout(patience(PATIENCE), gone).await;
        timeout.with_context(|| format!("pod {name} stays"))??;
        Ok(())
    }

    /// Watches the endpoints of the webhook until `met` holds for the UIDs of their pods.
    pub(crate) async fn endpoints(&self, what: &str, met: impl Fn(&BTreeSet<String>) -> bool) -> Result<()> {
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={}", self.service));
        let (slices, writer) = reflector::store();
        let mut events = pin!(reflector(writer, watcher(self.api::<EndpointSlice>(), config)));
        let reached = async {
            let mut listed = false;
            while let Some(event) = events.next().await {
                listed |= matches!(event, Ok(watcher::Event::InitDone));
                if listed && met(&ready_pods(&slices)) {
                    return true;
                }
            }
            false
        };
        let reached = tokio::time::timeout(patience(PATIENCE), reached).await;
        ensure!(
            matches!(reached, Ok(true)),
            "waited {PATIENCE:?} until {what}; ready: {:?}",
            ready_pods(&slices)
        );
        Ok(())
    }

    /// Watches the lease until `met` holds for the name of the leader's pod.
    pub(crate) async fn leader(&self, what: &str, met: impl Fn(&str) -> bool) -> Result<String> {
        let name = self.flag("--leader-election-lease")?;
        let mut events = pin!(watcher::watch_object(self.api::<Lease>(), &name));
        let found = async {
            while let Some(event) = events.next().await {
                let spec = event.ok().flatten().and_then(|lease| lease.spec);
                let holder = spec.and_then(|spec| spec.holder_identity);
                if let Some(holder) = holder.filter(|holder| !holder.is_empty() && met(holder)) {
                    return Some(holder);
                }
            }
            None
        };
        let found = tokio::time::timeout(patience(PATIENCE), found)
            .await
            .ok()
            .flatten();
        found.with_context(|| format!("waited {PATIENCE:?} until {what}"))
    }

    /// A flag of the operator.
    fn flag(&self, flag: &str) -> Result<String> {
        let spec = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref());
        let args = spec.and_then(|s| s.containers.first()?.args.as_ref());
        let value = args
            .into_iter()
            .flatten()
            .find_map(|arg| arg.strip_prefix(flag)?.strip_prefix('='));
        Ok(value
            .with_context(|| format!("the controller has no {flag}"))?
            .to_owned())
    }

    /// The bundles that the API server must trust, of both configurations.
    pub(crate) async fn bundles(&self) -> Result<Vec<Vec<u8>>> {
        let name = self.configuration().await?.name_any();
        let mutating = self
            .cluster_api::<MutatingWebhookConfiguration>()
            .get(&name)
            .await?;
        let validating = self.configuration().await?;
        let clients = mutating.webhooks.into_iter().flatten().map(|w| w.client_config);
        let clients = clients.chain(validating.webhooks.into_iter().flatten().map(|w| w.client_config));
        clients
            .map(|client| Ok(client.ca_bundle.context("a webhook without caBundle")?.0))
            .collect()
    }

    /// A handshake with the webhook of one replica, with the bundle that is published just before.
    pub(crate) async fn shake_hands(&self, pod: &Pod) -> Result<Handshake> {
        // First, because the server closes a connection that is silent for some seconds. A bundle
        // is published long before a certificate needs it.
        let bundle = self.bundles().await?.pop().context("no webhook")?;
        let tunnel = self.tunnel(pod, "webhook").await?;
        tunnel.handshake(&self.host(), &bundle).await
    }

    /// A connection to a port of one replica, by the port's name.
    pub(crate) async fn tunnel(&self, pod: &Pod, port: &str) -> Result<Tunnel> {
        let containers = pod.spec.iter().flat_map(|s| s.containers.iter());
        let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
        let named = ports.find(|p| p.name.as_deref() == Some(port));
        let number = named.with_context(|| format!("a controller without the port {port}"))?;
        tunnel::open(
            &self.api::<Pod>(),
            &pod.name_any(),
            number.container_port.try_into()?,
        )
        .await
    }

    /// The name that API servers use for the webhook.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Runs `work` while the Service does not have endpoints, except those in EndpointSlices that
    /// `work` creates.
    pub(crate) async fn without_endpoints<T>(&self, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let before = self.api::<Service>().get(&self.service).await?.spec;
        let selector = before.and_then(|spec| spec.selector);
        let selector = selector.context("the webhook's Service has no selector")?;
        self.select(json!({"nobody": "serves-this"})).await?;
        let outcome = work().await;
        let restored = self.select(json!(selector)).await;
        let done = outcome?;
        restored.map(|()| done)
    }

    async fn select(&self, selector: Value) -> Result<()> {
        let patch: json_patch::Patch =
            serde_json::from_value(json!([{"op": "replace", "path": "/spec/selector", "value": selector}]))?;
        let params = PatchParams::default();
        self.api::<Service>()
            .patch(&self.service, &params, &Patch::<()>::Json(patch))
            .await?;
        Ok(())
    }

    /// One of the two webhook configurations, which have the same bundle.
    pub(crate) async fn configuration(&self) -> Result<ValidatingWebhookConfiguration> {
        first(&self.cluster_api(), |_| true).await
    }

    /// The Secret with the webhook's authority.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        let has_key = |s: &Secret| s.data.as_ref().is_some_and(|data| data.contains_key("ca.key"));
        first(&self.api(), has_key).await
    }

    /// The API of a cluster-scoped kind.
    pub(crate) fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }
}

fn ready_pods(slices: &Store<EndpointSlice>) -> BTreeSet<String> {
    let slices = slices.state();
    slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_none_or(|c| c.ready != Some(false))
        })
        .filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone())
        .collect()
}

async fn first<K>(api: &Api<K>, is_it: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let found = api.list(&ListParams::default().labels(RELEASE)).await?.items;
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    found
        .into_iter()
        .find(is_it)
        .with_context(|| format!("no {kind} of the release on this cluster"))
}
