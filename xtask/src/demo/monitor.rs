/*!
`demo --dashboard`: a Prometheus on this machine that scrapes the demo's operator and agents with
the chart's rules, and the present values of the chart's dashboard.
*/

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use dashboard::{Panel, Query, Range, Sample, Targets};
use serde_json::{Value, json};

use super::show;
use super::{panels, picture};
use crate::install;
use crate::process::Process;
use crate::progress::Progress;
use crate::target::Target;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Number of steps of [`Monitor::start`].
pub(super) const STEPS: usize = 2;
const DASHBOARD: &str = "charts/stoppablecontainer/monitoring/dashboard.json";
const ALERTS: &str = "charts/stoppablecontainer/monitoring/alerts.yaml";
/// The programs: `app.kubernetes.io/component` of their pods, and the port of their metrics.
const OPERATOR: (&str, u16) = ("controller", 8080);
const AGENT: (&str, u16) = ("node-agent", 8443);
/// Service account of the scraper, which is removed with the demo's namespace.
const SCRAPER: &str = "scraper";
/// Prometheus's usual port. If it is in use, another one is taken.
const USUAL_PORT: u16 = 9090;
/// Range of rates and quantiles. It includes a whole demo.
pub(super) const RANGE: &str = "5m";
/// Range of rates and quantiles in the picture, whose lines show when something happened.
const PICTURE_RANGE: &str = "30s";
/// Number of values in a line of the picture.
const VALUES: f64 = 100.0;
/// Seconds between two scrapes.
const SCRAPES: f64 = 1.0;
/// How long a program may take until it listens, and a value until it is there.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);

/// A running Prometheus. It ends when this is dropped.
pub(super) struct Monitor {
    port: u16,
    panels: Vec<Panel>,
    queries: Vec<Query>,
    /// When it started.
    begun: SystemTime,
    prometheus: Process,
    _forwards: Vec<Process>,
}

// === impl Monitor ===

