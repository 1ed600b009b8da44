//! One JSON object for each event: its own fields, those of the spans around it, and the trace.
//!
//! The JSON of `tracing-subscriber` keeps spans apart, so that a request's id stands in another
//! place in each line; `json-subscriber` writes a field twice that an event has and a span too.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use opentelemetry::{Context, trace::TraceContextExt};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::{LookupSpan, Scope},
};

/// The format.
pub(super) struct Lines;

/// Fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
            if let Some(Value::Object(fields)) = fields {
                // Names with dots are OpenTelemetry's and for traces.
                line.extend(fields.into_iter().filter(|(name, _)| !name.contains('.')));
            }
        }
        event.record(&mut Fields(&mut line));
        let trace = Context::current();
        let trace = trace.span().span_context().clone();
        if trace.is_valid() {
            line.insert("trace_id".to_owned(), json!(trace.trace_id().to_string()));
        }
        let metadata = event.metadata();
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        line.insert("timestamp".to_owned(), json!(at));
        line.insert("level".to_owned(), json!(metadata.level().as_str()));
        line.insert("target".to_owned(), json!(metadata.target()));
        writeln!(writer, "{}", Value::Object(line))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_fields_of_the_event_and_of_every_span_around_it() {
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(Lines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let outer = tracing::info_span!("request", request_id = "r-1", "otel.kind" = "server");
            let _outer = outer.enter();
            let inner = tracing::info_span!("step", workflow_id = "R-1", request_id = "r-2");
            let _inner = inner.enter();
            tracing::warn!(workflow_id = "R-2", points = 25, "it \"went\" wrong");
        });
        let written = written.0.lock().expect("nobody panicked").clone();
        let line: Value = serde_json::from_slice(&written).expect("one line of JSON");
        assert_eq!(line["message"], "it \"went\" wrong");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["points"], 25);
        assert_eq!(line["request_id"], "r-2", "the inner one counts");
        assert_eq!(line["workflow_id"], "R-2", "the event's own counts");
        assert!(
            line["timestamp"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z'))
        );
        assert_eq!(line.get("otel.kind"), None);
    }
}
