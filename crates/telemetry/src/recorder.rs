//! Spans in memory, for tests of the programs that make them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, filter::Targets};

use crate::SPANS;

/// Fields of a span by their names, as text.
pub type Fields = BTreeMap<&'static str, String>;

/// Keeps the fields of the spans that have ended.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Fields>>>);

/// Fields of a span that has not ended.
struct Open(Fields);

struct Reader<'a>(&'a mut Fields);

// === impl Recorder ===

impl Recorder {
    /// Records the spans of this thread, as far as they would be sent to a collector, until the
    /// guard is dropped.
    pub fn start() -> (Self, DefaultGuard) {
        let recorder = Self::default();
        let only = Targets::new().with_target(SPANS, tracing::Level::TRACE);
        let layer = recorder.clone().with_filter(only);
        let guard = subscriber::set_default(Registry::default().with(layer));
        (recorder, guard)
    }

    /// The spans that have ended since the last call, in the order of their ends.
    pub fn take(&self) -> Vec<Fields> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Reader(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Open(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(Open(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Reader(fields));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(Open(fields)) = span.extensions_mut().remove()
        {
            let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(fields);
        }
    }
}

impl Visit for Reader<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
