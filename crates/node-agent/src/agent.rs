/*!
The agent: the parts that it is made of.
*/

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ::metrics::Metrics;
use anyhow::{Context, Result};

use crate::args;
use crate::counters::Counters;
use crate::csi::{Plugin, plugin_directory};
use crate::filesystem::Filesystems;
use crate::node::{Cri, Disks, Host, Minimum, Node};
use crate::sync::orphans::FoundOrphans;
use crate::volumes::Volumes;

/// The parts that tasks and services share, and the directories of the node that its sockets are
/// in.
pub(crate) struct Agent {
    pub(crate) filesystems: Arc<Filesystems>,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) orphans: Arc<FoundOrphans>,
    pub(crate) metrics: Metrics,
    /// The plugin's directory on the node.
    pub(crate) directory: PathBuf,
    pub(crate) base: OwnedFd,
    /// The kubelet's directory of registration sockets.
    pub(crate) registry: OwnedFd,
}

// === impl Agent ===

impl Agent {
    /// Opens the node, its directories and the connection to the API server.
    pub(crate) async fn open(args: &args::Run) -> Result<Self> {
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
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let client = apiserver::measured_client(&metrics)
            .await
            .context("configure access to the API server")?;
        let node = Node {
            name: args.node_name.clone(),
            cri: Cri::new(&host, args.cri_socket.clone()),
            disks: Disks::new(&args.allowed_prefix),
            minimum_free: Minimum {
                bytes: args.minimum_free.clone(),
                inodes: args.minimum_free_inodes.clone(),
            },
            host,
        };
        Ok(Self {
            filesystems: Arc::new(Filesystems::new(node, client, volumes, Counters::new(&metrics))),
            plugin: Arc::new(Plugin::new(args.kubelet_dir.clone())),
            orphans: Arc::default(),
            metrics,
            directory,
            base,
            registry,
        })
    }
}
