//! The API server: what the load needs there, and which webhook is called in which namespace.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::ClusterResourceScope;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use webhook_fixtures::{consumer_of, typical_spec};

/// Namespace of the operator.
const SYSTEM: &str = "stoppablecontainer-system";
/// The operator's user, which alone may create consumer pods.
pub(crate) const CONTROLLER: &str =
    "system:serviceaccount:stoppablecontainer-system:stoppablecontainer-controller";
/// A name in the certificate of its webhook.
pub(crate) const SERVICE: &str = "stoppablecontainer-webhook.stoppablecontainer-system.svc";
/// Name of its webhook configurations.
const CONFIGURATION: &str = "stoppablecontainer";
/// Name of the reference's webhook configurations.
const REFERENCE: &str = "reference.example.org";
/// Namespace in which the product's webhook is called.
pub(crate) const OURS: &str = "bench-product";
/// Creations under way at the same time while the load is prepared.
const CONCURRENCY: usize = 32;

/// What the API server does with a pod. Each variant has a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Variant {
    /// It calls no webhook.
    None,
    /// It calls the reference, which changes nothing: once to mutate, once to validate.
    Reference,
    /// It calls the product's webhook, which rewrites the pod and validates it.
    Product,
}

/// Clients of the API server.
pub(crate) struct Cluster {
    pub(crate) admin: Client,
    pub(crate) controller: Client,
}

// === impl Variant ===

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Reference, Self::Product];

    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::None => "bench-none",
            Self::Reference => "bench-reference",
            Self::Product => OURS,
        }
    }

    /// Whether a created pod was rewritten exactly if this variant rewrites.
    pub(crate) fn check(self, pod: &Pod) -> Result<()> {
        let containers = pod.spec.as_ref().map(|spec| &spec.containers);
        let image = containers.and_then(|containers| containers[0].image.as_deref());
        let rewritten = image != typical_spec()["containers"][0]["image"].as_str();
        ensure!(
            rewritten == (self == Self::Product),
            "{self:?}: the image is {image:?}"
        );
        Ok(())
    }
}

// === impl Cluster ===

impl Cluster {
    pub(crate) async fn connect(admin: &Path, controller: &Path) -> Result<Self> {
        Ok(Self {
            admin: client(admin).await?,
            controller: client(controller).await?,
        })
    }

