/*!
Access to the API server.

Every program of this project makes its client here, so that every call has a time limit of ours
(see [`TimeLimit`]): a connection that a firewall or a dead load balancer drops silently costs one
object one time-out, and nothing else.
*/

#![forbid(unsafe_code)]

mod calls;
mod resync;
mod time_limit;
mod watch;

use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use metrics::Metrics;
use tower::util::option_layer;

use calls::{CallMetrics, CountCallsLayer};

pub use resync::resynced;
pub use time_limit::{TimeLimit, TimeLimitLayer, TimedOut};
pub use watch::{follow, mirror, watch, watch_trimmed};

/// How long a call may take, retries included. An API server ends requests itself after 60 s
/// (`--request-timeout`); what takes longer than this is tried again later instead of being waited
/// for.
pub const TIME_LIMIT: Duration = Duration::from_secs(15);
/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the cluster that this process runs in, or else the one that the kubeconfig names.
///
/// # Errors
/// When neither is configured.
pub async fn client() -> Result<Client, kube::Error> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    client_of(config, TIME_LIMIT)
}

/// The same with metrics of its calls.
///
/// # Errors
/// When neither is configured.
pub async fn measured_client(metrics: &Metrics) -> Result<Client, kube::Error> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    build(config, TIME_LIMIT, Some(CallMetrics::new(metrics)))
}

/// A client for this cluster whose calls take `limit` at most.
///
/// # Errors
/// When TLS or the credentials cannot be set up.
pub fn client_of(config: Config, limit: Duration) -> Result<Client, kube::Error> {
    build(config, limit, None)
}

fn build(mut config: Config, limit: Duration, calls: Option<CallMetrics>) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&TimeLimitLayer::new(limit))
        .with_layer(&option_layer(calls.map(CountCallsLayer)))
        .build())
}
