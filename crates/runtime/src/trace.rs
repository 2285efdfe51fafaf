//! W3C trace context: what a message carries in its headers, and how a span goes on from it.
//!
//! Spans are those of `tracing`; where no collector is named, or a trace is not sampled, nothing here leaves a mark.

use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that names trace and span.
pub const TRACEPARENT: &str = "traceparent";
/// The header in which vendors keep what is theirs.
pub const TRACESTATE: &str = "tracestate";
/// The header of what a request is about, for all that it sets off.
pub const BAGGAGE: &str = "baggage";

/// Where in a `traceparent` the flags are, whatever its version.
const FLAGS: std::ops::Range<usize> = 53..55;

/// A place in a trace that others go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`, and a `tracestate` where there is one; `None` where it is none, or not
    /// sampled. A newer version may have more behind it. A `tracestate` that cannot be read is left out, as the standard has it.
    #[must_use]
    pub fn sampled(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        // Most records are not sampled: that is known by the last bit of the flags, before anything is read.
        let traceparent = traceparent.trim_ascii();
        let flags = traceparent.get(FLAGS)?;
        if u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).is_ok_and(|flags| flags & 1 == 0) {
            return None;
        }
        let mut parts = std::str::from_utf8(traceparent).ok()?.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        let ends = if version == "00" { parts.next().is_none() } else { version != "ff" };
        if !(lengths && ends && [version, trace, span, flags].into_iter().all(lower)) {
            return None;
        }
        let state = tracestate.and_then(|state| TraceState::from_str(std::str::from_utf8(state).ok()?).ok());
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            state.unwrap_or_default(),
        );
        (context.is_valid() && context.is_sampled()).then_some(Self(context))
    }

    /// Where `span` is in its trace; `None` where it is not sampled, or nobody collects.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context().span().span_context().clone();
        (context.is_valid() && context.is_sampled()).then_some(Self(context))
    }

    /// `span` goes on from here; to be called before anything enters it.
    pub fn is_parent_of(&self, span: &Span) {
        let parent = opentelemetry::Context::new().with_remote_span_context(self.0.clone());
        // It fails only where the span is not collected.
        let _ = span.set_parent(parent);
    }

    /// `span` has to do with this, but does not go on from it.
    pub fn is_linked_from(&self, span: &Span) {
        span.add_link(self.0.clone());
    }

    /// As a header says it.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let Self(context) = self;
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }

    /// As a header says it; empty where there is none.
    #[must_use]
    pub fn tracestate(&self) -> String {
        self.0.trace_state().header()
    }
}

/// How many traces may begin within a second, so that producers who sample everything do not make tracing the main work.
#[derive(Debug)]
pub struct Allowance {
    each_second: u32,
    left: u32,
    until: u64,
}

impl Allowance {
    /// `each_second`, all of it at once if need be.
    #[must_use]
    pub const fn new(each_second: u32) -> Self {
        Self { each_second, left: each_second, until: 0 }
    }

    /// Takes one, where one is left at `now`, in milliseconds of a clock that does not go back.
    pub const fn take(&mut self, now: u64) -> bool {
        if now >= self.until {
            self.until = now.saturating_add(1000);
            self.left = self.each_second;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_reads_as_it_is_written() {
        let context = TraceContext::sampled(PARENT, Some(b"vendor=a:1,other=2")).unwrap();
        assert_eq!(context.traceparent().as_bytes(), PARENT);
        assert_eq!(context.tracestate(), "vendor=a:1,other=2");
        assert_eq!(TraceContext::sampled(PARENT, None).unwrap().tracestate(), "");
        assert_eq!(TraceContext::sampled(PARENT, Some(b"=,=\xff")).unwrap().tracestate(), "");
    }

    #[test]
    fn what_is_not_sampled_or_not_valid_is_none() {
        for wrong in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            assert_eq!(TraceContext::sampled(wrong.as_bytes(), None), None, "{wrong}");
        }
        let newer = b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceContext::sampled(newer, None).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>, state: Vec<u8>) {
            let _ = TraceContext::sampled(&bytes, Some(&state));
        }
    }

    #[test]
    fn an_allowance_is_renewed_each_second() {
        let mut allowance = Allowance::new(2);
        let taken: Vec<bool> =
            [0, 10, 20, 999, 1000, 1001, 1002].into_iter().map(|now| allowance.take(now)).collect();
        assert_eq!(taken, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn without_a_collector_a_span_is_nowhere() {
        assert_eq!(TraceContext::of(&tracing::info_span!("nothing")), None);
    }
}
