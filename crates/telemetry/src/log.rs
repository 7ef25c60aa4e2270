//! Logs: text for people, JSON for collectors.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::export::Telemetry;
use crate::spans::SPANS;

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    #[value(alias = "compact")]
    Text,
    /// One JSON object per event.
    Json,
}

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// Log filter, such as info or info,kube=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log: String,
    /// Format of log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, global = true)]
    pub log_format: LogFormat,
}

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--log (RUST_LOG) {filter:?} is not a log filter; use a level such as info, or TARGET=LEVEL,...")]
pub struct LogError {
    filter: String,
    #[source]
    error: ParseError,
}

/// Writes log lines to `writer`, and passes spans on to the exporter, if there is one.
///
/// # Errors
/// When the filter cannot be read.
pub fn subscriber<W>(
    options: &LogOptions,
    telemetry: &Telemetry,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&options.log).map_err(|error| LogError {
        filter: options.log.clone(),
        error,
    })?;
    // Spans for the collector do not make log lines longer, and do not exist without a collector.
    let spans = format!("{SPANS}=off").parse();
    let filter = spans.map_or(filter.clone(), |off| filter.add_directive(off));
    let format = options.log_format;
    Ok(match telemetry.layer() {
        None => Box::new(
            tracing_subscriber::registry()
                .with(filter)
                .with(lines(format, writer)),
        ),
        Some(spans) => Box::new(
            tracing_subscriber::registry()
                .with(lines(format, writer).with_filter(filter))
                .with(spans),
        ),
    })
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}
