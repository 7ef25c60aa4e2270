/*!
Measures how long starts and stops take, next to those of plain pods of the same image, on a real
cluster with the product. Watches give the times. `cargo xtask bench starts` runs this program.
*/

#![forbid(unsafe_code)]

mod cluster;
mod journal;
mod measured;
mod page;
mod plot;
mod rounds;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kube::Client;

use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::measured::{Recorder, Report};

/// Measures starts and stops, or makes a page of what was measured.
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
}

#[derive(Debug, clap::Args)]
struct Measure {
    /// Image of the containers. It should be on the nodes, and end soon after SIGTERM.
    #[arg(long)]
    image: String,
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
        Command::Report { input, page, plots } => page::write(&Report::read(&input)?, &page, &plots),
    }
}

async fn run(args: Measure) -> Result<()> {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed");
    }
    let client = Client::try_default().await.context("reading KUBECONFIG")?;
    let limit = Duration::from_secs(args.limit);
    let cluster = Cluster::prepare(client, args.image.clone(), args.args.clone(), limit).await?;
    let measured = measure(&cluster, &args, limit).await;
    // Objects of a round that failed go with the namespace.
    cluster.remove().await?;
    let report = measured?;
    report.write(&args.output)?;
    print!("{}", page::tables(&report));
    page::check(&report)
}

async fn measure(cluster: &Cluster, args: &Measure, limit: Duration) -> Result<Report> {
    let journal = Journal::of(&cluster.client, &cluster.namespace, limit);
    let facts = cluster.facts().await?;
    // Images are pulled, and caches filled, in a round that is not counted.
    rounds::single(cluster, &journal, &mut Recorder::default(), 0).await?;
    let mut recorder = Recorder::default();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        rounds::single(cluster, &journal, &mut recorder, round).await?;
    }
    for round in 1..=args.bursts {
        eprintln!("burst {round} of {}", args.bursts);
        rounds::burst(cluster, &journal, &mut recorder, round, args.burst).await?;
    }
    Ok(recorder.report(facts, args.date.clone(), args.burst))
}
