/*!
`cargo xtask`: the commands for developers, the same on a laptop and in CI.
*/

#![forbid(unsafe_code)]

mod args;
mod bench;
mod book;
mod cluster;
mod codegen;
mod demo;
mod durability;
mod fuzz;
mod images;
mod install;
mod kernels;
mod lint;
mod machine_tests;
mod plugin;
mod process;
mod progress;
mod record;
mod results;
mod second_cluster;
mod shell;
mod target;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, BenchCommand, ClusterCommand, Command};
use cluster::Cluster;
use images::pause;
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
        Command::Cluster(command) => {
            return run_cluster(command, Cluster::new(&workspace, &progress, pause::provide));
        }
        Command::Demo {
            registry,
            dashboard,
            picture,
        } => {
            let registry = registry.registry.as_deref();
            demo::run(&workspace, &progress, registry, *dashboard, picture.as_deref())?;
        }
        Command::Record { plugin } => record::run(&workspace, &progress, plugin.as_deref())?,
        Command::Install(arg) => install::command(&workspace, &progress, arg.registry.as_deref())?,
        Command::Test {
            kubernetes,
            vm: Some(lsm),
            names,
            ..
        } => {
            let options = machine_tests::Options {
                lsm: *lsm,
                kubernetes: *kubernetes,
                names,
            };
            machine_tests::run(&workspace, &progress, &options)?;
        }
        Command::Test {
            class,
            kernels,
            registry,
            skip_e2e,
            all,
            kubernetes,
            runtime,
            vm: None,
            names,
        } => {
            let options = test::Options {
                class: *class,
                kernels,
                registry: registry.registry.as_deref(),
                skip_e2e: *skip_e2e,
                all: *all,
                kubernetes: *kubernetes,
                runtime: *runtime,
                names,
            };
            test::run(&workspace, &progress, &options)?;
        }
        Command::TestOtherRelease => test::run_other_release(&workspace, &progress)?,
        Command::Durability { trials, add, rows } => {
            let options = durability::Options {
                trials: *trials,
                add: *add,
                rows,
            };
            durability::run(&workspace, &progress, &options)?;
        }
        Command::Bench(BenchCommand::Scale(scale)) => bench::scale(&workspace, &progress, *scale)?,
        Command::Bench(BenchCommand::Admission(options)) => {
            bench::admission::run(&workspace, &progress, *options)?;
        }
        Command::Bench(BenchCommand::Starts(starts)) => bench::starts::run(&workspace, &progress, starts)?,
        Command::Bench(BenchCommand::Io(options)) => bench::io::run(&workspace, &progress, *options)?,
        Command::Bench(BenchCommand::Report) => bench::report::run(&workspace, &progress)?,
        Command::Fuzz {
            seconds,
            runs,
            targets,
        } => {
            let limit = runs.map_or(fuzz::Limit::Seconds(*seconds), fuzz::Limit::Runs);
            fuzz::command(&workspace, &progress, targets, limit)?;
        }
        Command::Book => book::command(&workspace, &progress)?,
        Command::Lint => lint::run(&workspace, &progress)?,
        Command::Codegen { check } => codegen::command(&workspace, &progress, *check)?,
        Command::Image(arg) => images::command(&workspace, &progress, arg.registry.clone())?,
        Command::Sbom => images::sbom::command(&workspace, &progress)?,
        Command::Plugin { install } => plugin::command(&workspace, &progress, install.as_deref())?,
        Command::TestImages => images::test_command(&workspace, &progress)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_cluster(command: &ClusterCommand, cluster: Cluster<'_>) -> Result<ExitCode> {
    match command {
        ClusterCommand::Up {
            nodes,
            kubernetes,
            runtime,
        } => cluster
            .with_release(*kubernetes)
            .with_runtime(*runtime)
            .up(*nodes)?,
        ClusterCommand::Programs { kubernetes, vm } => cluster.with_release(*kubernetes).programs(*vm)?,
        ClusterCommand::Down => cluster.down()?,
        ClusterCommand::Status if !cluster.status()? => return Ok(ExitCode::FAILURE),
        ClusterCommand::Status => {}
        ClusterCommand::Load { file } => cluster.load(file)?,
        ClusterCommand::Kubeconfig => println!("{}", cluster.existing_kubeconfig()?.display()),
        ClusterCommand::Reboot { node, write_cache } => cluster.reboot(node, *write_cache)?,
        ClusterCommand::Add { node } => cluster.add(node)?,
        ClusterCommand::Remove { node } => cluster.remove(node)?,
        ClusterCommand::Replace { node, by } => cluster.replace(node, by)?,
        ClusterCommand::Drain { node, timeout } => cluster.drain(node, *timeout)?,
        ClusterCommand::Restart { etcd_snapshot } => cluster.restart(etcd_snapshot.as_deref())?,
        ClusterCommand::Partition { node, pods } => cluster.partition(node, pods)?,
        ClusterCommand::EtcdKeys => print!("{}", cluster.etcd_keys()?),
        ClusterCommand::EtcdSnapshot { file } => cluster.etcd_snapshot(file)?,
        ClusterCommand::NodeInit { node } => cluster.node_init(node)?,
    }
    Ok(ExitCode::SUCCESS)
}
