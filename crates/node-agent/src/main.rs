/*!
The node agent: inline CSI plugin and mounter, one on every node.

It gives provider and consumer pods the volume with the wrapper and a socket,
keeps the kept filesystems' data, and moves consumers onto them. What it knows of
pods and instances it asks the API server; what it knows of processes it asks the
kernel. It may die at any time: running consumers do not notice.
*/

#![forbid(unsafe_code)]

mod agent;
mod args;
mod attend;
mod authorise;
mod blocked;
mod cgroup;
mod csi;
mod data;
mod disks;
mod filesystem;
mod hold;
mod host;
mod image;
mod image_config;
mod image_pin;
mod instances;
mod journal;
mod left_behind;
mod metrics;
mod orphans;
mod pace;
mod pod;
mod probe;
mod published;
mod recovery;
mod removal;
mod serve;
mod space;
mod start;
mod status;
mod usage;
mod users;
mod volumes;
mod watch;
mod writeback;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.init();
    let result = match &args.command {
        Command::Run(run) => agent::run(run),
        Command::Probe(probe) => probe::run(probe),
        Command::Orphans(orphans) => orphans::run(orphans),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
