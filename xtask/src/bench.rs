/*!
`bench scale`: the operator with thousands of objects. A control plane of its own runs on loopback
in a directory of its own; kwok simulates the nodes, and `crates/scale-load` creates the load and
measures.

Everything is removed at the end. Processes end with this program, however it ends.
*/

pub(crate) mod admission;
mod installation;
pub(crate) mod io;
mod page;
pub(crate) mod report;
mod stages;
pub(crate) mod starts;
mod table;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use page::Circumstances;

use crate::args::ScaleArgs;
use crate::cluster::control_plane::{self, API_SERVER, Ports};
use crate::cluster::dir::ClusterDir;
use crate::cluster::pki::Pki;
use crate::process::{self, Process};
use crate::progress::{Progress, Step};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Ports next to those of the local cluster.
const PORTS: Ports = Ports {
    address: Ipv4Addr::LOCALHOST,
    api: 16443,
    etcd: 12379,
    etcd_peer: 12380,
    controller_manager: 20257,
    scheduler: 20259,
};
/// Of the operator.
const WEBHOOK_PORT: u16 = 18443;
const ADMIN: &str = "127.0.0.1:18080";
/// Of kwok.
const KWOK: &str = "127.0.0.1:20247";
/// Seconds that a part of the measurement may take with few objects. With many, it may take half a
/// second for each.
const LIMIT: u32 = 900;
/// How long the API server may take until it answers.
const PATIENCE: Duration = Duration::from_mins(3);
/// What the parts of the control plane get besides the arguments of the local cluster. With the
/// default limits of their clients, the scheduler binds 50 pods per second.
const ARGUMENTS: [(&str, &[&str]); 3] = [
    (
        API_SERVER,
        &[
            "--bind-address=127.0.0.1",
            // The address of the Service `kubernetes` may not be of loopback.
            "--endpoint-reconciler-type=none",
            // The webhook's Service names an address of loopback, which no endpoint can.
            "--enable-aggregator-routing=false",
            // Streamed lists need a newer etcd than Debian's: kwok asks for them, and its watches
            // break off.
            "--feature-gates=WatchList=false",
        ],
    ),
    (
        "kube-controller-manager",
        &[
            // It would publish an event for each foreign claim.
            "--controllers=*,-persistentvolume-binder-controller",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ],
    ),
    (
        "kube-scheduler",
        &["--kube-api-qps=1000", "--kube-api-burst=2000"],
    ),
];

/// Runs the benchmark and prints the table.
///
/// # Errors
/// When it cannot be run to its end. A goal that is missed is not an error.
pub(crate) fn scale(workspace: &Workspace, progress: &Progress, options: ScaleArgs) -> Result<()> {
    if options.table {
        return table::document(workspace, progress, |objects| results(workspace, objects));
    }
    let tools = Tools::of(workspace);
    progress.expect(6);
    tools.prepare_control_plane(workspace, progress)?;
    tools.prepare_kwok(progress)?;
    progress.step("Build the operator and its load", |step| {
        let mut command = Command::new("cargo");
        command.current_dir(workspace.root());
        command.args(["build", "--release", "--bins"]);
        step.run(command.args(["-p", "stoppablecontainer", "-p", "scale-load"]))
    })?;
    let place = Place::new(workspace)?;
    let result = progress.step("Start the control plane and kwok", |step| {
        start(workspace, step, &tools, &place.0)
    });
    let _processes = result?;
    let output = results(workspace, options.objects);
    progress.step("Measure", |step| {
        installation::apply(workspace, step, &tools, &place.0, WEBHOOK_PORT)?;
        measure(workspace, step, &place.0, options, &output)
    })?;
    Circumstances::now(tools.release())?.add_to(&output)?;
    let measured = page::read(&output)?;
    println!("{}", table::render(&[&measured]));
    table::document(workspace, progress, |objects| results(workspace, objects))
}

/// File of the measurements with this many objects.
fn results(workspace: &Workspace, objects: u32) -> PathBuf {
    workspace.target().join(format!("bench/scale-{objects}.json"))
}

/// The directory of the control plane, removed when it is dropped.
struct Place(ClusterDir);

// === impl Place ===

impl Place {
    /// A new directory, in place of what a run left that was killed.
    fn new(workspace: &Workspace) -> Result<Self> {
        let place = Self(ClusterDir::at(workspace.target().join("bench/control-plane")));
        place.0.remove()?;
        place.0.make("", 0o700)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("{error:#}");
        }
    }
}

/// Starts the whole control plane, and kwok.
fn start(workspace: &Workspace, step: &Step<'_>, tools: &Tools, dir: &ClusterDir) -> Result<Vec<Process>> {
    let mut processes = start_parts(workspace, step, tools, dir, |_| true)?;
    let stages = dir.write("stages.yaml", stages::TEXT.as_bytes(), 0o600)?;
    let mut kwok = tools.kwok();
    kwok.arg("--kubeconfig").arg(dir.admin_kubeconfig());
    kwok.arg("--config").arg(stages);
    kwok.args(["--manage-all-nodes=true", "--node-ip=127.0.0.1"]);
    // Without leases the controller manager takes the nodes for dead.
    kwok.arg("--node-lease-duration-seconds=40");
    kwok.arg(format!("--server-address={KWOK}"));
    processes.push(Process::start(workspace, "kwok", &kwok)?);
    Ok(processes)
}

/// Starts these parts of the control plane.
fn start_parts(
    workspace: &Workspace,
    step: &Step<'_>,
    tools: &Tools,
    dir: &ClusterDir,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Process>> {
    Pki::with_port(dir, PORTS.api).prepare_control_plane()?;
    let mut processes = Vec::new();
    let parts = control_plane::commands(dir, tools, PORTS).into_iter();
    for (name, mut command) in parts.filter(|(name, _)| wanted(name)) {
        step.note(format!("starting {name}"));
        let more = ARGUMENTS.iter().filter(|(part, _)| *part == name);
        command.args(more.flat_map(|(_, arguments)| *arguments));
        processes.push(Process::start(workspace, name, &command)?);
        if name == API_SERVER {
            let deadline = Instant::now() + PATIENCE;
            while !control_plane::is_ready(dir, tools) {
                for process in &mut processes {
                    process.require_alive()?;
                }
                ensure!(Instant::now() < deadline, "the API server is not ready");
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
    Ok(processes)
}

fn measure(
    workspace: &Workspace,
    step: &Step<'_>,
    dir: &ClusterDir,
    options: ScaleArgs,
    output: &PathBuf,
) -> Result<()> {
    let parent = output.parent().unwrap_or(output);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let programs = workspace.target().join("release");
    let mut load = process::bound_to_this(programs.join("scale-load"));
    load.arg("--kubeconfig").arg(dir.admin_kubeconfig());
    for (flag, number) in [
        ("objects", options.objects),
        ("nodes", options.nodes),
        ("foreign", options.foreign),
        ("churn", options.churn.min(options.objects)),
        ("rate", options.rate),
        ("idle", options.idle),
        ("limit", (options.objects / 2).max(LIMIT)),
    ] {
        load.arg(format!("--{flag}={number}"));
    }
    load.arg(format!("--admin={ADMIN}"));
    load.arg("--output").arg(output).arg("--");
    let operator = process::bound_to_this(programs.join("operator"));
    load.arg(operator.get_program()).args(operator.get_args());
    load.args(installation::operator_arguments(WEBHOOK_PORT, ADMIN));
    load.env("KUBECONFIG", installation::operator_kubeconfig(dir));
    step.run(&mut load)
}
