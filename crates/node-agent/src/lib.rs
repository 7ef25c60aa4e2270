/*!
The node agent: inline CSI plugin and mounter, one on every node.

The agent publishes the volume with the wrapper and a socket to provider and consumer pods, keeps
the data of kept filesystems, and moves consumers onto them. It reads pods and instances from the
API server, and facts about processes from the kernel. It may be killed at any time: running
consumers are not affected.

The modules are rooms with an order. A room uses those below it and never one above
(`cargo xtask lint` checks it):

| room | what |
|---|---|
| `args`, `run`, `probe`, `orphans`, `agent`, `metrics` | the commands, and what they put together |
| `csi` | the kubelet's calls, and which pods may have a volume |
| `sync` | tasks that no call begins |
| `wrapper` | conversations with exec-wrappers |
| `filesystem` | the data of an instance, and its status |
| `volumes` | published volumes |
| `node` | mount namespace, container runtime and disks of the node |
| `instance` | instances and pods of the API server, and the lock of an instance's data |
| `backoff`, `counters`, `rate_limit` | pauses, counted events, token buckets |
*/

#![forbid(unsafe_code)]

mod agent;
mod args;
mod backoff;
mod counters;
mod csi;
mod filesystem;
mod instance;
mod metrics;
mod node;
mod orphans;
mod probe;
mod rate_limit;
mod run;
mod sync;
mod volumes;
mod wrapper;

use anyhow::Result;

pub use crate::args::Args;
use crate::args::Command;

/// Parsers of what an image's author writes. The fuzz targets use them.
pub mod image_input {
    pub use crate::filesystem::users::{UserError, resolve as resolve_user};
    pub use crate::node::image_config::{ConfigError, facts as image_facts};
}

/// What the kubelet sends to a registration socket. Test programs that register use it.
pub mod registration_socket {
    pub use crate::csi::Connection;
}

/// Runs the command of the command line.
///
/// # Errors
/// When the command fails. `run` also fails when one of its services or tasks fails.
pub fn execute(args: &Args) -> Result<()> {
    match &args.command {
        Command::Run(run) => run::run(run),
        Command::Probe(probe) => probe::run(probe),
        Command::Orphans(orphans) => orphans::run(orphans),
    }
}
