/*!
Input and output in a StoppableContainer, next to a plain pod of the same image on the same node.
The program in the images, `crates/io-load`, takes the times. This side executes it in both
containers in turn, so that the machine's speed changes both.
*/

mod compare;
mod exec;
mod idle;
mod measured;
mod rounds;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use io_load::image::MOST_ROUNDS;
use kube::Client;
use serde_json::{Value, json};
use stoppablecontainer_api::names::provider_pod_name;

use crate::cluster::{Cluster, pod_spec};
use crate::journal::{Journal, Role, State};
use crate::{json, section, unless_interrupted};
use measured::{IoReport, Recorder};

/// The line before the tables in the page.
const BEGIN: &str = "<!-- begin: written by cargo xtask bench report, io -->";

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of layers and name of an image with the program, as in `10=IMAGE`.
    #[arg(long = "image", value_name = "LAYERS=IMAGE", required = true, value_parser = image)]
    images: Vec<(u32, String)>,
    /// Day of the run, as in 2026-01-31.
    #[arg(long)]
    date: String,
    /// Rounds, after one that is not counted.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..i64::from(MOST_ROUNDS)))]
    rounds: u32,
    /// Longest time for one operation, in seconds.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// File that the measurements are written to.
    #[arg(long)]
    output: PathBuf,
}

/// Measures, writes the measurements into a file, and prints the tables.
///
/// # Errors
/// If an operation does not end. A missed goal is not an error.
pub(crate) async fn measure(client: Client, args: &Args) -> Result<()> {
    let limit = Duration::from_secs(args.limit);
    let cluster = Cluster::prepare(client, json!({}), limit).await?;
    let measured = unless_interrupted(measure_images(&cluster, args, limit)).await;
    // What a run leaves that failed goes with the namespace.
    cluster.remove().await?;
    let report = measured?;
    json::write(&report, &args.output)?;
    print!("{}", table::tables(&report));
    Ok(())
}

/// Writes the tables into the page. Without measurements, the page says so.
///
/// # Errors
/// If the measurements cannot be read, or the page lacks the lines that enclose the tables.
pub(crate) fn report(input: &Path, page: &Path) -> Result<()> {
    let report: Option<IoReport> = input.is_file().then(|| json::read(input)).transpose()?;
    section::write(page, BEGIN, &table::page(report.as_ref()))
}

async fn measure_images(cluster: &Cluster, args: &Args, limit: Duration) -> Result<IoReport> {
    let journal = Journal::of(&cluster.client, &cluster.namespace, limit);
    let (facts, node, selector) = cluster.facts_and_node().await?;
    let mut recorder = Recorder::default();
    let mut idle = Vec::new();
    for (layers, image) in &args.images {
        let cluster = cluster.with_spec(spec(image, &selector));
        let pair = Pair::create(&cluster, &journal, &node, *layers).await?;
        rounds::measure(&cluster.pods(), &pair, &mut recorder, args.rounds, limit).await?;
        // The pods are those of the last image.
        idle = idle::read(&cluster, &node, &provider_pod_name(&pair.ours)).await;
        pair.delete(&cluster, &journal).await?;
    }
    Ok(recorder.report(facts, args.date.clone(), idle))
}

/// A plain pod and a StoppableContainer of the same template.
struct Pair {
    layers: u32,
    plain: String,
    ours: String,
}

// === impl Pair ===

impl Pair {
    /// Creates both, and waits until both run and nothing else happens in the namespace.
    async fn create(cluster: &Cluster, journal: &Journal, node: &str, layers: u32) -> Result<Self> {
        let pair = Self {
            layers,
            plain: format!("plain-{layers}"),
            ours: format!("ours-{layers}"),
        };
        eprintln!("starting containers with {layers} layers");
        let asked = cluster.create_plain(&pair.plain).await?;
        journal
            .reached(&pair.plain, Role::PlainPod, State::Ready, asked)
            .await?;
        let asked = cluster.create(&pair.ours).await?;
        for (role, state) in [
            (Role::Object, State::Ready),
            (Role::Object, State::Settled),
            (Role::Placeholder, State::Gone),
        ] {
            journal.reached(&pair.ours, role, state, asked).await?;
        }
        for name in [&pair.plain, &pair.ours] {
            let pod = cluster.pods().get(name).await?;
            let on = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
            ensure!(
                on == node,
                "pod {name} runs on {on} and not on {node}: give each node a label kubernetes.io/hostname of its own"
            );
        }
        Ok(pair)
    }

    /// Deletes both, and waits until their files are no longer there.
    async fn delete(&self, cluster: &Cluster, journal: &Journal) -> Result<()> {
        let asked = cluster.delete(&self.ours).await?;
        cluster.delete_plain(&self.plain).await?;
        for (name, role) in [(&self.ours, Role::Object), (&self.plain, Role::PlainPod)] {
            journal.reached(name, role, State::Gone, asked).await?;
            journal.forget(name);
        }
        Ok(())
    }
}

/// The pods run on one node, and have the same share of its processors.
fn spec(image: &str, node: &Value) -> Value {
    let mut spec = pod_spec(image, &[]);
    spec["nodeSelector"] = node.clone();
    // The program does not handle SIGTERM.
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["containers"][0]["resources"] = json!({ "requests": { "cpu": "200m", "memory": "64Mi" } });
    spec
}

fn image(text: &str) -> Result<(u32, String)> {
    let (layers, name) = text
        .split_once('=')
        .context("an image is given as LAYERS=IMAGE")?;
    let layers = layers
        .parse()
        .with_context(|| format!("{layers} is not a number"))?;
    Ok((layers, name.to_owned()))
}
