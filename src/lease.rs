/*!
Leadership by a Lease: at most one process does the leader's work.

Three rules make it safe. Every write carries the resourceVersion that it was decided on, so of two
candidates one wins. A candidate takes a lease only after it saw, on its own clock, no renewal for
the whole duration: clocks of two machines are never compared. And the holder counts from *before*
the request of its last successful renewal, and gives up well before any candidate can take over.

A stopped process is the one thing that no lease can rule out: a leader that was frozen for a minute
may send one request before it notices. The API server's own checks (UID and resourceVersion on
every write) are there for that.
*/

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use stoppablecontainer_api::names::FIELD_MANAGER_CONTROLLER;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Where the lease is and who asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Who we are. No two live processes may say the same; a pod's name will do, because a
    /// restarted container has lost its predecessor.
    pub identity: String,
    /// How long a holder that does not renew keeps others out. Whole seconds, at least three.
    pub duration: Duration,
}

/// A candidate for, or the holder of, a lease.
pub struct Lease {
    api: Api<LeaseObject>,
    options: LeaseOptions,
    /// The lease as we wrote it last, while we hold it.
    held: Option<Held>,
}

struct Held {
    object: LeaseObject,
    /// Taken before the request that renewed it.
    since: Instant,
}

/// What a candidate has seen of the present holder.
struct Seen {
    object: Option<LeaseObject>,
    /// When it may be taken; `None` while nothing has been seen.
    free_at: Option<Instant>,
}

// === impl LeaseOptions ===

impl LeaseOptions {
    /// The usual 15 s: a crashed leader is missed that long.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
        }
    }

    /// Time between renewals.
    fn renew_every(&self) -> Duration {
        self.duration / 5
    }

    /// How long a holder continues without a renewal: the rest of the duration is for requests on
    /// their way.
    fn give_up_after(&self) -> Duration {
        self.duration * 2 / 3
    }
}

// === impl Lease ===

impl Lease {
    /// A candidate. Nothing is sent before [`Lease::acquire`].
    pub fn new(client: Client, options: LeaseOptions) -> Self {
        let api = Api::namespaced(client, &options.namespace);
        Self {
            api,
            options,
            held: None,
        }
    }

    /// Who we are.
    pub fn identity(&self) -> &str {
        &self.options.identity
    }

