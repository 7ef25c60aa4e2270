/*!
The command line.
*/

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::kernels::Series;

use crate::tools::{Lsm, Release, Runtime};

/// Developer commands of StoppableContainer.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Args {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manages the local cluster, a Kubernetes of one or more nodes on this machine.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Starts a cluster, installs the chart, and shows how a container keeps its files.
    Demo {
        #[command(flatten)]
        registry: RegistryArg,
        /// Starts a Prometheus with the chart's rules before, and prints what each panel of the
        /// chart's dashboard shows after. On a terminal, it serves until Ctrl-C.
        #[arg(long)]
        dashboard: bool,
        /// With --dashboard: also writes a picture of the panels into this file, an SVG.
        #[arg(long, value_name = "FILE", requires = "dashboard")]
        picture: Option<PathBuf>,
    },
    /// Records a session with the plugin on the cluster of `demo`, and writes the animated picture
    /// of the README, docs/pictures/session.svg.
    Record {
        /// The plugin to record. Default: it is built from this clone.
        #[arg(long, value_name = "FILE")]
        plugin: Option<PathBuf>,
    },
    /// Builds the images and installs the chart of this clone.
    Install(RegistryArg),
    /// Runs all tests. The end-to-end tests use the cluster of KUBECONFIG, or the local cluster.
    /// Writes the results of those on the local cluster to docs/portability.md, unless tests are
    /// named or the variable CI is set.
    Test {
        /// Runs only this class of tests.
        #[arg(conflicts_with_all = ["registry", "skip_e2e", "all", "vm"])]
        class: Option<Class>,
        /// Runs them under this kernel of Debian, in QEMU, instead of the machine's own; several
        /// may be named. Writes the results to docs/portability.md, unless tests are named or the
        /// variable CI is set.
        #[arg(long = "kernel", value_name = "SERIES", requires = "class")]
        kernels: Vec<Series>,
        #[command(flatten)]
        registry: RegistryArg,
        /// Skips the end-to-end tests.
        #[arg(long)]
        skip_e2e: bool,
        /// Runs everything: fuzzing, all interleavings, more certificate rotations, the longest
        /// durability test, and other kernels.
        #[arg(long)]
        all: bool,
        /// Release of Kubernetes of the local cluster. [default: that of the cluster, or 1.34]
        #[arg(long)]
        kubernetes: Option<Release>,
        /// Container runtime of the local cluster's nodes. With cri-o, only the end-to-end tests
        /// that depend on the runtime run.
        #[arg(long, default_value = "containerd", conflicts_with_all = ["class", "skip_e2e", "all"])]
        runtime: Runtime,
        /// Runs a selection of the end-to-end tests on a node that is a virtual machine, and writes
        /// their results to docs/portability.md. Kubernetes is 1.36 by default.
        #[arg(
            long,
            value_name = "SECURITY MODULE",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "apparmor",
            conflicts_with_all = ["class", "registry", "skip_e2e", "all", "runtime"]
        )]
        vm: Option<Lsm>,
        /// Runs only the tests whose names contain one of these texts.
        #[arg(last = true)]
        names: Vec<String>,
    },
    /// The part of `test` that runs on a second cluster; `test` starts it.
    #[command(hide = true)]
    TestOtherRelease,
    /// Measures which files are lost in crashes, evictions, reboots and power cuts, and writes
    /// docs/durability.md. The product and the test images must be installed.
    Durability {
        /// Number of trials of each event; 0 only writes the recorded results.
        #[arg(long, default_value_t = 10)]
        trials: u32,
        /// Adds the trials to those of earlier runs.
        #[arg(long)]
        add: bool,
        /// Rows of the table to measure. Default: all rows.
        rows: Vec<String>,
    },
    /// Measures the product under load, and compares the numbers with its goals.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Runs the fuzz targets. Failing inputs are stored in target/fuzz.
    Fuzz {
        /// Seconds to run each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Number of inputs to run each target with, instead of a time.
        #[arg(long)]
        runs: Option<u32>,
        /// Names of the targets. Default: all targets.
        targets: Vec<String>,
    },
    /// Builds the documentation in `docs/` as a book, with mdBook, into `target/book`.
    Book,
    /// Checks formatting, ids, prose, reasons, links, clippy, the chart and generated files.
    Lint,
    /// Writes the generated files: CRDs, `config/`, protobuf code, and tables in `docs/`.
    Codegen {
        /// Only checks whether the files are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Builds the product's images and pushes them to a registry or the local cluster.
    Image(RegistryArg),
    /// Writes a software bill of materials (CycloneDX) for the program of each image into
    /// `dist/sbom/`.
    Sbom,
    /// Builds the plugin `kubectl stopc` as a static program, with its links, into `dist/`.
    Plugin {
        /// Copies it to this directory, too, which should be in the PATH.
        #[arg(long, value_name = "DIR")]
        install: Option<PathBuf>,
    },
    /// Builds the images of tests and samples and pushes them to the local cluster.
    TestImages,
}