    /// Holds the operator's lease for longer than the benchmark: the operator serves its webhook,
    /// and its controllers do not act on the pods of the load.
    pub(crate) async fn keep_from_leading(&self) -> Result<()> {
        let lease = json!({
            "metadata": { "name": "stoppablecontainer-controller" },
            "spec": {
                "holderIdentity": "the-load-of-the-benchmark", "leaseDurationSeconds": 86_400,
                "acquireTime": format!("{:.6}", Timestamp::now()), "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let api: Api<Lease> = Api::namespaced(self.admin.clone(), SYSTEM);
        create(&api, lease).await
    }

    /// Keeps the product's webhook out of the namespaces of the other variants.
    pub(crate) async fn limit_webhook(&self) -> Result<()> {
        let only = json!({ "matchLabels": { "kubernetes.io/metadata.name": OURS } });
        limit(
            &Api::<MutatingWebhookConfiguration>::all(self.admin.clone()),
            &only,
        )
        .await?;
        limit(
            &Api::<ValidatingWebhookConfiguration>::all(self.admin.clone()),
            &only,
        )
        .await
    }

    /// Lets the API server call the reference.
    pub(crate) async fn configure_reference(&self, address: SocketAddr, certificate: &Path) -> Result<()> {
        let authority =
            std::fs::read(certificate).with_context(|| format!("reading {}", certificate.display()))?;
        let configuration = json!({
            "metadata": { "name": REFERENCE },
            "webhooks": [{
                "name": REFERENCE, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Fail", "timeoutSeconds": 3,
                "clientConfig": {
                    "url": format!("https://localhost:{}/allow", address.port()),
                    "caBundle": ByteString(authority),
                },
                "namespaceSelector": {
                    "matchLabels": { "kubernetes.io/metadata.name": Variant::Reference.namespace() },
                },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                }],
            }],
        });
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.admin.clone());
        create(&mutating, configuration.clone()).await?;
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.admin.clone());
        create(&validating, configuration).await
    }

    /// Creates the namespaces and the instances, and returns the pods that can be created in every
    /// namespace. No controller manager creates the service accounts.
    pub(crate) async fn prepare(&self, count: usize) -> Result<Vec<Value>> {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        for variant in Variant::ALL {
            let namespace = variant.namespace();
            create(&namespaces, json!({ "metadata": { "name": namespace } })).await?;
            let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), namespace);
            create(&accounts, json!({ "metadata": { "name": "default" } })).await?;
        }
        let pods = stream::iter(0..count).map(|index| self.instance(index));
        pods.buffered(CONCURRENCY).try_collect().await
    }

    /// Creates an instance whose filesystem is ready, and returns its consumer.
    async fn instance(&self, index: usize) -> Result<Value> {
        let name = format!("bench-{index}");
        let (mut instance, mut pod) = consumer_of(&typical_spec());
        let status = instance["status"].take();
        instance["metadata"] = json!({ "name": name });
        instance["spec"]["stoppableContainerName"] = json!(name);
        let resource = ApiResource {
            group: "stoppablecontainer.xtlsoft.top".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "stoppablecontainer.xtlsoft.top/v1alpha1".to_owned(),
            kind: "StoppableContainerInstance".to_owned(),
            plural: "stoppablecontainerinstances".to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.admin.clone(), OURS, &resource);
        let object = serde_json::from_value(instance)?;
        let created = api.create(&PostParams::default(), &object).await;
        let created = created.with_context(|| format!("creating instance {name}"))?;
        let patch = Patch::Merge(json!({ "status": status }));
        let reported = api.patch_status(&name, &PatchParams::default(), &patch).await;
        reported.with_context(|| format!("the status of instance {name}"))?;
        let metadata = &mut pod["metadata"];
        metadata["name"] = json!(name);
        metadata["labels"]["stoppablecontainer.xtlsoft.top/instance"] = json!(name);
        metadata["ownerReferences"][0]["name"] = json!(name);
        metadata["ownerReferences"][0]["uid"] = json!(created.metadata.uid);
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove("namespace");
        }
        Ok(pod)
    }

    /// Waits until the API server calls the webhooks of every variant, and the operator knows the
    /// last instance.
    pub(crate) async fn settle(&self, pods: &[Value], limit: Duration) -> Result<()> {
        let last = pods.last().context("no pods")?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let deadline = Instant::now() + limit;
        for variant in Variant::ALL {
            let api: Api<Pod> = Api::namespaced(self.controller.clone(), variant.namespace());
            let pod: Pod = serde_json::from_value(last.clone())?;
            loop {
                let created = api.create(&dry, &pod).await.map_err(anyhow::Error::from);
                match created.and_then(|pod| variant.check(&pod)) {
                    Ok(()) => break,
                    Err(error) => ensure!(Instant::now() < deadline, "{variant:?} is not called: {error:#}"),
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// The authority of the product's webhook, as PEM.
    pub(crate) async fn authority(&self) -> Result<Vec<u8>> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.admin.clone());
        let configuration = api.get(CONFIGURATION).await?;
        let webhooks = configuration.webhooks.unwrap_or_default();
        let bundle = webhooks
            .into_iter()
            .find_map(|webhook| webhook.client_config.ca_bundle);
        Ok(bundle.context("the operator has not published its caBundle")?.0)
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).context("an object of the load")?;
    let created = api.create(&PostParams::default(), &object).await;
    created.map(drop).context("creating an object of the load")
}

async fn limit<K>(api: &Api<K>, selector: &Value) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + Resource<DynamicType = (), Scope = ClusterResourceScope>,
{
    // By index: a merge patch would replace the list.
    let replace = json!([{ "op": "replace", "path": "/webhooks/0/namespaceSelector", "value": selector }]);
    let patch = Patch::Json::<()>(serde_json::from_value(replace)?);
    let patched = api.patch(CONFIGURATION, &PatchParams::default(), &patch).await;
    patched.map(drop).context("limiting the product's webhook")
}

async fn client(path: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("making a client")
}
