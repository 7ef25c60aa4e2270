//! What the programs measure of a start and a stop on a real cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ::metrics::catalogue;
use anyhow::{Context, Result, bail, ensure};
use dashboard::{Query, Targets};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tempfile::TempDir;
use testkit::{Namespace, cluster_fact, in_namespace, patience, port_forward, tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::support::metrics::{PORT as AGENT_PORT, scraped, scraper_token};
use crate::support::release::{CONTROLLERS, PATIENCE};
use crate::support::{AGENTS, run, shell_template, stop};

/// Port of the operator's metrics.
const PORT: u16 = 8080;
/// The variable with the directory of `prometheus`.
const PROGRAMS: &str = "PROMETHEUS_PROGRAMS";
const DASHBOARD: &str = include_str!("../../../charts/stoppablecontainer/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../../../charts/stoppablecontainer/monitoring/alerts.yaml");

/// Other tests start and stop containers at the same time, so the numbers rise by one at least.
#[tokio::test]
async fn a_start_and_a_stop_move_the_metrics_of_agent_and_operator() {
    in_namespace("metrics", async |ns| {
        let before = sums(&scraped(&ns).await?);
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        let agents = scraped(&ns).await?;
        let after = sums(&agents);
        for sample in [
            "csi_calls_total{method=\"NodePublishVolume\",code=\"Ok\"}",
            "csi_call_seconds_count{method=\"NodePublishVolume\"}",
            "csi_calls_total{method=\"NodeUnpublishVolume\",code=\"Ok\"}",
            "preparations_total{result=\"Ready\"}",
            "moves_total{result=\"done\"}",
            "move_seconds_count",
            "syncs_total{result=\"done\"}",
            "sync_seconds_count",
        ] {
            let value = |of: &BTreeMap<String, f64>| of.get(sample).copied().unwrap_or_default();
            ensure!(value(&after) > value(&before), "{sample}: {before:?}\n{after:?}");
        }
        let leader = leader(&ns).await?;
        let operator = sums(std::slice::from_ref(&leader));
        for sample in [
            "containers{phase=\"Stopped\",reason=\"Stopped\"}",
            "reconciliations_total{kind=\"StoppableContainer\",result=\"done\"}",
            "reconciliations_total{kind=\"StoppableContainerInstance\",result=\"done\"}",
            "queue_seconds_count{kind=\"StoppableContainerInstance\"}",
            "api_requests_total{verb=\"create\",resource=\"pods\",code=\"201\"}",
            "leader_elections_total",
            "certificate_expiry_timestamp_seconds",
        ] {
            ensure!(
                operator.get(sample).is_some_and(|value| *value >= 1.0),
                "{sample}: {operator:?}"
            );
        }
        let names = [&ns.name, "kept"].map(|name| format!("\"{name}\""));
        ensure!(
            names.iter().all(|name| !leader.contains(name)),
            "names of tenants: {leader}"
        );
        // Everything that is served is documented.
        for (text, program) in agents
            .iter()
            .map(|text| (text, catalogue::AGENT))
            .chain([(&leader, catalogue::OPERATOR)])
        {
            let known: Vec<_> = program.iter().chain(catalogue::COMMON).copied().collect();
            let differences = ::metrics::differences(text, &known);
            let undocumented: Vec<_> = differences
                .iter()
                .filter(|difference| !difference.ends_with("is not served"))
                .collect();
            ensure!(undocumented.is_empty(), "{undocumented:?}\n{text}");
        }
        Ok(())
    })
    .await;
}

/// A real Prometheus scrapes the operator and the agents, and loads the chart's rules.
#[tokio::test]
async fn every_query_of_the_dashboard_has_an_answer() {
    in_namespace("dashboard", async |ns| {
        let prometheus = Prometheus::start(&ns).await?;
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        for query in dashboard::queries(DASHBOARD)? {
            prometheus
                .answer(&query)
                .await
                .with_context(|| format!("panel {}", query.panel))?;
        }
        let rules = prometheus.get("/api/v1/rules").await?;
        let alerts = ALERTS.matches("- alert: ").count();
        ensure!(
            rules.matches("\"type\":\"alerting\"").count() == alerts,
            "{rules}"
        );
        ensure!(!rules.contains("\"health\":\"err\""), "{rules}");
        Ok(())
    })
    .await;
}

/// A Prometheus on this machine.
struct Prometheus {
    port: u16,
    _process: Child,
    _forwards: Vec<Child>,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes all programs of the release every second.
    async fn start(ns: &Namespace) -> Result<Self> {
        let programs = cluster_fact(PROGRAMS, "the directory of `prometheus`")?;
        let directory = TempDir::new()?;
        let token = scraper_token(ns).await?;
        std::fs::write(directory.path().join("token"), token)?;
        std::fs::write(directory.path().join("alerts.yaml"), ALERTS)?;
        let mut forwards = Vec::new();
        let mut targets = [Vec::new(), Vec::new()];
        for (at, (labels, port)) in [(CONTROLLERS, PORT), (AGENTS, AGENT_PORT)]
            .into_iter()
            .enumerate()
        {
            let params = ListParams::default().labels(labels);
            for pod in Api::<Pod>::all(ns.client.clone()).list(&params).await? {
                let namespace = pod.namespace().unwrap_or_default();
                let (local, forward) = port_forward(&namespace, &pod.name_any(), port).await?;
                targets[at].push(format!("127.0.0.1:{local}"));
                forwards.push(forward);
            }
        }
        let [operators, agents] = targets;
        let configuration = dashboard::configuration(&Targets { operators, agents }, "alerts.yaml", "token");
        std::fs::write(directory.path().join("prometheus.yml"), configuration)?;
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let log = std::fs::File::create(directory.path().join("log"))?;
        let process = Command::new(Path::new(&programs).join("prometheus"))
            .current_dir(directory.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start prometheus")?;
        Ok(Self {
            port,
            _process: process,
            _forwards: forwards,
            _directory: directory,
        })
    }

    /// The body of the response to a GET request.
    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        let (_, body) = response
            .split_once("\r\n\r\n")
            .context("a response without body")?;
        Ok(body.to_owned())
    }

    /// Waits until a query has a result. Prometheus does not announce new samples.
    async fn answer(&self, query: &Query) -> Result<()> {
        let path = query.path("1m");
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            let response = self.get(&path).await;
            let series = response.as_deref().map(dashboard::samples);
            if let Ok(Ok(series)) = &series
                && !series.is_empty()
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{}: {series:?}", query.expression);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The metrics of the replica that leads.
async fn leader(ns: &Namespace) -> Result<String> {
    let params = ListParams::default().labels(CONTROLLERS);
    for pod in Api::<Pod>::all(ns.client.clone()).list(&params).await? {
        let pods = Api::namespaced(ns.client.clone(), &pod.namespace().unwrap_or_default());
        let text = tunnel::open(&pods, &pod.name_any(), PORT)
            .await?
            .get("/metrics")
            .await?;
        if text.contains("stoppablecontainer_leader 1\n") {
            return Ok(text);
        }
    }
    bail!("no replica says that it leads")
}

/// The samples of some scrapes, added up.
fn sums(texts: &[String]) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    let lines = texts.iter().flat_map(|text| text.lines());
    for line in lines.filter(|line| !line.starts_with('#')) {
        let sample = line.trim_start_matches("stoppablecontainer_").rsplit_once(' ');
        if let Some((name, Ok(value))) = sample.map(|(name, value)| (name, value.parse::<f64>())) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}