impl Monitor {
    /// Starts Prometheus and waits until it serves. It scrapes from then on.
    pub(super) fn start(workspace: &Workspace, progress: &Progress, target: &Target<'_>) -> Result<Self> {
        let tools = Tools::of(workspace);
        tools.prepare_prometheus(progress)?;
        progress.step("Start Prometheus", |_| {
            let read = |path: &str| {
                fs::read_to_string(workspace.join(path)).with_context(|| format!("reading {path}"))
            };
            let dir = workspace.target().join("demo/prometheus");
            if dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
            }
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let write = |name: &str, text: &str| {
                let path = dir.join(name);
                fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
            };
            show::make_namespace(target)?;
            write("token", &token(target, &dir)?)?;
            write("alerts.yaml", &read(ALERTS)?)?;
            let mut forwards = Vec::new();
            let targets = Targets {
                operators: forwarded(workspace, target, OPERATOR, &mut forwards)?,
                agents: forwarded(workspace, target, AGENT, &mut forwards)?,
            };
            let configuration = dashboard::configuration(&targets, "alerts.yaml", "token");
            write("prometheus.yml", &configuration)?;
            let port = free_port()?;
            let mut command = Command::new(tools.prometheus().join("prometheus"));
            command
                .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
                .arg(format!("--web.listen-address={}:{port}", Ipv4Addr::LOCALHOST));
            let dashboard = read(DASHBOARD)?;
            let mut monitor = Self {
                port,
                panels: dashboard::panels(&dashboard)?,
                queries: dashboard::queries(&dashboard)?,
                begun: SystemTime::now(),
                prometheus: Process::start(workspace, "prometheus", &command)?,
                _forwards: forwards,
            };
            monitor.wait_until_ready()?;
            Ok(monitor)
        })
    }

    /// Prints what each panel shows at present, and the alerts that are active.
    pub(super) fn print(&self) -> Result<()> {
        println!("{}", panels::render(&self.present()?, RANGE));
        let alerts = Query {
            panel: String::new(),
            unit: String::new(),
            legend: "{{alertname}} ({{alertstate}})".to_owned(),
            expression: "ALERTS".to_owned(),
        };
        let active = self.series(&alerts)?;
        let names: Vec<_> = active.iter().map(|alert| alerts.name(alert)).collect();
        match names.as_slice() {
            [] => println!("Of the chart's alerts none is active."),
            names => println!("Active alerts of the chart: {}.", names.join(", ")),
        }
        Ok(())
    }

    /// Writes a picture of the panels, with their values since this was started.
    pub(super) fn draw(&self, file: &Path) -> Result<()> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map(|since| since.as_secs_f64().floor())
        };
        let (begin, end) = (seconds(self.begun)?, seconds(SystemTime::now())?);
        let step = ((end - begin) / VALUES).ceil().max(SCRAPES);
        let range = Range { begin, end, step };
        let answer = |query: &Query| {
            let response = self.get(&query.range_path(PICTURE_RANGE, range))?;
            dashboard::series(&response).with_context(|| format!("querying {}", query.expression))
        };
        let mut filled = Vec::new();
        for panel in &self.panels {
            let series: Result<Vec<_>> = panel.queries.iter().map(answer).collect();
            filled.push((panel, series?));
        }
        let svg = picture::draw(&filled, range)?;
        fs::write(file, &svg).with_context(|| format!("writing {}", file.display()))?;
        println!("{}: {} bytes", file.display(), svg.len());
        Ok(())
    }

    /// Prints where Prometheus is.
    pub(super) fn print_address(&self, workspace: &Workspace) {
        println!(
            "Prometheus serves at http://{}:{}. For a Grafana that can reach it: add a data source of the type\n\
             Prometheus with this URL, then import {} (Dashboards, New, Import).",
            Ipv4Addr::LOCALHOST,
            self.port,
            workspace.join(DASHBOARD).display()
        );
    }

    /// Serves until Prometheus or this program is ended.
    pub(super) fn serve(mut self) -> Result<()> {
        println!("Ctrl-C ends Prometheus.");
        self.prometheus.wait()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.get("/-/ready") {
            self.prometheus.require_alive()?;
            if Instant::now() > deadline {
                return Err(error.context("Prometheus does not serve"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The values of all panels. Waits for a while until each query has one.
    fn present(&self) -> Result<Vec<panels::Panel<'_>>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let panel = |query| Ok::<_, anyhow::Error>((query, self.series(query)?));
            let panels = self
                .queries
                .iter()
                .map(panel)
                .collect::<Result<Vec<panels::Panel<'_>>>>()?;
            if panels.iter().all(|(_, series)| !series.is_empty()) || Instant::now() > deadline {
                return Ok(panels);
            }
            thread::sleep(POLL);
        }
    }

    fn series(&self, query: &Query) -> Result<Vec<Sample>> {
        let response = self.get(&query.path(RANGE))?;
        dashboard::samples(&response).with_context(|| format!("querying {}", query.expression))
    }

    /// The body of the response to a GET request.
    fn get(&self, path: &str) -> Result<String> {
        let asking = || format!("asking Prometheus for {path}");
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).with_context(asking)?;
        connection.set_read_timeout(Some(PATIENCE)).with_context(asking)?;
        write!(connection, "GET {path} HTTP/1.0\r\n\r\n").with_context(asking)?;
        let mut response = String::new();
        connection.read_to_string(&mut response).with_context(asking)?;
        let (head, body) = response.split_once("\r\n\r\n").with_context(asking)?;
        ensure!(
            head.split(' ').nth(1) == Some("200"),
            "Prometheus responded to {path}: {}",
            head.lines().next().unwrap_or_default()
        );
        Ok(body.to_owned())
    }
}

/// A token that the agents accept.
fn token(target: &Target<'_>, dir: &Path) -> Result<String> {
    let namespace = show::NAMESPACE;
    let uid = target.kubectl_output(&["get", "namespace", namespace, "-o", "jsonpath={.metadata.uid}"])?;
    let manifest = dir.join("scraper.json");
    fs::write(&manifest, scraper(namespace, &uid).to_string())
        .with_context(|| format!("writing {}", manifest.display()))?;
    target.kubectl_output(&["apply", "-f", &manifest.display().to_string()])?;
    let token = target.kubectl_output(&["-n", namespace, "create", "token", SCRAPER, "--duration=24h"])?;
    Ok(token.trim().to_owned())
}

/// The service account of the scraper, and its binding to the chart's role, which goes away with
/// the namespace.
fn scraper(namespace: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": SCRAPER, "namespace": namespace } },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": { "name": format!("{namespace}-{SCRAPER}"), "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid },
                ] },
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": format!("{}-metrics-reader", install::RELEASE),
                },
                "subjects": [{ "kind": "ServiceAccount", "name": SCRAPER, "namespace": namespace }],
            },
        ],
    })
}

