//! What can be said on the command line and in the environment.

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

/// How to log to standard error. What is logged is said by `RUST_LOG` (default: info).
#[derive(Debug, clap::Args)]
struct Log {
    /// Form of log lines.
    #[arg(long, env = "LOG_FORMAT", default_value = "json", global = true)]
    log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading.
    Compact,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve this node.
    Run(Run),
    /// Ask the agent of this container whether it works; for probes of the kubelet.
    Probe(Probe),
    /// List data on this node that belongs to no instance any more, or remove it.
    Orphans(Orphans),
}

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Name of the Node object.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// The kubelet's root directory on the node.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_dir: PathBuf,
    /// The container runtime's socket on the node. Without it the usual places are tried.
    #[arg(long)]
    pub(crate) cri_socket: Option<PathBuf>,
    /// Directories of the node below which data may be kept, with commas or given several times.
    #[arg(long, env = "ALLOWED_PREFIXES", value_delimiter = ',', default_value = stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX)]
    pub(crate) allowed_prefix: Vec<PathBuf>,
    /// The static exec-wrapper in the agent's own image.
    #[arg(long, default_value = "/exec-wrapper")]
    pub(crate) wrapper: PathBuf,
    /// Space that has to be free on the disk of a data directory for a new filesystem: 5%, or bytes such as 10Gi.
    #[arg(long, default_value = "5%")]
    pub(crate) minimum_free: Amount,
    /// Inodes that have to be free there: 5%, or a number.
    #[arg(long, default_value = "5%")]
    pub(crate) minimum_free_inodes: Amount,
    /// Where /metrics is served (TLS; for bearers of a token whose user may get /metrics).
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub(crate) metrics_address: SocketAddr,
}

/// What to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Probe {
    /// The kubelet's root directory on the node.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_dir: PathBuf,
    /// Succeed only if the kubelet knows the agent and the agent knows its instances.
    #[arg(long)]
    pub(crate) ready: bool,
}

/// What to look for, and what to do with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Orphans {
    /// Directories of the node below which data may be kept, with commas or given several times.
    #[arg(long, env = "ALLOWED_PREFIXES", value_delimiter = ',', default_value = stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX)]
    pub(crate) allowed_prefix: Vec<PathBuf>,
    /// Name of a directory to remove, as listed without this. May be given several times. The data cannot be had back.
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
