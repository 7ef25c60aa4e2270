//! The wiring of the operator: which tasks run, and which wait for others.

use std::io;

use http_server::Server;
use metrics::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::liveness::Liveness;
use crate::metrics::{AdmissionMetrics, ControllerMetrics, register_certificate};
use crate::runtime::{Runtime, RuntimeError};
use crate::webhook::{Caches, Webhook};
use crate::{admin, reconcile};

/// Why the operator could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The API server cannot be reached.
    #[error("cannot reach the API server: outside of a cluster, KUBECONFIG must name a kubeconfig file")]
    Client(#[source] kube::Error),
    /// An address is taken.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    /// See [`RuntimeError`].
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Runs until the process is asked to end.
///
/// # Errors
/// See [`OperatorError`].
pub async fn run(config: Config) -> Result<(), OperatorError> {
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let client = apiserver::measured_client(&metrics)
        .await
        .map_err(OperatorError::Client)?;
    let mut runtime = Runtime::default();
    let readiness = runtime.readiness();

    let (changed, changes) = watch::channel(());
    let (watched, watching) = reconcile::watched(&client, changed);
    runtime.spawn_endless("caches", watching);
    let (caches, claims) = Caches::sharing(watched.caches(), changes);
    runtime.spawn_endless("claims", claims.run(client.clone()));
    let synced = readiness.wait_for("caches");
    let (shared, own) = (watched.filled(), caches.clone());
    runtime.spawn_endless("cache sync", async move {
        // In this order: a store wakes one of those that wait for it, and the leader waits, too.
        if shared.await && own.synced().await {
            synced.ready();
            std::future::pending::<()>().await;
        }
    });

    let keeper = webhook_certs::Keeper::new(client.clone(), config.certificates);
    let mut status = keeper.status();
    let resolver = keeper.resolver();
    register_certificate(&metrics, keeper.resolver());
    let trusted = readiness.wait_for("certificate");
    runtime.spawn_endless("certificates", keeper.run());
    runtime.spawn_endless("certificate readiness", async move {
        if status.wait_for(|status| status.is_ready()).await.is_ok() {
            trusted.ready();
            std::future::pending::<()>().await;
        }
    });

    let webhook = Webhook::new(config.settings, caches, AdmissionMetrics::new(&metrics))
        .with_dry_run(client.clone())
        .router();
    let server = Server::bind(config.webhook_address, resolver, webhook, config.drain);
    let server = server
        .await
        .map_err(|error| OperatorError::Listen(config.webhook_address, error))?;
    runtime.spawn("webhook", server.run(runtime.shutdown()));

    let liveness = Liveness::default();
    runtime.spawn(
        "controllers",
        reconcile::run(
            client,
            config.reconcile,
            watched,
            liveness.clone(),
            ControllerMetrics::new(&metrics),
            runtime.shutdown(),
        ),
    );

    // Probes are answered to the end, so the admin server is not among the tasks that are waited
    // for.
    let admin = admin::router(readiness, metrics, liveness, runtime.shutdown());
    let admin = Server::bind_plain(config.admin_address, admin)
        .await
        .map_err(|error| OperatorError::Listen(config.admin_address, error))?;
    tokio::select! {
        ended = runtime.run() => Ok(ended?),
        _ = admin.run(CancellationToken::new()) => Err(RuntimeError::Ended("admin server").into()),
    }
}
