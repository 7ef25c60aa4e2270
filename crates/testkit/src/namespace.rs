/*!
A namespace per test, made with a random name and deleted afterwards. When the test fails its
objects, events and logs are printed first, and it stays if `E2E_KEEP` is set.
*/

use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use futures::{FutureExt, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, ServiceAccount};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::AuthInfo;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::kubectl::{Output, kubectl};
use crate::{notes, turns};

/// How long a test waits for something that should take seconds. Generous: a loaded two-core
/// machine is slow, and a wait that is met costs nothing.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// How long a whole test may take, from the moment that it has its turn. Without a limit, one that
/// waits for ever takes the time of all the others, and its own objects are never printed.
const LONGEST: Duration = Duration::from_mins(12);

/// The variable with a factor for time limits, on clusters with slow nodes: 1 if it is not set.
const SLOWNESS: &str = "E2E_SLOWNESS";

/// The limit for a wait that takes less than `limit` on a cluster of ordinary speed.
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var(SLOWNESS)
        .ok()
        .and_then(|factor| factor.parse().ok());
    limit * factor.unwrap_or(1)
}

/// One test's namespace.
pub struct Namespace {
    /// Client of the cluster.
    pub client: Client,
    /// Its name.
    pub name: String,
}

/// Proof that no other test of this process runs.
pub struct Exclusive(());

/// A client of the cluster that `KUBECONFIG` names.
pub async fn client() -> Result<Client> {
    if std::env::var_os("KUBECONFIG").is_none() {
        bail!(
            "KUBECONFIG is not set: `cargo xtask test` sets it, or name a cluster with StoppableContainer installed"
        );
    }
    Client::try_default()
        .await
        .context("KUBECONFIG does not name a usable cluster")
}

/// A client of the same cluster that has nothing but a token.
pub async fn client_with_token(token: &str) -> Result<Client> {
    let mut config = Config::infer()
        .await
        .context("KUBECONFIG does not name a usable cluster")?;
    config.auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    };
    Ok(Client::try_from(config)?)
}

/// A client of the same cluster that acts for another user. Policies that let that user through let
/// it through as well.
pub async fn client_as(user: &str) -> Result<Client> {
    let mut config = Config::infer()
        .await
        .context("KUBECONFIG does not name a usable cluster")?;
    config.auth_info.impersonate = Some(user.to_owned());
    Ok(Client::try_from(config)?)
}

/// Runs a test in a namespace of its own, beside others.
///
/// # Panics
/// When the test returns an error, after printing what is in the namespace.
pub async fn in_namespace<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Namespace) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let _turn = turns::share().await;
    run(name, test).await;
}

/// Runs a test that disturbs the whole cluster (reboot, agent gone, webhook down): no other test of
/// this process runs meanwhile.
///
/// # Panics
/// As [`in_namespace`].
pub async fn alone_in_namespace<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Namespace, Exclusive) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let _turn = turns::have().await;
    run(name, |namespace| test(namespace, Exclusive(()))).await;
}

async fn run<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Namespace) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let namespace = Namespace::create(name)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    let (client, full_name) = (namespace.client.clone(), namespace.name.clone());
    let begin = Instant::now();
    let test = async {
        let ended = tokio::time::timeout(patience(LONGEST), test(namespace)).await;
        ended.unwrap_or_else(|_| Err(anyhow!("the test did not end in {LONGEST:?}")))
    };
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    note_time(begin.elapsed());
    if !matches!(outcome, Ok(Ok(()))) {
        crate::dump::print(&full_name).await;
        if std::env::var_os("E2E_KEEP").is_some() {
            eprintln!("E2E_KEEP is set: namespace {full_name} stays");
            return raise(outcome);
        }
    }
    let api: Api<NamespaceObject> = Api::all(client);
    if let Err(error) = api.delete(&full_name, &DeleteParams::background()).await {
        eprintln!("namespace {full_name} could not be deleted: {error}");
    }
    raise(outcome);
}