/// Classes of tests that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Class {
    /// The mount engine and the wrapper: what depends on the kernel.
    Rootfs,
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measures the operator with many objects, on a control plane of its own whose nodes are
    /// simulated by kwok. Writes docs/benchmarks.md once 1,000 and 5,000 objects were measured.
    Scale(ScaleArgs),
    /// Measures the webhook alone, and creations of pods with it, without it and with a webhook
    /// that changes nothing, on a control plane of its own without nodes.
    Admission(AdmissionArgs),
    /// Measures how long starts and stops take, in turn with those of plain pods of the same image,
    /// on the cluster of KUBECONFIG or the local one.
    Starts(StartsArgs),
    /// Measures input, output and system calls in a kept filesystem, in turn with those in a plain
    /// pod of the same image, on the cluster of KUBECONFIG or the local one.
    Io(IoArgs),
    /// Writes docs/speed.md and its plots from the last `bench starts` and `bench io`.
    Report,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct StartsArgs {
    /// Measures only whether the benchmark works and the counts are within their limits.
    #[arg(long, conflicts_with_all = ["rounds", "burst", "bursts"])]
    pub quick: bool,
    /// Rounds of single starts and stops.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Number of objects of a burst.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub burst: u32,
    /// Rounds of bursts.
    #[arg(long, default_value_t = 5)]
    pub bursts: u32,
}

/// How much input and output is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct IoArgs {
    /// Measures only whether the benchmark works, with 1 and 60 layers.
    #[arg(long, conflicts_with = "rounds")]
    pub quick: bool,
    /// Rounds, in each of which both containers take turns. The images have files for 30.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub rounds: u32,
}

/// How many requests are measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct AdmissionArgs {
    /// Measures only whether the benchmark works and no request fails.
    #[arg(long, conflicts_with_all = ["reviews", "creations", "rounds"])]
    pub quick: bool,
    /// Reviews for each number of connections to the webhook.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub reviews: u32,
    /// Pods that a round creates, for each number of clients.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub creations: u32,
    /// Rounds, in each of which the variants take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Release of Kubernetes. Default: that of the local cluster.
    #[arg(long)]
    pub kubernetes: Option<Release>,
}

/// How much load there is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Number of StoppableContainers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub objects: u32,
    /// Number of nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nodes: u32,
    /// Number of pods, and of claims, that do not belong to the product.
    #[arg(long, default_value_t = 10_000)]
    pub foreign: u32,
    /// Number of objects that are stopped, and then started.
    #[arg(long, default_value_t = 450)]
    pub churn: u32,
    /// Stops or starts per second.
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Seconds in which an idle operator should write nothing.
    #[arg(long, default_value_t = 60)]
    pub idle: u32,
    /// Writes the table from the measurements of earlier runs, and runs nothing.
    #[arg(long)]
    pub table: bool,
}

// === impl AdmissionArgs ===

