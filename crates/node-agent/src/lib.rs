/*!
The node agent: inline CSI plugin and mounter, one on every node.

It gives provider and consumer pods the volume with the wrapper and a socket,
keeps the kept filesystems' data, and moves consumers onto them. What it knows of
pods and instances it asks the API server; what it knows of processes it asks the
kernel. It may die at any time: running consumers do not notice.
*/

#![forbid(unsafe_code)]

mod agent;
mod args;
mod backoff;
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

/// Does what the command line says.
///
/// # Errors
/// When that fails; for `run`, when one of its parts ends.
pub fn execute(args: &Args) -> Result<()> {
    match &args.command {
        Command::Run(run) => run::run(run),
        Command::Probe(probe) => probe::run(probe),
        Command::Orphans(orphans) => orphans::run(orphans),
    }
}
