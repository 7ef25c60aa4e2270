/*!
Watches the Secret and the two webhook configurations, and puts right whatever is not as it must be:
the only part of this crate that talks to the API server.

Any number of replicas may do this at once, and the chart's job with them. Every write of the Secret
carries the resource version that was read, so of two only one succeeds and the other sees its
result.
*/

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::authority::AuthorityError;
use crate::leaf::{Leaf, LeafError};
use crate::lifetimes::Lifetimes;
use crate::material::{Material, Step};
use crate::publish::{self, Webhooks};
use crate::resolver::Resolver;
use crate::secret;
use crate::supplied::{self, SuppliedError};

/// How often the wall clock is looked at. A timer until the renewal would stand still while a
/// machine sleeps.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// Passes for one event at most; the rest is left to the next.
const PASSES: usize = 8;

/// Who wrote `caBundle`, in `managedFields`.
const FIELD_MANAGER: &str = "stoppablecontainer-webhook-certs";

/// Where things are and how long they live.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of Secret and Service.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the Service in front of the webhook.
    pub service: String,
    /// Name of the `MutatingWebhookConfiguration`.
    pub mutating: String,
    /// Name of the `ValidatingWebhookConfiguration`.
    pub validating: String,
    /// Who makes the certificates.
    pub source: Source,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
}

/// Who makes the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator, with these lifetimes; the Secret holds the authority.
    SelfManaged(Lifetimes),
    /// cert-manager or an administrator; the Secret holds the serving certificate (see
    /// [`crate::supplied`]).
    Supplied,
}

/// How far things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// There is a valid serving certificate.
    pub certificate: bool,
    /// Both configurations exist and trust the authority that signed it.
    pub published: bool,
}

/// Keeps authority, serving certificate and `caBundle` in order.
pub struct Keeper {
    client: Client,
    options: Options,
    resolver: Arc<Resolver>,
    status: watch::Sender<Status>,
}

/// What the watches have seen.
#[derive(Default)]
struct Seen {
    /// Whether `secret` says anything yet.
    secret_is_known: bool,
    secret: Option<Secret>,
    mutating: Option<MutatingWebhookConfiguration>,
    validating: Option<ValidatingWebhookConfiguration>,
}

/// What a reconciliation did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Everything is in order, or must be waited for.
    Nothing,
    /// Something was written: look again.
    Wrote,
}