/// Appends a line `SECONDS TEST` to the file that `E2E_TIMES` names, if it names one.
fn note_time(took: Duration) {
    // The test harness names the thread of a test.
    let thread = std::thread::current();
    let line = format!("{:.1} {}", took.as_secs_f64(), thread.name().unwrap_or("?"));
    notes::append(std::env::var_os("E2E_TIMES"), &line);
}

fn raise(outcome: std::thread::Result<Result<()>>) {
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

// === impl Namespace ===

impl Namespace {
    async fn create(test: &str) -> Result<Self> {
        let client = client().await?;
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos();
        let name = format!(
            "e2e-{test}-{:x}",
            (nanos ^ u128::from(std::process::id())) & 0xff_ffff_ffff
        );
        let object = NamespaceObject {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..NamespaceObject::default()
        };
        let namespaces: Api<NamespaceObject> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .context("cannot create the test's namespace")?;
        let namespace = Self { client, name };
        // Pods are refused until the controllers have made it.
        namespace
            .wait::<ServiceAccount>("default", "the service account exists", |_| true)
            .await?;
        Ok(namespace)
    }

    /// The API of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// The API of a kind that has no namespace.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// Creates an object.
    pub async fn create_object<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + serde::Serialize + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.api::<K>()
            .create(&PostParams::default(), object)
            .await
            .with_context(|| {
                format!(
                    "cannot create {} {}",
                    K::kind(&K::DynamicType::default()),
                    object.name_any()
                )
            })
    }

    /// Creates the object that a JSON value describes.
    pub async fn create_json<K>(&self, value: serde_json::Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + serde::Serialize + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.create_object(&serde_json::from_value::<K>(value)?).await
    }

    /// Merges `patch` into an object (JSON merge patch).
    pub async fn patch<K>(&self, name: &str, patch: serde_json::Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let params = kube::api::PatchParams::default();
        Ok(self
            .api::<K>()
            .patch(name, &params, &kube::api::Patch::Merge(patch))
            .await?)
    }

    /// Deletes an object and waits until it is gone.
    pub async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await?;
        self.wait_gone::<K>(name).await
    }

    /// Watches an object until it exists and `met` holds, and returns it as it is then.
    pub async fn wait<K>(&self, name: &str, what: &str, met: impl Fn(&K) -> bool) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        wait_in(self.api::<K>(), name, what, met).await
    }

    /// Watches until no object of that name is there.
    pub async fn wait_gone<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let watch = watcher::watch_object(self.api::<K>(), name);
        pin_mut!(watch);
        let gone = async {
            while let Some(event) = watch.next().await {
                // An error is a broken watch; the watcher starts it again.
                if let Ok(None) = event {
                    return Ok(());
                }
            }
            Err(anyhow!("the watch ended"))
        };
        tokio::time::timeout(patience(PATIENCE), gone)
            .await
            .map_err(|_| {
                anyhow!(
                    "{} {name} is still there after {PATIENCE:?}",
                    K::kind(&K::DynamicType::default())
                )
            })?
    }

    /// Runs `kubectl -n NAMESPACE ARGS`.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_with_input(args, "").await
    }

    /// Runs `kubectl -n NAMESPACE ARGS` with standard input, as for `apply -f -`.
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        kubectl(&[&["-n", &self.name], args].concat(), input).await
    }
}

/// Watches an object until it exists and `met` holds.
pub(crate) async fn wait_in<K>(api: Api<K>, name: &str, what: &str, met: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let watch = watcher::watch_object(api, name).default_backoff();
    pin_mut!(watch);
    let mut last = None;
    let waiting = async {
        while let Some(event) = watch.next().await {
            if let Ok(seen) = event {
                if let Some(object) = seen.as_ref().filter(|object| met(object)) {
                    return Some(object.clone());
                }
                last = seen;
            }
        }
        None
    };
    let met = tokio::time::timeout(patience(PATIENCE), waiting).await;
    match met {
        Ok(Some(object)) => Ok(object),
        _ => bail!(
            "{} {name}: waited {PATIENCE:?} until {what}; last seen: {last:#?}",
            K::kind(&K::DynamicType::default())
        ),
    }
}
