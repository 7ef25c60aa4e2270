//! The chart's jobs: the certificate job makes the authority and publishes it, so that nothing is
//! created before the webhook can be trusted. The others are hooks of the chart.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use kube::Client;
use tracing_subscriber::EnvFilter;
use webhook_certs::{Keeper, Lifetimes, Options, Source, Status, hooks, parse_duration};

/// Certificates of the StoppableContainer webhook.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes the authority's Secret unless there is a good one, waits for both webhook
    /// configurations, publishes caBundle.
    Ensure(Ensure),
    /// Fails while there are StoppableContainers, before `helm uninstall`.
    CheckUnused,
    /// Checks for `helm test` that the API server calls the webhook.
    CheckWebhook {
        /// Namespace of the objects. They are dry runs, so they are not stored.
        #[arg(long, default_value = "default")]
        namespace: String,
    },
}

#[derive(Args)]
struct Ensure {
    /// Name of the Secret.
    #[arg(long, env = "CERTIFICATE_SECRET")]
    secret: String,
    /// Namespace of Secret and Service.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Name of the webhook's Service.
    #[arg(long, env = "WEBHOOK_SERVICE")]
    service: String,
    /// Name of the MutatingWebhookConfiguration.
    #[arg(long, env = "MUTATING_WEBHOOK_CONFIGURATION")]
    mutating_webhook_configuration: String,
    /// Name of the ValidatingWebhookConfiguration.
    #[arg(long, env = "VALIDATING_WEBHOOK_CONFIGURATION")]
    validating_webhook_configuration: String,
    /// Life of the authority.
    #[arg(long, env = "CERTIFICATE_AUTHORITY_LIFETIME", default_value = "365d", value_parser = parse_duration)]
    authority_lifetime: Duration,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 120)]
    timeout_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(Command::parse().verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    // Fails only if one is installed already, which will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = apiserver::client().await.context("cannot reach the API server")?;
    match verb {
        Verb::Ensure(options) => ensure(client, options).await?,
        Verb::CheckUnused => hooks::check_unused(&client).await?,
        Verb::CheckWebhook { namespace } => hooks::check_webhook(&client, &namespace).await?,
    }
    Ok(())
}

async fn ensure(client: Client, ensure: Ensure) -> anyhow::Result<()> {
    // The operator's other lives do not matter here, but they have to fit.
    let Lifetimes {
        leaf,
        overlap,
        renew_after_percent,
        ..
    } = Lifetimes::default();
    let authority = ensure.authority_lifetime;
    let lifetimes = Lifetimes {
        authority,
        leaf: leaf.min(authority / 3),
        overlap: overlap.min(authority / 6),
        renew_after_percent,
    };
    if !lifetimes.is_sound() {
        bail!("--authority-lifetime must be three minutes at least and 20 years at most");
    }
    let keeper = Keeper::new(
        client,
        Options {
            namespace: ensure.namespace,
            secret: ensure.secret,
            service: ensure.service,
            mutating: ensure.mutating_webhook_configuration,
            validating: ensure.validating_webhook_configuration,
            source: Source::SelfManaged(lifetimes),
            clock: SystemTime::now,
        },
    );
    let (mut ready, status) = (keeper.status(), keeper.status());
    let timeout = Duration::from_secs(ensure.timeout_seconds);
    tokio::select! {
        () = keeper.run() => bail!("the watches ended"),
        done = ready.wait_for(|status| status.is_ready()) => done.map(drop).context("the watches ended"),
        () = tokio::time::sleep(timeout) => {
            let Status { certificate, published } = *status.borrow();
            bail!("not done after {timeout:?} (certificate: {certificate}, caBundle published: {published}); the warnings above say why")
        }
    }
}
