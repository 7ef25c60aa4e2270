/*!
Logs and traces of the programs: what they write to standard error, and which spans they send to a
collector.

Logs are always written. Traces (OpenTelemetry) are off unless the environment switches them on, see
[`Traces::from_variables`]. While they are off, no code of OpenTelemetry runs, and a span costs one
look at a flag.

# Guarantees
The exporter never delays the program. A span that ends goes into a bounded queue, and is dropped
when the queue is full. A thread of the exporter sends the queue with a connection and a time limit
of its own. The end of the program waits for that thread for at most [`FLUSH_LIMIT`].
*/

#![forbid(unsafe_code)]

mod client;
mod export;
mod log;
#[cfg(feature = "test-hooks")]
pub mod recorder;
mod settings;
mod spans;

use tracing_subscriber::util::SubscriberInitExt;

pub use export::{FLUSH_LIMIT, Telemetry};
pub use log::{LogError, LogFormat, LogOptions, subscriber};
pub use settings::{Traces, TracesError};
pub use spans::{CALLS, SPANS, bounded, failed, link_to_caller};

/// The program that writes logs and sends spans.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// `service.name` of its spans, unless the environment has another one.
    pub name: &'static str,
    /// `service.version` of its spans.
    pub version: &'static str,
}

/// Why a program cannot write logs or send spans.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
    /// See [`TracesError`].
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// Begins to log to standard error, and to send spans if the environment switches that on.
///
/// # Errors
/// When an option or a variable of the environment has a value that cannot be used.
pub fn init(program: Program, options: &LogOptions) -> Result<Telemetry, Error> {
    let traces = Traces::from_variables(|name| std::env::var(name).ok())?;
    let telemetry = match &traces {
        Some(traces) => Telemetry::start(program, traces)?,
        None => Telemetry::off(),
    };
    subscriber(options, &telemetry, std::io::stderr)?.init();
    if let Some(traces) = traces {
        tracing::info!(endpoint = %traces.endpoint(), "sending traces");
    }
    Ok(telemetry)
}

/// Begins to log to standard error. Spans are not sent.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_log(options: &LogOptions) -> Result<Telemetry, Error> {
    let telemetry = Telemetry::off();
    subscriber(options, &telemetry, std::io::stderr)?.init();
    Ok(telemetry)
}
