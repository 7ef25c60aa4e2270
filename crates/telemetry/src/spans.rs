//! What the programs say in their spans: targets, bounds of attributes, the caller's trace.

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use stoppablecontainer_api::truncate_utf8;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Target of the spans that are sent to the collector. No log line contains them.
pub const SPANS: &str = "stoppablecontainer::spans";
/// Target of spans that exist only inside one of [`SPANS`], such as a call to the API server: most
/// calls are watches and renewals, which are not part of anything.
pub const CALLS: &str = "stoppablecontainer::spans::calls";

/// Longest attribute in bytes: names of objects have no more characters (RFC 1123, DNS subdomain).
const LONGEST: usize = 253;

/// A text of a client as an attribute. The queue of spans is bounded by their number, so each has
/// to be small (invariant I18).
pub fn bounded(text: &str) -> &str {
    truncate_utf8(text, LONGEST)
}

/// Marks a span as failed. It needs the field `otel.status_code`.
pub fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

/// Links a span to the span of the caller, if the request has a `traceparent` (W3C Trace Context).
///
/// The span stays the root of a trace of its own. The port of the webhook does not authenticate its
/// clients, so a client must not decide which trace a span belongs to, nor that it is exported.
pub fn link_to_caller(span: &Span, headers: &http::HeaderMap) {
    if span.is_disabled() || !headers.contains_key("traceparent") {
        return;
    }
    let caller = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    span.add_link(caller.span().span_context().clone());
}
