//! The command line and the environment variables.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::node::space::Amount;

/// Node agent of StoppableContainer.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to log to standard error. `RUST_LOG` selects what is logged (default: info).
#[derive(Debug, clap::Args)]
struct Log {
    /// Format of log lines.
    #[arg(long, env = "LOG_FORMAT", default_value = "json", global = true)]
    log_format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text.
    Compact,
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
    /// Logs to standard error from here on.
    pub fn init_log(&self) {
        self.log.init();
    }
}

// === impl Log ===

impl Log {
    fn init(&self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Json => builder.json().flatten_event(true).init(),
            LogFormat::Compact => builder.compact().init(),
        }
    }
}
