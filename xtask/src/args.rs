/*!
What was typed.
*/

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::kernels::Series;

/// Developer commands of StoppableContainer.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The local cluster: a real one-node Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// From nothing to a StoppableContainer that keeps its files, shown live.
    Demo(RegistryArg),
    /// Installs the chart of this clone with the images of this clone.
    Install(RegistryArg),
    /// Runs all tests, the end-to-end tests on the cluster of KUBECONFIG or the local one.
    Test {
        /// Runs only this class of tests.
        #[arg(conflicts_with_all = ["registry", "skip_e2e", "all"])]
        class: Option<Class>,
        /// Runs them under this kernel of Debian, in QEMU, instead of the machine's own; several
        /// may be named.
        #[arg(long = "kernel", value_name = "SERIES", requires = "class")]
        kernels: Vec<Series>,
        #[command(flatten)]
        registry: RegistryArg,
        /// Leaves out the end-to-end tests.
        #[arg(long)]
        skip_e2e: bool,
        /// Leaves out nothing: more generated pods, more rotations of certificates, the longest test of
        /// durability, and other kernels.
        #[arg(long)]
        all: bool,
        /// Runs only the tests whose names contain one of these.
        #[arg(last = true)]
        names: Vec<String>,
    },
    /// Measures what is lost by crashes, evictions, reboots, power cuts and the like, and writes docs/durability.md. The
    /// product and the test images have to be installed.
    Durability {
        /// How often each of them happens; 0 only writes what is recorded.
        #[arg(long, default_value_t = 10)]
        trials: u32,
        /// Counts the trials of earlier runs too.
        #[arg(long)]
        add: bool,
        /// Rows of the table; all if empty.
        rows: Vec<String>,
    },
    /// Runs the fuzz targets; an input that fails is left in target/fuzz.
    Fuzz {
        /// How long each is run.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// How many inputs each is run with, instead.
        #[arg(long)]
        runs: Option<u32>,
        /// Their names; all if empty.
        targets: Vec<String>,
    },
    /// Checks formatting, lints, generated files and the chart.
    Lint,
    /// Writes the generated files: CRDs, `config/`, protobuf code, and tables in `docs/`.
    Codegen {
        /// Only says whether they are as they would be written.
        #[arg(long)]
        check: bool,
    },
    /// Builds the product's images and puts them into the local cluster or a registry.
    Image(RegistryArg),
    /// Builds the images that tests and samples name and puts them into the local cluster.
    TestImages,
}

/// Classes of tests that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Class {
    /// The mount engine and the wrapper: what depends on the kernel.
    Rootfs,
}

/// Where images go.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArg {
    /// Registry to push the product's images to, host and path: `registry.example.com/team`.
    #[arg(long, value_name = "HOST")]
    pub registry: Option<String>,
}

/// What can be done with the local cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
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
    /// Cuts the power of everything, control plane and nodes, and starts it again.
    Restart,
    /// Cuts a node off from the API server until standard input ends.
    Partition {
        /// The node.
        node: String,
        /// Addresses of pods to cut off too.
        pods: Vec<Ipv4Addr>,
    },
    /// Prints the key and the last revision of everything that etcd holds, a line each.
    EtcdKeys,
    /// The first process of a node; `up` starts it.
    #[command(hide = true)]
    NodeInit {
        /// The node.
        node: String,
    },
}