enum Event {
    Secret(Option<Secret>),
    Mutating(Option<MutatingWebhookConfiguration>),
    Validating(Option<ValidatingWebhookConfiguration>),
    Failed(watcher::Error),
    Clock,
}

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("cannot write Secret {0}: {1}")]
    Secret(String, #[source] kube::Error),
    #[error(
        "Secret {0} does not exist: with --certificate-source=supplied the certificate must be created by cert-manager or by hand"
    )]
    NotSupplied(String),
    #[error("Secret {0} has no usable serving certificate: {1}")]
    Supplied(String, #[source] SuppliedError),
    #[error("cannot set caBundle of {0}: {1}")]
    Publish(String, #[source] kube::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

// === impl Keeper ===

impl Keeper {
    /// Nothing happens until [`Keeper::run`].
    pub fn new(client: Client, options: Options) -> Self {
        let resolver = Arc::new(Resolver::new(options.clock));
        Self {
            client,
            options,
            resolver,
            status: watch::Sender::default(),
        }
    }

    /// What a TLS server asks for its certificate.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.resolver.clone()
    }

    /// How far things are, to wait on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Keeps everything in order, for ever. What fails is logged and tried again: with the next
    /// event, or when the clock is looked at next.
    pub async fn run(self) {
        let mut events = self.events();
        let mut seen = Seen::default();
        while let Some(event) = events.next().await {
            match event {
                Event::Secret(secret) => {
                    seen.secret = secret;
                    seen.secret_is_known = true;
                }
                Event::Mutating(configuration) => seen.mutating = configuration,
                Event::Validating(configuration) => seen.validating = configuration,
                Event::Failed(error) => {
                    tracing::warn!(%error, "a watch for the webhook's certificates was interrupted; it starts again by itself");
                    continue;
                }
                Event::Clock => {}
            }
            // A reconciliation starts from what the last one wrote, without waiting for the watch.
            // A few do it: made, published, stepped.
            for _ in 0..PASSES {
                match self.pass(&mut seen).await {
                    Ok(Done::Nothing) => break,
                    Ok(Done::Wrote) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the webhook's certificates are not ready yet");
                        break;
                    }
                }
            }
        }
    }

    /// One look at everything, and at most one thing put right.
    async fn pass(&self, seen: &mut Seen) -> Result<Done, PassError> {
        if !seen.secret_is_known {
            return Ok(Done::Nothing);
        }
        match self.options.source {
            Source::SelfManaged(lifetimes) => self.pass_self_managed(seen, &lifetimes).await,
            Source::Supplied => self.pass_supplied(seen).await,
        }
    }

    async fn pass_self_managed(&self, seen: &mut Seen, lifetimes: &Lifetimes) -> Result<Done, PassError> {
        let now = (self.options.clock)();
        let material = match usable(seen.secret.as_ref(), now) {
            Ok(material) => material,
            Err(reason) => {
                let material = Material::generate(now, lifetimes)?;
                return self.store(seen, &material, &reason).await;
            }
        };
        self.renew_leaf(&material, now, lifetimes)?;
        if self.publish_everywhere(seen, &material.bundle()).await? == Done::Wrote {
            return Ok(Done::Wrote);
        }
        let published = self.report(seen);
        match published
            .then(|| material.step(now, lifetimes))
            .transpose()?
            .flatten()
        {
            None => Ok(Done::Nothing),
            Some(Step { material, reason }) => self.store(seen, &material, reason).await,
        }
    }

    async fn pass_supplied(&self, seen: &mut Seen) -> Result<Done, PassError> {
        let name = &self.options.secret;
        let secret = seen
            .secret
            .as_ref()
            .ok_or_else(|| PassError::NotSupplied(name.clone()))?;
        let supplied = supplied::read(secret).map_err(|error| PassError::Supplied(name.clone(), error))?;
        if self
            .resolver
            .leaf()
            .is_none_or(|leaf| leaf.key.cert != supplied.leaf.key.cert)
        {
            self.serve(supplied.leaf);
        }
        if let Some(bundle) = supplied.bundle
            && self.publish_everywhere(seen, &bundle).await? == Done::Wrote
        {
            return Ok(Done::Wrote);
        }
        self.report(seen);
        Ok(Done::Nothing)
    }

    /// Publishes the state to its receivers; whether both configurations have a caBundle.
    fn report(&self, seen: &Seen) -> bool {
        let published = seen.mutating.as_ref().is_some_and(publish::is_published)
            && seen.validating.as_ref().is_some_and(publish::is_published);
        let now = (self.options.clock)();
        let certificate = self
            .resolver
            .leaf()
            .is_some_and(|leaf| leaf.validity.contains(now));
        self.status.send_if_modified(|status| {
            let new = Status {
                certificate,
                published,
            };
            std::mem::replace(status, new) != new
        });
        published
    }

    /// Writes the Secret as it was read with other authorities. A conflict with another replica is
    /// not an error.
    async fn store(&self, seen: &mut Seen, material: &Material, reason: &str) -> Result<Done, PassError> {
        let Options {
            namespace,
            secret: name,
            ..
        } = &self.options;
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let secret = secret::write(seen.secret.as_ref(), name, namespace, material);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let result = match seen.secret {
            Some(_) => api.replace(name, &params, &secret).await,
            None => api.create(&params, &secret).await,
        };
        match result {
            Ok(stored) => {
                tracing::info!(secret = name, reason, "wrote the webhook's certificate authority");
                seen.secret = Some(stored);
                Ok(Done::Wrote)
            }
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                tracing::debug!(secret = name, "another replica changed the Secret first");
                Ok(Done::Nothing)
            }
            Err(error) => Err(PassError::Secret(name.clone(), error)),
        }
    }

    /// A new serving certificate when there is none, it is due, or another authority signs now.
    fn renew_leaf(
        &self,
        material: &Material,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<(), PassError> {
        let authority = &material.current;
        let is_good = |leaf: &Leaf| {
            !lifetimes.is_due(&leaf.validity, now) && leaf.issuer.as_ref() == Some(authority.certificate())
        };
        if !self.resolver.leaf().is_some_and(|leaf| is_good(&leaf)) {
            self.serve(Leaf::issue(
                authority,
                &self.options.dns_names(),
                now,
                lifetimes.leaf,
            )?);
        }
        Ok(())
    }

    fn serve(&self, leaf: Leaf) {
        let until = jiff::Timestamp::try_from(leaf.validity.not_after).unwrap_or_default();
        tracing::info!(%until, "serving with a new certificate");
        self.resolver.set(leaf);
    }

    async fn publish_everywhere(&self, seen: &mut Seen, bundle: &str) -> Result<Done, PassError> {
        let mutating = self.publish(&mut seen.mutating, bundle).await?;
        let validating = self.publish(&mut seen.validating, bundle).await?;
        Ok(if mutating == validating {
            mutating
        } else {
            Done::Wrote
        })
    }

    /// Makes a configuration trust the bundle, if it is there and does not.
    async fn publish<K>(&self, configuration: &mut Option<K>, bundle: &str) -> Result<Done, PassError>
    where
        K: Webhooks + Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let patch = configuration
            .as_ref()
            .and_then(|c| Some((c.name_any(), publish::patch(c, bundle)?)));
        let Some((name, patch)) = patch else {
            return Ok(Done::Nothing);
        };
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let kind = K::kind(&());
        let api = Api::<K>::all(self.client.clone());
        let patched = api.patch(&name, &params, &Patch::<K>::Json(patch)).await;
        *configuration = Some(patched.map_err(|error| PassError::Publish(format!("{kind} {name}"), error))?);
        tracing::info!(kind = &*kind, name, "set caBundle");
        Ok(Done::Wrote)
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let Options {
            namespace,
            secret,
            mutating,
            validating,
            ..
        } = &self.options;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let mut interval = tokio::time::interval(CLOCK_CHECK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let clock = stream::unfold(interval, |mut interval| async move {
            interval.tick().await;
            Some((Event::Clock, interval))
        });
        stream::select_all([
            watched(secrets, secret, Event::Secret),
            watched(Api::all(self.client.clone()), mutating, Event::Mutating),
            watched(Api::all(self.client.clone()), validating, Event::Validating),
            clock.boxed(),
        ])
        .boxed()
    }
}

/// The authorities in the Secret, or why there must be others.
fn usable(stored: Option<&Secret>, now: SystemTime) -> Result<Material, String> {
    let stored = stored.ok_or("it does not exist")?;
    let material = secret::read(stored).map_err(|error| format!("its contents are damaged ({error})"))?;
    // Not to wait for publication with this one: no client accepts an authority that is not valid
    // at present.
    if material.current.certificate().validity().contains(now) {
        Ok(material)
    } else {
        Err("its authority is not valid at this time".to_owned())
    }
}

/// One object by name, as events.
fn watched<K>(api: Api<K>, name: &str, event: fn(Option<K>) -> Event) -> BoxStream<'static, Event>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    watcher::watch_object(api, name)
        .default_backoff()
        .map(move |seen| seen.map_or_else(Event::Failed, event))
        .boxed()
}

// === impl Options ===

impl Options {
    /// The names by which API servers may reach the Service.
    pub fn dns_names(&self) -> Vec<String> {
        let Self {
            service, namespace, ..
        } = self;
        vec![
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
        ]
    }
}

// === impl Status ===

impl Status {
    /// Whether API servers can call the webhook.
    pub fn is_ready(self) -> bool {
        self.certificate && self.published
    }
}
