/*!
Puts the parts together and runs them until a signal or the first one fails.
*/

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use csi_proto::csi::identity_server::IdentityServer;
use csi_proto::csi::node_server::NodeServer;
use csi_proto::registration::registration_server::RegistrationServer;
use futures::TryStreamExt;
use kube::Client;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use stoppablecontainer_api::names::CSI_DRIVER;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::args;
use crate::csi::authority::Connection;
use crate::csi::identity::IdentityService;
use crate::csi::node::NodeService;
use crate::csi::registration::RegistrationService;
use crate::host::Host;
use crate::image::Cri;
use crate::instances::Instances;
use crate::space::Minimum;
use crate::volumes::Volumes;
use crate::{metrics, removal, serve, usage, watch, writeback};

/// Name of the plugin's socket.
pub(crate) const SOCKET: &str = "csi.sock";
/// Starts that are carried out at the same time. Each takes milliseconds, so this bounds what a burst costs.
const STARTS: usize = 8;

/// What all parts share.
pub(crate) struct Agent {
    pub(crate) node_name: String,
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) allowed_prefixes: Vec<PathBuf>,
    pub(crate) host: Arc<Host>,
    pub(crate) client: Client,
    pub(crate) cri: Cri,
    pub(crate) volumes: Volumes,
    pub(crate) instances: Instances,
    pub(crate) starts: Semaphore,
    pub(crate) minimum: Minimum,
    /// Held while a filesystem is measured: one at a time.
    pub(crate) measuring: Mutex<()>,
    registered: AtomicBool,
    synced: AtomicBool,
}

/// Directory of the plugin on the node.
pub(crate) fn plugin_directory(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join("plugins").join(CSI_DRIVER)
}

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) fn run(args: &args::Run) -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("TLS was set up twice"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(serve_node(args));
    // Waits of wrappers end with their connections; blocking work under way is short and safe to lose.
    runtime.shutdown_background();
    result
}

async fn serve_node(args: &args::Run) -> Result<()> {
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
    let client = Client::try_default()
        .await
        .context("configure access to the API server")?;
    let agent = Arc::new(Agent {
        node_name: args.node_name.clone(),
        kubelet_dir: args.kubelet_dir.clone(),
        allowed_prefixes: args.allowed_prefix.clone(),
        cri: Cri::new(&host, args.cri_socket.clone()),
        host,
        client,
        volumes,
        instances: Instances::default(),
        starts: Semaphore::new(STARTS),
        minimum: Minimum {
            bytes: args.minimum_free.clone(),
            inodes: args.minimum_free_inodes.clone(),
        },
        measuring: Mutex::default(),
        registered: AtomicBool::new(false),
        synced: AtomicBool::new(false),
    });
    restore(&agent)?;
    // It ends by itself; what it does not get done waits for the next start or the instance's deletion.
    tokio::spawn(removal::collect_volumes(Arc::clone(&agent)));

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
        result = watch::follow(Arc::clone(&agent)) => result?,
        result = metrics::serve(Arc::clone(&agent), args.metrics_address) => result?,
        () = usage::follow(Arc::clone(&agent)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tracing::info!("ending");
    Ok(())
}

/// Serves the volumes that an earlier agent published.
fn restore(agent: &Arc<Agent>) -> Result<()> {
    for (id, record) in agent.volumes.recorded()? {
        let Some(claim) = agent.volumes.claim(&id) else {
            continue;
        };
        let Some(record) = record else {
            if let Err(error) = claim.remove() {
                tracing::warn!(volume = id, "cannot remove the rest of a volume: {error:#}");
            }
            continue;
        };
        tracing::info!(pod = %record.pod, role = ?record.role, "serving a volume that was published before");
        match claim.create(&record) {
            Ok((_, listener)) => {
                let volume = claim.publish(record);
                writeback::watch(&agent.host, &volume);
                serve::spawn(Arc::clone(agent), volume, listener)?;
            }
            // The others must not suffer.
            Err(error) => tracing::error!(volume = id, pod = %record.pod, "cannot serve a volume: {error:#}"),
        }
    }
    Ok(())
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
    /// Whether data may be kept below a prefix: it is one of the allowed ones, or below one.
    pub(crate) fn allows(&self, prefix: &Path) -> bool {
        is_allowed(&self.allowed_prefixes, prefix)
    }

    /// Whether the kubelet knows the agent and the agent knows its instances.
    pub(crate) fn is_ready(&self) -> bool {
        self.registered.load(Ordering::Relaxed) && self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    pub(crate) fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }
}

fn is_allowed(allowed: &[PathBuf], prefix: &Path) -> bool {
    let plain = prefix
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    prefix.is_absolute() && plain && allowed.iter().any(|allowed| prefix.starts_with(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_prefixes() {
        let allowed = [
            PathBuf::from("/var/lib/stoppablecontainer"),
            PathBuf::from("/data/"),
        ];
        for good in [
            "/var/lib/stoppablecontainer",
            "/var/lib/stoppablecontainer/",
            "/data/a",
        ] {
            assert!(is_allowed(&allowed, Path::new(good)), "{good}");
        }
        for bad in [
            "/",
            "/var/lib",
            "/var/lib/stoppablecontainer2",
            "/data/../etc",
            "data",
            "",
            "/etc",
        ] {
            assert!(!is_allowed(&allowed, Path::new(bad)), "{bad:?}");
        }
    }
}
