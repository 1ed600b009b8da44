//! Traces over Kafka: what reads and what publishes messages is a trace of its own, with a link to
//! that of each message. A chain from parent to parent over topics would never end.
//!
//! Names are those of OpenTelemetry's conventions for messaging.

use opentelemetry::{Context, global, propagation::Extractor, trace::TraceContextExt};
use store::trace::TRACEPARENT;
use tracing::{Span, debug_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The most links of one span.
const LINKS_MAX: usize = 128;

/// Headers as what a trace is read from.
struct Carried<'a>(&'a [(String, Vec<u8>)]);

impl Extractor for Carried<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(header, _)| header == name)?;
        std::str::from_utf8(value).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// The trace that a row was written in, to go on in; the one under way, if it has none.
pub fn of_row(traceparent: Option<&str>) -> Context {
    let carried = traceparent.map(|trace| (TRACEPARENT.to_owned(), trace.as_bytes().to_vec()));
    extracted(carried.as_slice())
}

/// Messages of one partition are worked on.
pub fn process<'a>(
    topic: &str,
    partition: i32,
    first_offset: i64,
    group: &str,
    headers: impl ExactSizeIterator<Item = &'a [(String, Vec<u8>)]>,
) -> Span {
    let span = debug_span!(
        parent: None,
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        messaging.system = "kafka",
        "messaging.operation.type" = "process",
        messaging.operation.name = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = partition,
        messaging.consumer.group.name = group,
        messaging.kafka.offset = first_offset,
        messaging.batch.message_count = headers.len(),
    );
    link(&span, headers);
    span
}

/// Messages for one topic are published.
pub fn send<'a>(
    topic: &str,
    headers: impl ExactSizeIterator<Item = &'a [(String, Vec<u8>)]>,
) -> Span {
    let span = debug_span!(
        parent: None,
        "send",
        otel.name = format!("send {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        "messaging.operation.type" = "send",
        messaging.operation.name = "send",
        messaging.destination.name = topic,
        messaging.batch.message_count = headers.len(),
    );
    link(&span, headers);
    span
}

fn link<'a>(span: &Span, headers: impl Iterator<Item = &'a [(String, Vec<u8>)]>) {
    for headers in headers.take(LINKS_MAX) {
        let made_in = extracted(headers).span().span_context().clone();
        if made_in.is_valid() {
            span.add_link(made_in);
        }
    }
}

fn extracted(headers: &[(String, Vec<u8>)]) -> Context {
    global::get_text_map_propagator(|traces| traces.extract(&Carried(headers)))
}
