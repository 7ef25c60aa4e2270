/*!
`node-agent run`: starts the services and tasks, and runs them until a signal or the first one ends.
*/

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use csi_proto::csi::identity_server::IdentityServer;
use csi_proto::csi::node_server::NodeServer;
use csi_proto::registration::registration_server::RegistrationServer;
use futures::TryStreamExt;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stoppablecontainer_api::names::CSI_DRIVER;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::agent::Agent;
use crate::args;
use crate::csi::{Connection, IdentityService, NodeService, RegistrationService, SOCKET};
use crate::metrics;
use crate::sync::{measure, orphans, restore, watch};

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) fn run(args: &args::Run) -> Result<()> {
    in_runtime(serve(args))
}

/// Runs work that uses the API server to its end.
pub(crate) fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("TLS was set up twice"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(work);
    // Waits of wrappers end with their connections; blocking work under way is short and safe to
    // lose.
    runtime.shutdown_background();
    result
}

async fn serve(args: &args::Run) -> Result<()> {
    raise_descriptor_limit();
    let agent = Agent::open(args).await?;
    let (filesystems, plugin) = (&agent.filesystems, &agent.plugin);
    restore::restore(filesystems)?;

    let stop = CancellationToken::new();
    let csi = listen(&agent.base, SOCKET)?;
    let registration = listen(&agent.registry, &format!("{CSI_DRIVER}-reg.sock"))?;
    let csi = Server::builder()
        .add_service(IdentityServer::new(IdentityService {
            plugin: Arc::clone(plugin),
            filesystems: Arc::clone(filesystems),
        }))
        .add_service(NodeServer::new(NodeService {
            plugin: Arc::clone(plugin),
            filesystems: Arc::clone(filesystems),
        }))
        .serve_with_incoming_shutdown(UnixListenerStream::new(csi), stop.clone().cancelled_owned());
    let registration = Server::builder()
        .add_service(RegistrationServer::new(RegistrationService {
            plugin: Arc::clone(plugin),
            endpoint: agent.directory.join(SOCKET),
        }))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(registration).map_ok(Connection::new),
            stop.clone().cancelled_owned(),
        );
    let metrics = metrics::serve(
        Arc::clone(filesystems),
        Arc::clone(&agent.orphans),
        agent.metrics.clone(),
        args.metrics_address,
    );
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    tracing::info!(
        node = args.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    tokio::select! {
        result = csi => result.context("serve CSI")?,
        result = registration => result.context("serve the registration")?,
        result = watch::follow(Arc::clone(filesystems)) => result?,
        result = metrics => result?,
        () = measure::follow(Arc::clone(filesystems)) => {}
        () = orphans::follow(Arc::clone(filesystems), Arc::clone(&agent.orphans)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tracing::info!("shutting down");
    Ok(())
}

/// Every published volume has a socket, every running consumer some descriptors, and containerd 2
/// starts containers with a soft limit of 1024 (its unit sets no `LimitNOFILE`, and systemd's soft
/// default is that).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?limit, "cannot raise the limit of open files");
    }
}

/// Listens on a socket of this name, replacing what is there.
fn listen(directory: &OwnedFd, name: &str) -> Result<UnixListener> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e).with_context(|| format!("remove the old {name}")),
    }
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
        .with_context(|| format!("bind {name}"))
}
