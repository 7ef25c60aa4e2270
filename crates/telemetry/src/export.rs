//! The exporter: samples spans, queues them, and sends them in batches from a thread of its own.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::Program;
use crate::client::Client;
use crate::settings::{Traces, TracesError};
use crate::spans::{CALLS, SPANS};

/// How long the end of the program waits until the last spans are sent.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The exporter of a program, or nothing while traces are off.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    name: &'static str,
}

// === impl Telemetry ===

impl Telemetry {
    /// Traces that are off.
    pub const fn off() -> Self {
        Self {
            provider: None,
            name: "",
        }
    }

    /// Starts the thread of the exporter. It connects when there are spans to send.
    ///
    /// # Errors
    /// [`TracesError::Start`] when its client or its thread cannot be set up.
    pub fn start(program: Program, traces: &Traces) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(traces).map_err(TracesError::Start)?)
            .with_endpoint(traces.endpoint().to_string())
            .with_timeout(traces.timeout)
            .build()
            .map_err(|error| TracesError::Start(error.into()))?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(traces.sampler.clone())
            .with_resource(resource(program))
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        Ok(Self {
            provider: Some(provider),
            name: program.name,
        })
    }

    /// What passes spans on to the exporter.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let tracer = self.provider.as_ref()?.tracer(self.name);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        // Events stay out: a log line may repeat what a user wrote.
        let is_ours = |target: &str| target == SPANS || target == CALLS;
        let filter = dynamic_filter_fn(move |metadata, context| {
            let target = metadata.target();
            metadata.is_span() && (target == SPANS || target == CALLS && context.lookup_current().is_some())
        })
        .with_callsite_filter(move |metadata| {
            if metadata.is_span() && is_ours(metadata.target()) {
                tracing::subscriber::Interest::sometimes()
            } else {
                tracing::subscriber::Interest::never()
            }
        });
        Some(layer.with_filter(filter))
    }

    /// Sends what is queued, and waits for that. For tests.
    pub fn flush(&self) {
        let Some(provider) = &self.provider else {
            return;
        };
        if let Err(error) = provider.force_flush() {
            tracing::debug!(%error, "spans are not sent yet");
        }
    }

    /// Sends what is queued, for at most [`FLUSH_LIMIT`]. For the end of the program, when all
    /// requests have been answered.
    pub fn shutdown(self) {
        let Some(provider) = self.provider else {
            return;
        };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::debug!(%error, "the last spans are not sent");
        }
    }
}

/// What all spans of the program have. The environment wins: an administrator names services.
fn resource(program: Program) -> Resource {
    let mut resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", program.name),
            KeyValue::new("service.version", program.version),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Ok(name) = std::env::var("OTEL_SERVICE_NAME")
        && !name.is_empty()
    {
        resource = resource.with_service_name(name);
    }
    resource.build()
}
