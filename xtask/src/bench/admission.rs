/*!
`bench admission`: what admission costs. A control plane without controllers, scheduler and nodes
runs on loopback in a directory of its own, and `crates/admission-load` creates the load and
measures.

Everything is removed at the end. Processes end with this program, however it ends.
*/

mod table;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::page::{self, Circumstances};
use super::{ADMIN, Place, WEBHOOK_PORT, installation, start_parts};
use crate::args::AdmissionArgs;
use crate::cluster::control_plane::API_SERVER;
use crate::cluster::dir::ClusterDir;
use crate::process::{self, Process};
use crate::progress::{Progress, Step};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Of the reference webhook.
const REFERENCE: &str = "127.0.0.1:18444";
/// Connections to the webhook alone.
const CONNECTIONS: &str = "1,10,50,200";
/// Clients that create pods.
const CLIENTS: &str = "10,50,200,500";
/// How long the reference may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the benchmark and prints the tables.
///
/// # Errors
/// When it cannot be run to its end, or a request fails. A goal that is missed is not an error.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: AdmissionArgs) -> Result<()> {
    let tools = Tools::of(workspace).with_release(options.kubernetes.unwrap_or_default());
    let is_quick = options.quick;
    let options = if is_quick { options.quick() } else { options };
    progress.expect(5);
    tools.prepare_control_plane(workspace, progress)?;
    progress.step("Build the operator and its load", |step| {
        let mut command = Command::new("cargo");
        command.current_dir(workspace.root());
        command.args(["build", "--release", "--bins"]);
        step.run(command.args(["-p", "stoppablecontainer", "-p", "admission-load"]))
    })?;
    let place = Place::new(workspace)?;
    let started = progress.step("Start etcd, the API server and the reference", |step| {
        let wanted = |part: &str| part == "etcd" || part == API_SERVER;
        let mut processes = start_parts(workspace, step, &tools, &place.0, wanted)?;
        processes.push(start_reference(workspace, &place.0)?);
        Ok(processes)
    });
    let _processes = started?;
    let output = results(workspace, options);
    progress.step("Measure", |step| {
        installation::apply(workspace, step, &tools, &place.0, WEBHOOK_PORT)?;
        measure(workspace, step, &place.0, options, &output)
    })?;
    Circumstances::now(tools.release())?.add_to(&output)?;
    let tables = table::render(&page::read(&output)?);
    println!("{tables}");
    progress.say(format!("{} has the measurements", output.display()));
    if is_quick {
        return Ok(());
    }
    page::write(workspace, progress, "bench admission", &tables)
}

/// File of the measurements.
fn results(workspace: &Workspace, options: AdmissionArgs) -> PathBuf {
    let name = if options.quick {
        "admission-quick"
    } else {
        "admission"
    };
    workspace.target().join(format!("bench/{name}.json"))
}

fn program(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target().join("release").join(name)
}

fn reference_certificate(dir: &ClusterDir) -> PathBuf {
    dir.join("reference.crt")
}

/// Starts the webhook that changes nothing. It listens before it writes its certificate.
fn start_reference(workspace: &Workspace, dir: &ClusterDir) -> Result<Process> {
    let certificate = reference_certificate(dir);
    let mut command = Command::new(program(workspace, "admission-load"));
    command.args(["reference", "--address", REFERENCE, "--certificate"]);
    command.arg(&certificate);
    let mut process = Process::start(workspace, "reference", &command)?;
    let deadline = Instant::now() + PATIENCE;
    while !fs::metadata(&certificate).is_ok_and(|file| file.len() > 0) {
        process.require_alive()?;
        ensure!(Instant::now() < deadline, "the reference does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

fn measure(
    workspace: &Workspace,
    step: &Step<'_>,
    dir: &ClusterDir,
    options: AdmissionArgs,
    output: &PathBuf,
) -> Result<()> {
    let parent = output.parent().unwrap_or(output);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let mut load = process::bound_to_this(program(workspace, "admission-load"));
    load.arg("measure");
    load.arg("--kubeconfig").arg(dir.admin_kubeconfig());
    load.arg("--operator-kubeconfig")
        .arg(installation::operator_kubeconfig(dir));
    load.arg(format!("--webhook=127.0.0.1:{WEBHOOK_PORT}"));
    load.arg(format!("--admin={ADMIN}"));
    load.arg(format!("--reference={REFERENCE}"));
    load.arg("--reference-certificate")
        .arg(reference_certificate(dir));
    for (flag, number) in [
        ("reviews", options.reviews),
        ("creations", options.creations),
        ("rounds", options.rounds),
    ] {
        load.arg(format!("--{flag}={number}"));
    }
    load.arg(format!("--connections={CONNECTIONS}"));
    load.arg(format!("--clients={CLIENTS}"));
    load.arg("--output").arg(output).arg("--");
    let operator = process::bound_to_this(program(workspace, "operator"));
    load.arg(operator.get_program()).args(operator.get_args());
    load.args(installation::operator_arguments(WEBHOOK_PORT, ADMIN));
    load.env("KUBECONFIG", installation::operator_kubeconfig(dir));
    step.run(&mut load)
}
