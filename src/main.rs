//! The operator binary: everything is in the library.

use std::process::ExitCode;

use clap::Parser;
use stoppablecontainer::{args::Args, config::Config, operator};
use telemetry::Program;

/// The name of the program in traces.
const PROGRAM: Program = Program {
    name: "stoppablecontainer-controller",
    version: env!("CARGO_PKG_VERSION"),
};

// Few threads: all reconciliations share one, the others are for the webhook. By default there
// would be one for each processor of the node, each with a decoded template (invariant I18).
#[tokio::main(worker_threads = 4)]
async fn main() -> ExitCode {
    match start(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logging may be what failed.
            eprintln!("operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> anyhow::Result<()> {
    let telemetry = telemetry::init(PROGRAM, &args.log)?;
    let result = serve(args).await;
    // Blocks for a second at most, when nothing else is left to do.
    telemetry.shutdown();
    result
}

async fn serve(args: Args) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed");
    }
    let config = Config::try_from(args)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), webhook = %config.webhook_address, "starting");
    operator::run(config).await.map_err(Into::into)
}