    /// Returns once the lease is ours. Failures of the API server are waited out.
    pub async fn acquire(&mut self) {
        self.held = None;
        let mut events = Box::pin(watch_object(self.api.clone(), &self.options.name).default_backoff());
        let mut seen = Seen {
            object: None,
            free_at: None,
        };
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(object)) => self.look(&mut seen, object),
                    Some(Err(error)) => tracing::warn!(%error, "cannot watch the lease; retrying"),
                    None => events = Box::pin(watch_object(self.api.clone(), &self.options.name).default_backoff()),
                },
                () = sleep_until(seen.free_at.unwrap_or_else(Instant::now)), if seen.free_at.is_some() => {
                    let since = Instant::now();
                    match self.take(seen.object.as_ref()).await {
                        Ok(object) => {
                            self.held = Some(Held { object, since });
                            return;
                        }
                        Err(error) => {
                            // Another replica was faster, which the watch will show, or the API
                            // server has a problem.
                            tracing::debug!(%error, "lease not taken");
                            seen.free_at = Some(Instant::now() + self.options.renew_every());
                        }
                    }
                }
            }
        }
    }

    /// Renews the lease as long as it is ours, and returns when it no longer is. Without
    /// [`Lease::acquire`] before it returns at once.
    pub async fn renew_until_lost(&mut self) {
        while let Some(held) = self.held.take() {
            let next = held.since + self.options.renew_every();
            let end = held.since + self.options.give_up_after();
            // The lease is put back before every await, so that `release` finds it whenever this
            // future is dropped.
            self.held = Some(held);
            sleep_until(next).await;
            let renewed = timeout_at(end, self.renew()).await.ok().flatten();
            if renewed.is_none() {
                self.held = None;
                return;
            }
            self.held = renewed;
        }
    }

    /// Gives the lease back, if it is ours, so that the next holder need not wait. Bounded in time;
    /// a failure only makes others wait.
    pub async fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        let end = Instant::now() + self.options.renew_every();
        let mut object = held.object;
        if let Some(spec) = object.spec.as_mut() {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            // As client-go does: a replica that judges by the duration does not wait either.
            spec.lease_duration_seconds = Some(1);
        }
        let replaced = timeout_at(
            end,
            self.api.replace(&self.options.name, &Self::params(), &object),
        )
        .await;
        if !matches!(replaced, Ok(Ok(_))) {
            tracing::debug!("the lease was not released; it will expire");
        }
    }

    /// Tries until the lease is renewed (`Some`) or another replica holds it (`None`). The caller
    /// bounds the time.
    async fn renew(&self) -> Option<Held> {
        let mut object = self.held.as_ref()?.object.clone();
        loop {
            let since = Instant::now();
            let renewed = self.renewed(&object);
            match self
                .api
                .replace(&self.options.name, &Self::params(), &renewed)
                .await
            {
                Ok(object) => return Some(Held { object, since }),
                Err(kube::Error::Api(status)) if status.code == 404 => return None,
                // Another client wrote to it: a new holder, or a tool that sets an annotation.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    match self.api.get(&self.options.name).await {
                        Ok(found) if holder(&found) == Some(self.identity()) => {
                            object = found;
                            continue;
                        }
                        Ok(_) => return None,
                        Err(error) => tracing::warn!(%error, "cannot read the lease; retrying"),
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot renew the lease; retrying"),
            }
            sleep(self.options.renew_every() / 4).await;
        }
    }

    /// Takes note of what the watch shows. The time starts anew whenever the holder or its renewal
    /// changed.
    fn look(&self, seen: &mut Seen, object: Option<LeaseObject>) {
        let unheld = object
            .as_ref()
            .is_none_or(|o| holder(o).is_none_or(|h| h == self.identity()));
        let beat = |o: &Option<LeaseObject>| {
            o.as_ref()
                .and_then(|o| o.spec.clone())
                .map(|s| (s.holder_identity, s.renew_time))
        };
        let alive = seen.free_at.is_none() || beat(&seen.object) != beat(&object);
        if unheld {
            seen.free_at = Some(Instant::now());
        } else if alive {
            let seconds = object
                .as_ref()
                .and_then(|o| o.spec.as_ref()?.lease_duration_seconds);
            let duration = seconds
                .and_then(|s| u64::try_from(s).ok())
                .map_or(self.options.duration, Duration::from_secs);
            seen.free_at = Some(Instant::now() + duration);
        }
        seen.object = object;
    }

    async fn take(&self, found: Option<&LeaseObject>) -> Result<LeaseObject, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(found) = found else {
            let spec = LeaseSpec {
                lease_transitions: Some(0),
                acquire_time: Some(now),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta {
                name: Some(self.options.name.clone()),
                ..ObjectMeta::default()
            };
            let object = self.renewed(&LeaseObject {
                metadata,
                spec: Some(spec),
            });
            return self.api.create(&Self::params(), &object).await;
        };
        let mut object = self.renewed(found);
        if let Some(spec) = object
            .spec
            .as_mut()
            .filter(|_| holder(found) != Some(self.identity()))
        {
            spec.acquire_time = Some(now);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        self.api
            .replace(&self.options.name, &Self::params(), &object)
            .await
    }

    /// `object` as ours, renewed now. It keeps its resourceVersion, so replacing it fails if it
    /// changed.
    fn renewed(&self, object: &LeaseObject) -> LeaseObject {
        let mut object = object.clone();
        let spec = object.spec.get_or_insert_default();
        spec.holder_identity = Some(self.options.identity.clone());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        spec.lease_duration_seconds = i32::try_from(self.options.duration.as_secs()).ok();
        object
    }

    fn params() -> PostParams {
        PostParams {
            field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
            ..PostParams::default()
        }
    }
}

fn holder(object: &LeaseObject) -> Option<&str> {
    object
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}
