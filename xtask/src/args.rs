/*!
What was typed.
*/

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Developer commands of StoppableContainer.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The local cluster: a real one-node Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Builds the images that tests and samples name and puts them into the local cluster.
    TestImages,
}

/// What can be done with the local cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Brings it up, or what is missing of it.
    Up,
    /// Stops its processes and removes everything that it made.
    Down,
    /// Prints what runs; fails unless all of it does.
    Status,
    /// Puts the images of an OCI or Docker archive into its registry.
    Load {
        /// The archive.
        file: PathBuf,
    },
    /// Prints the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Cuts a node's power, starts it again and waits until it is Ready.
    Reboot {
        /// The node, `node1` for the first.
        node: String,
    },
    /// The first process of a node; `up` starts it.
    #[command(hide = true)]
    NodeInit {
        /// The node.
        node: String,
    },
}
