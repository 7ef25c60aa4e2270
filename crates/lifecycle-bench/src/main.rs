/*!
Measures how long starts and stops take, next to those of plain pods of the same image, on a real
cluster with the product. Watches give the times. `cargo xtask bench starts` runs this program.
`cargo xtask bench io` runs its part [`io`].
*/

#![forbid(unsafe_code)]

mod breakdown;
mod cluster;
mod io;
mod journal;
mod json;
mod measured;
mod meters;
mod noop_csi;
mod page;
mod plot;
mod rounds;
mod section;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Cluster, pod_spec};
use crate::journal::Journal;
use crate::measured::{Recorder, Report};
use crate::meters::Meters;
use crate::rounds::Bench;

/// Measures starts and stops, or input and output, or makes a page of what was measured.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures on the cluster of KUBECONFIG.
    Measure(Measure),
    /// Writes tables into a page, and plots.
    Report {
        /// The measurements.
        #[arg(long)]
        input: PathBuf,
        /// The page, with the lines that enclose the tables.
        #[arg(long)]
        page: PathBuf,
        /// Directory of the plots, beside the page.
        #[arg(long)]
        plots: PathBuf,
    },
    /// Measures input and output on the cluster of KUBECONFIG.
    Io(io::Args),
    /// Writes the tables of input and output into a page.
    IoReport {
        /// The measurements. If the file does not exist, the page says that there are none.
        #[arg(long)]
        input: PathBuf,
        /// The page, with the lines that enclose the tables.
        #[arg(long)]
        page: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Measure {
    /// Image of the containers. It should be on the nodes, and end soon after SIGTERM.
    #[arg(long)]
    image: String,
    /// Image of the CSI driver that does nothing.
    #[arg(long)]
    csi_image: String,
    /// Day of the run, as in 2026-01-31.
    #[arg(long)]
    date: String,
    /// Rounds of single starts and stops, after one that is not counted.
    #[arg(long)]
    rounds: u32,
    /// Number of objects of a burst.
    #[arg(long)]
    burst: u32,
    /// Rounds of bursts.
    #[arg(long)]
    bursts: u32,
    /// Longest time for one operation, in seconds.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// File that the measurements are written to.
    #[arg(long)]
    output: PathBuf,
    /// Arguments of the containers.
    #[arg(last = true)]
    args: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().command {
        Command::Measure(args) => run(args).await,
        Command::Report { input, page, plots } => page::write(&json::read::<Report>(&input)?, &page, &plots),
        Command::Io(args) => io::measure(connect().await?, &args).await,
        Command::IoReport { input, page } => io::report(&input, &page),
    }
}

/// A client of the cluster of KUBECONFIG.
async fn connect() -> Result<Client> {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        bail!("another TLS provider is installed");
    }
    Client::try_default().await.context("reading KUBECONFIG")
}

/// Does the work until it ends or the process is interrupted, so that the caller can remove what
/// the work has made.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn run(args: Measure) -> Result<()> {
    let client = connect().await?;
    let limit = Duration::from_secs(args.limit);
    let spec = pod_spec(&args.image, &args.args);
    let cluster = Cluster::prepare(client, spec, limit).await?;
    let measured = unless_interrupted(Box::pin(measure(&cluster, &args, limit))).await;
    // Objects of a round that failed go with the namespace.
    cluster.remove().await?;
    let report = measured?;
    json::write(&report, &args.output)?;
    print!("{}", page::tables(&report));
    page::check(&report)
}

async fn measure(cluster: &Cluster, args: &Measure, limit: Duration) -> Result<Report> {
    let bench = Bench {
        journal: Journal::of(&cluster.client, &cluster.namespace, limit),
        with_volume: noop_csi::prepare(cluster, &args.csi_image, limit).await?,
        meters: Meters::prepare(cluster).await?,
        cluster: cluster.clone(),
    };
    let facts = cluster.facts().await?;
    // Images are pulled, and caches filled, in a round that is not counted.
    rounds::single(&bench, &mut Recorder::default(), 0).await?;
    let mut recorder = Recorder::default();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        rounds::single(&bench, &mut recorder, round).await?;
    }
    for round in 1..=args.bursts {
        eprintln!("burst {round} of {}", args.bursts);
        rounds::burst(&bench, &mut recorder, round, args.burst).await?;
    }
    Ok(recorder.report(facts, args.date.clone(), args.burst))
}
