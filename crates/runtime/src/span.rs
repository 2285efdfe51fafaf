//! Spans of traces, given to OpenTelemetry as they are; `tracing` is for the log alone.
//!
//! A sampled record has a span, and by way of a layer of `tracing` that cost more than the record (`docs/benchmarks.md`, "What
//! traces and metrics cost"). Where no collector is named, or a trace is not sampled, a span is nothing.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{self as sdk, SdkTracer};

use crate::trace::TraceContext;

pub use opentelemetry::trace::SpanKind;

/// The tracer of the process, which is one as the log is.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Lets spans begin from now on; false where others did so before.
pub(crate) fn collect(tracer: SdkTracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// What a span says of what it stands for.
#[derive(Debug, Default)]
pub struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Room for so many.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// One more, by its name in OpenTelemetry's conventions.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.0.push(KeyValue::new(name, value));
        self
    }
}

/// A span; it ends when it is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(sdk::Span);

impl Span {
    /// Begins a trace, if it is one of those that are sampled (`--otlp-sample`).
    pub fn root(name: &'static str) -> Option<Self> {
        let tracer = TRACER.get()?;
        let span = tracer.build_with_context(SpanBuilder::from_name(name), &Context::new());
        span.is_recording().then_some(Self(span))
    }

    /// Goes on from `parent`, linked to what else it came from.
    pub fn child<'a>(
        parent: &TraceContext,
        links: impl IntoIterator<Item = &'a TraceContext>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Attributes,
    ) -> Option<Self> {
        let tracer = TRACER.get()?;
        let links = links.into_iter().map(TraceContext::link).collect();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes.0);
        let span = tracer.build_with_context(builder.with_links(links), &parent.as_parent());
        span.is_recording().then_some(Self(span))
    }

    /// Says more of it.
    pub fn set(&mut self, attributes: Attributes) {
        self.0.set_attributes(attributes.0);
    }

    /// Where in its trace it is.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        TraceContext::from(self.0.span_context())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_a_span_is_nothing() {
        let parent = TraceContext::sampled(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        assert!(Span::root("commit").is_none());
        let child = Span::child(&parent.unwrap(), [], "send", SpanKind::Producer, Attributes::default());
        assert!(child.is_none());
    }
}
