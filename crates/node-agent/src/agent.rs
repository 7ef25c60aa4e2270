/*!
Puts the parts together and runs them until a signal or the first one fails.
*/

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use csi_proto::csi::identity_server::IdentityServer;
use csi_proto::csi::node_server::NodeServer;
use csi_proto::registration::registration_server::RegistrationServer;
use futures::TryStreamExt;
use kube::Client;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stoppablecontainer_api::names::CSI_DRIVER;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::args;
use crate::csi::http2_authority::Connection;
use crate::csi::identity::IdentityService;
use crate::csi::node::NodeService;
use crate::csi::registration::RegistrationService;
use crate::filesystem::usage;
use crate::instance::state::Instances;
use crate::metrics;
use crate::node::cri::Cri;
use crate::node::disks::Disks;
use crate::node::host::Host;
use crate::node::space::Minimum;
use crate::sync::orphans::{self, Orphan};
use crate::sync::restore;
use crate::volumes::Volumes;

/// Name of the plugin's socket.
pub(crate) const SOCKET: &str = "csi.sock";

/// What all parts share.
pub(crate) struct Agent {
    pub(crate) node_name: String,
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) disks: Disks,
    pub(crate) host: Arc<Host>,
    pub(crate) client: Client,
    pub(crate) cri: Cri,
    pub(crate) volumes: Volumes,
    pub(crate) instances: Instances,
    pub(crate) minimum: Minimum,
    /// Held while a filesystem is measured: one at a time.
    pub(crate) measuring: AsyncMutex<()>,
    registered: AtomicBool,
    synced: watch::Sender<bool>,
    orphans: Mutex<Vec<Orphan>>,
}

/// Directory of the plugin on the node.
pub(crate) fn plugin_directory(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join("plugins").join(CSI_DRIVER)
}

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) fn run(args: &args::Run) -> Result<()> {
    in_runtime(serve_node(args))
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
    // Waits of wrappers end with their connections; blocking work under way is short and safe to lose.
    runtime.shutdown_background();
    result
}

async fn serve_node(args: &args::Run) -> Result<()> {
    raise_descriptor_limit();
    let host = Arc::new(Host::open().context("reach the node")?);
    let directory = plugin_directory(&args.kubelet_dir);
    let base = host
        .create_directory(&directory)
        .with_context(|| format!("make {}", directory.display()))?;
    let registry = host
        .create_directory(&args.kubelet_dir.join("plugins_registry"))
        .context("make plugins_registry")?;
    let volumes = Volumes::open(base.try_clone()?)?;
    volumes.install_wrapper(&args.wrapper)?;
    let client = apiserver::client()
        .await
        .context("configure access to the API server")?;
    let agent = Arc::new(Agent {
        node_name: args.node_name.clone(),
        kubelet_dir: args.kubelet_dir.clone(),
        disks: Disks::new(&args.allowed_prefix),
        cri: Cri::new(&host, args.cri_socket.clone()),
        host,
        client,
        volumes,
        instances: Instances::default(),
        minimum: Minimum {
            bytes: args.minimum_free.clone(),
            inodes: args.minimum_free_inodes.clone(),
        },
        measuring: AsyncMutex::default(),
        registered: AtomicBool::new(false),
        synced: watch::Sender::new(false),
        orphans: Mutex::default(),
    });
    restore::restore(&agent)?;

    let stop = CancellationToken::new();
    let csi = listen(&base, SOCKET)?;
    let registration = listen(&registry, &format!("{CSI_DRIVER}-reg.sock"))?;
    let csi = Server::builder()
        .add_service(IdentityServer::new(IdentityService(Arc::clone(&agent))))
        .add_service(NodeServer::new(NodeService(Arc::clone(&agent))))
        .serve_with_incoming_shutdown(UnixListenerStream::new(csi), stop.clone().cancelled_owned());
    let endpoint = directory.join(SOCKET);
    let service = RegistrationService {
        agent: Arc::clone(&agent),
        endpoint,
    };
    let registration = Server::builder()
        .add_service(RegistrationServer::new(service))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(registration).map_ok(Connection::new),
            stop.clone().cancelled_owned(),
        );
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    tracing::info!(
        node = agent.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    tokio::select! {
        result = csi => result.context("serve CSI")?,
        result = registration => result.context("serve the registration")?,
        result = crate::sync::watch::follow(Arc::clone(&agent)) => result?,
        result = metrics::serve(Arc::clone(&agent), args.metrics_address) => result?,
        () = usage::follow(Arc::clone(&agent)) => {}
        () = orphans::follow(Arc::clone(&agent)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tracing::info!("ending");
    Ok(())
}

/// Every published volume has a socket, every running consumer some descriptors, and containerd 2 starts containers with a
/// soft limit of 1024 (its unit sets no `LimitNOFILE`, and systemd's soft default is that).
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

// === impl Agent ===

impl Agent {
    /// Whether the kubelet knows the agent and the agent knows its instances.
    pub(crate) fn is_ready(&self) -> bool {
        self.registered.load(Ordering::Relaxed) && self.is_synced()
    }

    pub(crate) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Whether the agent knows its instances.
    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) fn set_synced(&self) {
        self.synced.send_replace(true);
    }

    /// Waits until it knows its instances.
    pub(crate) async fn synced(&self) {
        // The sender is the agent's own.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// How many kept filesystems below `prefix` belong to no instance, as last looked.
    pub(crate) fn orphans_on(&self, prefix: &Path) -> usize {
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.iter().filter(|orphan| orphan.prefix == prefix).count()
    }

    pub(crate) fn set_orphans(&self, found: Vec<Orphan>) {
        *self.orphans.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
