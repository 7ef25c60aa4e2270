/*!
Measures the operator with many objects on a control plane without kubelets. `cargo xtask bench
scale` starts that control plane, and reads what this program measured.

Real: API server, controller manager, scheduler and operator. Not real: the nodes, whose pods kwok
lets run at once, and the node agents ([`fake_agent`]).
*/

#![forbid(unsafe_code)]

mod churn;
mod fake_agent;
mod objects;
mod report;
mod watched;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use scale_load::metrics::{Sample, instant_text, operator_sample};
use scale_load::operator::Operator;
use tokio::time::{Instant, sleep};

use crate::objects::Scale;
use crate::report::{Churn, Report};
use crate::watched::Watched;

/// How long the counter of writes must stand still before a part of the measurement ends.
const QUIET: Duration = Duration::from_secs(3);

/// Creates load and prints what was measured as JSON.
#[derive(Debug, Parser)]
struct Args {
    /// Kubeconfig of the administrator.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Number of StoppableContainers.
    #[arg(long)]
    objects: usize,
    /// Number of nodes.
    #[arg(long)]
    nodes: usize,
    /// Number of pods and of claims that do not belong to the product.
    #[arg(long)]
    foreign: usize,
    /// Number of objects that are stopped and started.
    #[arg(long)]
    churn: usize,
    /// Stops or starts per second that are asked for.
    #[arg(long)]
    rate: u32,
    /// Seconds in which writes without a reason are counted.
    #[arg(long)]
    idle: u64,
    /// Address of the operator's metrics, as HOST:PORT.
    #[arg(long)]
    admin: String,
    /// File that the measurements are written to.
    #[arg(long)]
    output: PathBuf,
    /// Longest time for one part, in seconds.
    #[arg(long)]
    limit: u64,
    /// The operator and its arguments.
    #[arg(last = true, required = true)]
    operator: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed");
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<()> {
    let client = client(args).await?;
    let limit = Duration::from_secs(args.limit);
    let scale = Scale {
        objects: args.objects,
        nodes: args.nodes,
        foreign: args.foreign,
    };
    say(&format!(
        "{} nodes, {} foreign pods and claims",
        args.nodes, args.foreign
    ));
    objects::prepare(&client, scale).await?;
    tokio::spawn(fake_agent::run(client.clone()));
    let watched = Watched::start(&client);

    let mut operator = Operator::start(&args.operator, &args.admin)?;
    operator.ready(limit).await?;
    let empty_rss = operator.rss()?;
    say("applies, as dry runs");
    let applies = objects::apply(&client).await?;
    say(&format!("{} objects are created", args.objects));
    let before = operator_sample(&args.admin).await?;
    let begin = Instant::now();
    objects::create(&client, scale).await?;
    let running = |object: &watched::Shown| object.running && object.as_asked;
    watched
        .until(limit, args.objects, running)
        .await
        .context("the objects do not run")?;
    let create_seconds = begin.elapsed().as_secs_f64();
    let created = quiet(&args.admin, limit).await?;
    let created_rss = operator.peak()?;

    say("the operator is started again");
    operator.stop().await?;
    let begin = Instant::now();
    operator = Operator::start(&args.operator, &args.admin)?;
    operator.ready(limit).await?;
    operator.reconciled(args.objects, limit).await?;
    let restart_seconds = begin.elapsed().as_secs_f64();
    let restarted = quiet(&args.admin, limit).await?;

    say(&format!("idle for {} s", args.idle));
    sleep(Duration::from_secs(args.idle)).await;
    let idle = operator_sample(&args.admin).await?;
    let idle_rss = operator.rss()?;

    operator.reset_peak()?;
    let mut parts = Vec::new();
    let before_churn = idle.clone();
    let server_before = instant_text(&client).await?;
    for running in [false, true] {
        let what = if running { "starts" } else { "stops" };
        say(&format!("{} {what}, {} per second", args.churn, args.rate));
        let from = operator_sample(&args.admin).await?;
        let asked = churn::ask(&client, &watched, args.churn, args.rate, running, limit).await?;
        let to = quiet(&args.admin, limit).await?;
        parts.push(Churn::of(what, &asked, &from, &to));
    }
    let server_after = instant_text(&client).await?;
    let report = Report {
        objects: args.objects,
        nodes: args.nodes,
        foreign: args.foreign,
        rate: args.rate,
        rss_empty: empty_rss,
        rss_created_peak: created_rss,
        rss_idle: idle_rss,
        rss_churn_peak: operator.peak()?,
        applies,
        create_seconds,
        creation_writes: report::each(&created.since(&before), args.objects),
        restart_seconds,
        restart_writes: restarted.writes(),
        idle_seconds: args.idle,
        idle_writes: idle.since(&restarted).writes(),
        reconcile: report::quantiles(&operator_sample(&args.admin).await?.since(&before_churn)),
        conflict_share: operator_sample(&args.admin)
            .await?
            .since(&before_churn)
            .conflicts(),
        server_writes: report::server_writes(&server_before, &server_after),
        churn: parts,
    };
    operator.stop().await?;
    let text = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&args.output, text).with_context(|| format!("writing {}", args.output.display()))
}

/// Waits until the operator writes nothing, and returns its metrics then.
async fn quiet(admin: &str, limit: Duration) -> Result<Sample> {
    let deadline = Instant::now() + limit;
    let mut last = operator_sample(admin).await?;
    loop {
        sleep(QUIET).await;
        let now = operator_sample(admin).await?;
        if now.since(&last).writes() == 0.0 {
            return Ok(now);
        }
        anyhow::ensure!(Instant::now() < deadline, "the operator does not stop writing");
        last = now;
    }
}

async fn client(args: &Args) -> Result<Client> {
    let file = Kubeconfig::read_from(&args.kubeconfig).context("reading the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("making a client")
}

fn say(what: &str) {
    eprintln!("{what}");
}