/// Forwards a port on loopback to each pod of a component, and returns their addresses. Networks of
/// pods cannot be reached from every machine.
fn forwarded(
    workspace: &Workspace,
    target: &Target<'_>,
    (component, port): (&str, u16),
    forwards: &mut Vec<Process>,
) -> Result<Vec<String>> {
    let labels = format!(
        "app.kubernetes.io/instance={},app.kubernetes.io/component={component}",
        install::RELEASE
    );
    let query = ["-n", install::NAMESPACE, "get", "pods", "-l", &labels];
    let query = [
        &query[..],
        &["--field-selector=status.phase=Running", "-o", "name"],
    ]
    .concat();
    let pods = target.kubectl_output(&query)?;
    let mut addresses = Vec::new();
    for pod in pods.lines() {
        let mut command = target.kubectl();
        command.args(["-n", install::NAMESPACE, "port-forward", pod, &format!(":{port}")]);
        let name = format!("forward-{component}-{}", addresses.len());
        let mut process = Process::start(workspace, &name, &command)?;
        addresses.push(wait_for_address(&mut process, pod)?);
        forwards.push(process);
    }
    ensure!(
        !addresses.is_empty(),
        "no pod of the {component} runs in {}",
        install::NAMESPACE
    );
    Ok(addresses)
}

fn wait_for_address(process: &mut Process, pod: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(address) = forwarding(&process.output()?) {
            return Ok(address);
        }
        process.require_alive()?;
        if Instant::now() > deadline {
            bail!(
                "`kubectl port-forward {pod}` does not listen after {} s",
                PATIENCE.as_secs()
            );
        }
        thread::sleep(POLL);
    }
}

/// The address in `Forwarding from 127.0.0.1:40123 -> 8080`.
fn forwarding(output: &str) -> Option<String> {
    let mut lines = output.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"))?;
    let (port, _) = rest.split_once(" -> ")?;
    Some(format!("127.0.0.1:{port}"))
}

fn free_port() -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = bind(USUAL_PORT)
        .or_else(|_| bind(0))
        .context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_whole_line() {
        assert_eq!(forwarding("Forwarding from 127.0.0.1:40123"), None);
        let output =
            "a warning\nForwarding from 127.0.0.1:40123 -> 8080\nForwarding from [::1]:40123 -> 8080\n";
        assert_eq!(forwarding(output).as_deref(), Some("127.0.0.1:40123"));
    }

    #[test]
    fn the_scraper_has_the_charts_role_while_the_namespace_exists() {
        let list = scraper("demo", "1-2");
        let binding = &list["items"][1];
        assert_eq!(binding["roleRef"]["name"], "stoppablecontainer-metrics-reader");
        assert_eq!(binding["subjects"][0]["namespace"], "demo");
        assert_eq!(binding["metadata"]["ownerReferences"][0]["uid"], "1-2");
    }
}
