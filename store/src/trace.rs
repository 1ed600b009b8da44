//! The trace that is under way, as rows keep it.

use opentelemetry::trace::TraceContextExt;

/// The header of a message, and the column of a row, with its trace: W3C's Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// The trace that is under way, as W3C's `traceparent` writes it.
pub(crate) fn current() -> Option<String> {
    let context = opentelemetry::Context::current();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
    })
}
