/*!
`cargo xtask`: everything that a developer runs, the same on a laptop and in CI.
*/

#![forbid(unsafe_code)]

mod args;
mod cluster;
mod images;
mod progress;
mod shell;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, ClusterCommand, Command};
use cluster::Cluster;
use progress::Progress;
use workspace::Workspace;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current();
    let progress = Progress::new(workspace.logs());
    match &args.command {
        Command::Cluster(command) => run_cluster(command, &Cluster::new(&workspace, &progress)),
        Command::TestImages => {
            progress.expect(1 + images::testing::STEPS);
            tools::Tools::prepare_images(&progress)?;
            images::testing::provide(&workspace, &progress, &images::Destination::Embedded)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_cluster(command: &ClusterCommand, cluster: &Cluster<'_>) -> Result<ExitCode> {
    match command {
        ClusterCommand::Up => cluster.up()?,
        ClusterCommand::Down => cluster.down()?,
        ClusterCommand::Status if !cluster.status()? => return Ok(ExitCode::FAILURE),
        ClusterCommand::Status => {}
        ClusterCommand::Load { file } => cluster.load(file)?,
        ClusterCommand::Kubeconfig => println!("{}", cluster.existing_kubeconfig()?.display()),
        ClusterCommand::Reboot { node } => cluster.reboot(node)?,
        ClusterCommand::NodeInit { node } => cluster.node_init(node)?,
    }
    Ok(ExitCode::SUCCESS)
}
