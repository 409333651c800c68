//! Names of traces and spans: random, but for sessions, whose trace both sites must call the same.

use std::cell::Cell;

use aws_lc_rs::digest::{SHA256, digest};
use novacron_control_api::SessionId;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

thread_local! {
    /// What the next span made on this thread is called.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random names, unless [`with_ids`] gives them.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Makes a span, under these names where there are any. The SDK asks for them on the thread that makes it.
pub(super) fn with_ids<T>(of: Option<SpanContext>, make: impl FnOnce() -> T) -> T {
    NEXT.set(of.map(|of| (of.trace_id(), of.span_id())));
    let made = make();
    NEXT.set(None);
    made
}

/// The root of a session's trace, by the session's name alone.
pub(super) fn derived(session: SessionId) -> SpanContext {
    let hash = digest(&SHA256, format!("novacron session {session}").as_bytes());
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&hash.as_ref()[..16]);
    span.copy_from_slice(&hash.as_ref()[16..24]);
    SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_trace_has_one_name_and_others_have_names_of_their_own() {
        let (one, same, other) = (derived(SessionId(7)), derived(SessionId(7)), derived(SessionId(8)));
        assert_eq!(one, same);
        assert!(one.trace_id() != other.trace_id() && one.span_id() != other.span_id() && one.is_valid());
        let ids = Ids::default();
        let made = with_ids(Some(one.clone()), || (ids.new_trace_id(), ids.new_span_id()));
        assert_eq!(made, (one.trace_id(), one.span_id()));
        assert_ne!(ids.new_trace_id(), one.trace_id());
        assert_ne!(with_ids(None, || ids.new_span_id()), one.span_id());
    }
}