impl AdmissionArgs {
    /// What `--quick` measures. The release is that of `self`.
    pub(crate) fn quick(self) -> Self {
        Self {
            reviews: 400,
            creations: 50,
            rounds: 1,
            ..self
        }
    }
}

// === impl StartsArgs ===

impl StartsArgs {
    /// What `--quick` measures.
    pub(crate) const QUICK: Self = Self {
        quick: true,
        rounds: 2,
        burst: 3,
        bursts: 1,
    };
}

/// Destination of the images.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArg {
    /// Registry to push the product's images to, as host and path: `registry.example.com/team`.
    #[arg(long, value_name = "HOST")]
    pub registry: Option<String>,
}

/// The commands of the local cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Downloads and builds the programs of the cluster, so that `up` needs no network.
    Programs {
        /// Release of Kubernetes. [default: that of the cluster, or 1.34]
        #[arg(long)]
        kubernetes: Option<Release>,
        /// Also those of a node that is a virtual machine with this security module.
        #[arg(long, value_name = "SECURITY MODULE")]
        vm: Option<Lsm>,
    },
    /// Starts the cluster, or its missing parts.
    Up {
        /// Minimum number of nodes, in three zones. Existing nodes stay.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=99))]
        nodes: u8,
        /// Release of Kubernetes. A cluster of another release is replaced. [default: that of the
        /// cluster, or 1.34]
        #[arg(long)]
        kubernetes: Option<Release>,
        /// Container runtime of the nodes. A cluster with another one is replaced. cri-o is the
        /// machine's own. [default: that of the cluster, or containerd]
        #[arg(long)]
        runtime: Option<Runtime>,
    },
    /// Stops the cluster and removes all its files.
    Down,
    /// Prints the state of the cluster's parts. Fails unless all are running.
    Status,
    /// Pushes the images of an OCI or Docker archive to the cluster's registry.
    Load {
        /// The archive.
        file: PathBuf,
    },
    /// Prints the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Cuts the power of a node, starts it again and waits until it is Ready.
    Reboot {
        /// Name of the node; the first is `node1`.
        node: String,
        /// Whether the disk of the virtual machine has a write cache from now on, which the next
        /// power cut empties. [default: as it was, at first true]
        #[arg(long)]
        write_cache: Option<bool>,
    },
    /// Adds a node and waits until it is Ready.
    Add {
        /// The node: `node2` for the second, `vm2` for a virtual machine with AppArmor, `selinux2`
        /// for one with SELinux.
        node: String,
    },
    /// Takes a node away for good: its power, its Node object and its disk.
    Remove {
        /// The node; not `node1`, which the cluster always has.
        node: String,
    },
    /// Takes a node away for good, as `remove` does, and adds a machine with its disk for kept
    /// filesystems.
    Replace {
        /// The node; not `node1`.
        node: String,
        /// Name of the new one. The same name is possible.
        by: String,
    },
    /// Evicts the pods of a node as a cluster upgrade does. `kubectl uncordon` undoes it.
    Drain {
        /// The node.
        node: String,
        /// How long the pods may take to end, in seconds.
        #[arg(long, default_value_t = 120)]
        timeout: u32,
    },
    /// Cuts the power of the control plane and all nodes, and starts them again.
    Restart {
        /// Restores this snapshot of etcd before the start.
        #[arg(long, value_name = "FILE")]
        etcd_snapshot: Option<PathBuf>,
    },
    /// Cuts a node off from the API server until standard input ends.
    Partition {
        /// Name of the node.
        node: String,
        /// Addresses of pods to cut off as well.
        pods: Vec<Ipv4Addr>,
    },
    /// Prints the key and the last revision of every entry in etcd, one per line.
    EtcdKeys,
    /// Saves a snapshot of etcd.
    EtcdSnapshot {
        /// The new file.
        file: PathBuf,
    },
    /// The first process of a node; `up` starts it.
    #[command(hide = true)]
    NodeInit {
        /// The node.
        node: String,
    },
}
