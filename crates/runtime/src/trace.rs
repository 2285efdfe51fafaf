//! W3C trace context: what a message carries in its headers, and where a [span](crate::span::Span) goes on.

use std::str::FromStr;

use opentelemetry::trace::{Link, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, ContextGuard};

/// The header that names trace and span.
pub const TRACEPARENT: &str = "traceparent";
/// The header in which vendors keep what is theirs.
pub const TRACESTATE: &str = "tracestate";
/// The header of what a request is about, for all that it sets off.
pub const BAGGAGE: &str = "baggage";

/// Where in a `traceparent` the last digit of the flags is, whatever its version.
const LAST_FLAG: usize = 54;

/// A place in a trace that others go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// Whether [`TraceContext::sampled`] is `None` for certain: that of most records, known by one digit.
    #[must_use]
    pub fn is_unsampled(traceparent: &[u8]) -> bool {
        let even = b"02468ace";
        traceparent.trim_ascii().get(LAST_FLAG).is_none_or(|digit| even.contains(digit))
    }

    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`, and a `tracestate` where there is one; `None` where it is none, or not
    /// sampled. A newer version may have more behind it. A `tracestate` that cannot be read is left out, as the standard has it.
    #[must_use]
    pub fn sampled(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let traceparent = traceparent.trim_ascii();
        if Self::is_unsampled(traceparent) {
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

    /// What is logged in `work` belongs to this place.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        work()
    }

    /// What this thread logs belongs to this place, until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Entered {
        Entered { _guard: self.as_parent().attach() }
    }

    /// Where the thread is.
    pub(crate) fn current() -> Option<Self> {
        let of =
            |context: &Context| context.has_active_span().then(|| Self::from(context.span().span_context()));
        Context::map_current(of).filter(|Self(context)| context.is_valid())
    }

    /// For what goes on from here.
    pub(crate) fn as_parent(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }

    /// For what has to do with this, but does not go on from it.
    pub(crate) fn link(&self) -> Link {
        Link::with_context(self.0.clone())
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

    /// The trace.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.0.trace_id()
    }

    /// The span in it.
    pub(crate) fn span_id(&self) -> SpanId {
        self.0.span_id()
    }
}

impl From<&SpanContext> for TraceContext {
    fn from(context: &SpanContext) -> Self {
        Self(context.clone())
    }
}

/// While it is there, what this thread logs belongs to a place in a trace.
#[derive(Debug)]
pub struct Entered {
    _guard: ContextGuard,
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

    /// Whether one is left at `now`, in milliseconds of a clock that does not go back.
    pub const fn is_left(&mut self, now: u64) -> bool {
        if now >= self.until {
            self.until = now.saturating_add(1000);
            self.left = self.each_second;
        }
        self.left > 0
    }

    /// Takes one, where one is left at `now`.
    pub const fn take(&mut self, now: u64) -> bool {
        let is_left = self.is_left(now);
        if is_left {
            self.left -= 1;
        }
        is_left
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
        for unsampled in ["00", "02", "fe"] {
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{unsampled}");
            assert!(TraceContext::is_unsampled(parent.as_bytes()), "{parent}");
        }
        assert!(TraceContext::is_unsampled(b"") && !TraceContext::is_unsampled(PARENT));
        let newer = b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceContext::sampled(newer, None).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>, state: Vec<u8>) {
            let read = TraceContext::sampled(&bytes, Some(&state));
            assert!(read.is_none() || !TraceContext::is_unsampled(&bytes));
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
    fn a_thread_is_where_it_has_entered_last() {
        let [outer, inner] = ["11", "22"].map(|span| {
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902{span}-01");
            TraceContext::sampled(parent.as_bytes(), None).unwrap()
        });
        assert_eq!(TraceContext::current(), None);
        outer.in_scope(|| {
            inner.in_scope(|| assert_eq!(TraceContext::current(), Some(inner.clone())));
            assert_eq!(TraceContext::current(), Some(outer.clone()));
        });
        assert_eq!(TraceContext::current(), None);
    }
}
