/*!
Other people's admission webhooks, for real: a server with the stand-ins of the crate `injectors` in
the test's namespace, and configurations that the API server calls before or after ours. It calls
them in the order of their names.

A configuration is for the test's namespace alone, is owned by it, and goes with it: one that a
killed test leaves behind does no harm.
*/

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::namespace::{Namespace, PATIENCE, patience};

/// Name of the server, its Service and its certificate.
const NAME: &str = "injectors";
const IMAGE: &str = "test/injectors:1";
/// The annotation that the stand-in `marker` sets.
const MARK: &str = "injectors.test/called";

/// Whose turn it is, ours or theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The API server calls it before our webhook.
    Before,
    /// The API server calls it after our webhook.
    After,
}

/// One webhook of a configuration.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Stand-in, as its path: `vault`, or `kyverno/2000` for one that takes so many milliseconds.
    pub injector: String,
    /// CEL expression over `object`: the pods that it is for.
    pub pods: String,
    /// Other fields of the webhook, merged over the defaults: called once, `failurePolicy: Fail`.
    pub settings: Value,
}

/// The server of a test.
pub struct Injectors<'a> {
    namespace: &'a Namespace,
    ca_bundle: ByteString,
}

// === impl Order ===

impl Order {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Before, Self::After];

    /// `before` or `after`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Before => "aaa",
            Self::After => "zzz",
        }
    }
}

// === impl Hook ===

impl Hook {
    /// A webhook for the pods that `pods` says.
    pub fn new(injector: &str, pods: &str) -> Self {
        Self {
            injector: injector.to_owned(),
            pods: pods.to_owned(),
            settings: json!({}),
        }
    }

    /// Sets other fields of the webhook.
    #[must_use]
    pub fn with(self, settings: Value) -> Self {
        Self { settings, ..self }
    }
}

// === impl Injectors ===

impl<'a> Injectors<'a> {
    /// Makes certificate, Service and server, and waits until it is Ready.
    pub async fn start(namespace: &'a Namespace) -> Result<Self> {
        let host = format!("{NAME}.{}.svc", namespace.name);
        let certified = rcgen::generate_simple_self_signed([host])?;
        let certificate = certified.cert.pem();
        namespace
            .create_json::<Secret>(json!({
                "metadata": {"name": NAME}, "type": "kubernetes.io/tls",
                "stringData": {"tls.crt": certificate, "tls.key": certified.signing_key.serialize_pem()},
            }))
            .await?;
        namespace
            .create_json::<Service>(json!({
                "metadata": {"name": NAME},
                "spec": {"selector": {"app": NAME}, "ports": [{"port": 443, "targetPort": 8443}]},
            }))
            .await?;
        let injectors = Self {
            namespace,
            ca_bundle: ByteString(certificate.into_bytes()),
        };
        injectors.come().await?;
        Ok(injectors)
    }

    /// Starts the server.
    pub async fn come(&self) -> Result<()> {
        self.namespace
            .create_json::<Pod>(json!({
                "metadata": {"name": NAME, "labels": {"app": NAME}},
                "spec": {
                    "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "server", "image": IMAGE, "args": ["webhook"],
                        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                    }],
                    "volumes": [{"name": "tls", "secret": {"secretName": NAME}}],
                },
            }))
            .await?;
        self.namespace.pod_ready(NAME).await.map(drop)
    }

    /// Ends the server; the configurations stay.
    pub async fn leave(&self) -> Result<()> {
        self.namespace.delete::<Pod>(NAME).await
    }

    /// What the server said.
    pub async fn log(&self) -> Result<String> {
        Ok(self
            .namespace
            .api::<Pod>()
            .logs(NAME, &kube::api::LogParams::default())
            .await?)
    }

    /// Makes a configuration with these webhooks, and waits until the API server uses it.
    pub async fn register(&self, order: Order, hooks: &[Hook]) -> Result<()> {
        let probe = format!("{}-in-use", order.prefix());
        let marker = Hook::new("marker", &format!("object.metadata.name == '{probe}'"));
        let hooks: Vec<Value> = hooks
            .iter()
            .chain([&marker])
            .enumerate()
            .map(|(at, hook)| self.webhook(at, hook))
            .collect();
        let namespaces = self.namespace.cluster_api::<NamespaceObject>();
        let owner = namespaces.get(&self.namespace.name).await?;
        let name = format!("{}-{}", order.prefix(), self.namespace.name);
        self.check_order(order, &name).await?;
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Namespace", "name": owner.name_any(), "uid": owner.uid(),
                }],
            },
            "webhooks": hooks,
        }))?;
        self.namespace
            .cluster_api()
            .create(&PostParams::default(), &configuration)
            .await?;
        self.until_used(&probe).await
    }

    /// Takes a configuration away.
    pub async fn unregister(&self, order: Order) -> Result<()> {
        let configurations = self.namespace.cluster_api::<MutatingWebhookConfiguration>();
        let name = format!("{}-{}", order.prefix(), self.namespace.name);
        configurations.delete(&name, &DeleteParams::default()).await?;
        Ok(())
    }

    fn webhook(&self, at: usize, hook: &Hook) -> Value {
        let name = hook.injector.replace('/', "-");
        let mut webhook = json!({
            "name": format!("{name}-{at}.injectors.test"),
            "clientConfig": {
                "caBundle": self.ca_bundle,
                "service": {"name": NAME, "namespace": self.namespace.name, "path": format!("/{}", hook.injector)},
            },
            "failurePolicy": "Fail", "reinvocationPolicy": "Never", "sideEffects": "None",
            "timeoutSeconds": 10, "admissionReviewVersions": ["v1"],
            "rules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            }],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace.name}},
            "matchConditions": [{"name": "pods", "expression": hook.pods}],
        });
        json_patch::merge(&mut webhook, &hook.settings);
        webhook
    }

    /// A test that means to be before or after our webhook must be.
    async fn check_order(&self, order: Order, name: &str) -> Result<()> {
        let params = ListParams::default().labels("app.kubernetes.io/name=stoppablecontainer");
        let configurations = self.namespace.cluster_api::<MutatingWebhookConfiguration>();
        let ours = configurations.list(&params).await?.items;
        let ours = ours
            .first()
            .context("no MutatingWebhookConfiguration of StoppableContainer on this cluster")?;
        ensure!(
            (name < ours.name_any().as_str()) == (order == Order::Before),
            "{name} is not {} {}",
            order.name(),
            ours.name_any()
        );
        Ok(())
    }

    /// Dry runs until the configuration's own mark is on a pod.
    async fn until_used(&self, probe: &str) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": probe}, "spec": {"containers": [{"name": "probe", "image": IMAGE}]},
        }))?;
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pods = self.namespace.api::<Pod>();
        let used = async {
            loop {
                let answer = pods.create(&params, &pod).await;
                if answer.is_ok_and(|pod| pod.annotations().contains_key(MARK)) {
                    return;
                }
            }
        };
        let timeout = tokio::time::timeout(patience(PATIENCE), used).await;
        timeout.with_context(|| format!("the API server does not use the configuration of {probe}"))
    }
}
