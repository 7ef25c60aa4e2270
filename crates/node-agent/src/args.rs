//! The command line and the environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use telemetry::LogOptions;

use crate::node::space::Amount;

/// Node agent of StoppableContainer.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve this node until SIGTERM or SIGINT.
    Run(Run),
    /// Check the agent in this container; for the kubelet's probes.
    Probe(Probe),
    /// List data on this node that no longer belongs to an instance, or remove it.
    Orphans(Orphans),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Name of the Node object.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// The kubelet's root directory on the node.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_dir: PathBuf,
    /// The container runtime's socket on the node. By default the agent asks the runtimes at the
    /// usual paths and uses the one that knows the container.
    #[arg(long)]
    pub(crate) cri_socket: Option<PathBuf>,
    /// Directories of the node for kept filesystems, separated by commas or given several times.
    #[arg(long, env = "ALLOWED_PREFIXES", value_delimiter = ',', default_value = stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX)]
    pub(crate) allowed_prefix: Vec<PathBuf>,
    /// Path of the static exec-wrapper in the agent's own image.
    #[arg(long, default_value = "/exec-wrapper")]
    pub(crate) wrapper: PathBuf,
    /// Minimum free space on the disk of a data directory for a new filesystem: a percentage (5%)
    /// or bytes (10Gi).
    #[arg(long, default_value = "5%")]
    pub(crate) minimum_free: Amount,
    /// Minimum free inodes on that disk for a new filesystem: a percentage (5%) or a number.
    #[arg(long, default_value = "5%")]
    pub(crate) minimum_free_inodes: Amount,
    /// Address of /metrics (TLS; requires a bearer token whose user may get /metrics).
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub(crate) metrics_address: SocketAddr,
}

/// Options of `probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Probe {
    /// The kubelet's root directory on the node.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_dir: PathBuf,
    /// Succeed only if the agent is registered with the kubelet and has listed its instances.
    #[arg(long)]
    pub(crate) ready: bool,
}

/// Options of `orphans`.
#[derive(Debug, clap::Args)]
pub(crate) struct Orphans {
    /// Directories of the node for kept filesystems, separated by commas or given several times.
    #[arg(long, env = "ALLOWED_PREFIXES", value_delimiter = ',', default_value = stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX)]
    pub(crate) allowed_prefix: Vec<PathBuf>,
    /// Name of a directory to remove, as `orphans` lists it. Can be given several times. The data
    /// cannot be restored.
    #[arg(long, value_name = "KEY")]
    pub(crate) remove: Vec<String>,
}

// === impl Args ===

impl Args {
    /// Whether the command serves the node until it is ended.
    pub fn serves(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}
