//! The program `node-agent`: reads the command line, sets up the log, and reports an error once.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use node_agent::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    args.init_log();
    match node_agent::execute(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
