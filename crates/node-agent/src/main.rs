//! The program `node-agent`: reads the command line, sets up the log, and reports an error once.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use node_agent::Args;
use telemetry::Program;

/// The name of the program in traces.
const PROGRAM: Program = Program {
    name: "stoppablecontainer-node-agent",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    let args = Args::parse();
    let telemetry = if args.serves() {
        telemetry::init(PROGRAM, &args.log)
    } else {
        // A probe of the kubelet is not worth a thread that sends spans.
        telemetry::init_log(&args.log)
    };
    let telemetry = match telemetry {
        Ok(telemetry) => telemetry,
        Err(error) => {
            // Logging may be what failed.
            eprintln!("node-agent: {:#}", anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let result = node_agent::execute(&args);
    if let Err(error) = &result {
        tracing::error!("{error:#}");
    }
    telemetry.shutdown();
    result.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
