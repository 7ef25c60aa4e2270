/*!
Measures what admission costs. `cargo xtask bench admission` starts a control plane without nodes,
and reads what this program measured.

Real: etcd, the API server with the product's configurations and policies, and the operator's
release build with its webhook. The operator is not the leader, so that its controllers do not act
on the pods of the load. Not real: the instances, whose status this program writes, and the
reference webhook, which allows everything and changes nothing.
*/

#![forbid(unsafe_code)]

mod cluster;
mod creations;
mod direct;
mod quantiles;
mod reference;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use scale_load::operator::Operator;
use serde::Serialize;

use crate::cluster::{Cluster, Variant};
use crate::creations::Mode;
use crate::quantiles::Measured;

/// Creates load, and writes what was measured as JSON.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the reference webhook.
    Reference {
        /// Where it listens (TLS).
        #[arg(long)]
        address: SocketAddr,
        /// File that its certificate is written to, as PEM.
        #[arg(long)]
        certificate: PathBuf,
    },
    /// Measures.
    Measure(Box<Measure>),
}

/// How much is measured, and of what.
#[derive(Debug, clap::Args)]
struct Measure {
    /// Kubeconfig of the administrator.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Kubeconfig of the operator, which alone may create consumer pods.
    #[arg(long)]
    operator_kubeconfig: PathBuf,
    /// The operator's webhook.
    #[arg(long)]
    webhook: SocketAddr,
    /// Address of the operator's metrics, as HOST:PORT.
    #[arg(long)]
    admin: String,
    /// The reference webhook.
    #[arg(long)]
    reference: SocketAddr,
    /// File with its certificate.
    #[arg(long)]
    reference_certificate: PathBuf,
    /// Reviews that are sent to the webhook alone, for each number of connections.
    #[arg(long)]
    reviews: usize,
    /// Pods that are created in a round, for each number of clients.
    #[arg(long)]
    creations: usize,
    /// Rounds, in each of which the variants take turns.
    #[arg(long)]
    rounds: usize,
    /// Numbers of connections to the webhook.
    #[arg(long, value_delimiter = ',', required = true)]
    connections: Vec<usize>,
    /// Numbers of clients of the API server.
    #[arg(long, value_delimiter = ',', required = true)]
    clients: Vec<usize>,
    /// File that the measurements are written to.
    #[arg(long)]
    output: PathBuf,
    /// Longest time for one part, in seconds.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// The operator and its arguments.
    #[arg(last = true, required = true)]
    operator: Vec<String>,
}

/// What is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Resident memory of the operator in bytes: before the load, and the largest since its start.
    rss_before: u64,
    rss_peak: u64,
    direct: Vec<Direct>,
    creations: Vec<Creations>,
}

/// Reviews sent to the webhook alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Direct {
    connections: usize,
    kept_alive: bool,
    #[serde(flatten)]
    measured: Measured,
}

/// Pods created by the API server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Creations {
    clients: usize,
    mode: Mode,
    variant: Variant,
    #[serde(flatten)]
    measured: Measured,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        bail!("another TLS provider is installed");
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        match &args.command {
            Command::Reference { address, certificate } => reference::serve(*address, certificate).await,
            Command::Measure(measure) => run(measure).await,
        }
    })
}

async fn run(args: &Measure) -> Result<()> {
    let limit = Duration::from_secs(args.limit);
    let cluster = Cluster::connect(&args.kubeconfig, &args.operator_kubeconfig).await?;
    cluster.keep_from_leading().await?;
    cluster.limit_webhook().await?;
    cluster
        .configure_reference(args.reference, &args.reference_certificate)
        .await?;
    let mut operator = Operator::start(&args.operator, &args.admin)?;
    operator.serving(limit).await?;
    say(&format!("{} instances", args.creations));
    let pods = cluster.prepare(args.creations).await?;
    cluster.settle(&pods, limit).await?;
    let rss_before = operator.rss()?;

    let mut direct = Vec::new();
    let target = direct::Target::new(args.webhook, &cluster.authority().await?, &pods)?;
    for &connections in &args.connections {
        for kept_alive in [true, false] {
            say(&format!("{connections} connections, kept alive: {kept_alive}"));
            let measured = target.load(connections, args.reviews, kept_alive).await?;
            direct.push(Direct {
                connections,
                kept_alive,
                measured,
            });
        }
    }
    let mut creations = Vec::new();
    for &clients in &args.clients {
        for mode in [Mode::DryRun, Mode::Real] {
            say(&format!("{clients} clients, {mode:?}"));
            for (variant, measured) in
                creations::rounds(&cluster, &pods, clients, mode, args.rounds, limit).await?
            {
                creations.push(Creations {
                    clients,
                    mode,
                    variant,
                    measured,
                });
            }
        }
    }
    let report = Report {
        rss_before,
        rss_peak: operator.peak()?,
        direct,
        creations,
    };
    operator.stop().await?;
    let text = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&args.output, text).with_context(|| format!("writing {}", args.output.display()))?;
    let failures = report.direct.iter().map(|direct| direct.measured.failures);
    let failures = failures.chain(report.creations.iter().map(|part| part.measured.failures));
    let failures: usize = failures.sum();
    ensure!(
        failures == 0,
        "{failures} requests failed; the first errors are above"
    );
    Ok(())
}

fn say(what: &str) {
    eprintln!("{what}");
}
