//! Logs and traces.
//!
//! Logs are JSON lines, readable ones in the dev profile. `RUST_LOG` chooses what is logged. Traces
//! are OpenTelemetry: a request's goes through Temporal and the ledger to the merchant, and on with
//! each message. They are sent to a collector where the configuration names one; their ids are in
//! logs and messages in any case.

mod lines;
mod steps;

use std::io::IsTerminal;

use anyhow::Context as _;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use temporalio_sdk::{
    SimplePlugin,
    opentelemetry::{OpenTelemetryPlugin, WorkflowIdGenerator},
};
use tracing::{Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, dynamic_filter_fn},
    fmt,
    fmt::format::JsonFields,
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{
    Profile, Settings,
    settings::{LogFormat, TelemetrySettings},
    temporal::build_id,
};

/// What is logged when `RUST_LOG` is not set.
const DEV_FILTER: &str = "info,sqlx=warn,temporalio_sdk=warn,temporalio_sdk_core=warn";
/// The same elsewhere: slow statements are logged with their SQL, which is for developers.
const PRODUCTION_FILTER: &str = "info,sqlx=error,temporalio_sdk=warn,temporalio_sdk_core=warn";
/// The rooms whose spans are parts of traces; the worker is named by its program.
const TRACED: [&str; 4] = ["api", "meed_worker", "activities", "store"];

/// The traces of this process.
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Turns logging and tracing on for the program of this name. Logs are turned on once in a
    /// process; a second call leaves them as they are.
    ///
    /// # Errors
    /// When traces are to be sent to what is no address.
    pub fn begin(program: &'static str, settings: &Settings) -> anyhow::Result<Self> {
        let provider = provider(program, &settings.telemetry)?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(provider.clone());
        let traces = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(program))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(rooms());
        let _ = tracing_subscriber::registry()
            .with(logs(settings))
            .with(traces)
            .try_init();
        if let Some(faults) = faultpoint::armed() {
            tracing::warn!(faults, "this process is made to fail, for a test");
        }
        Ok(Self { provider })
    }

    /// Sends what has not been sent.
    pub async fn end(self) {
        // It waits for the collector, which must not hold up the runtime that speaks with it.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// The spans of [`TRACED`] rooms, asked for each anew: what several filters take in any case is not
/// asked for, and then one is taken for what was asked about last, such as whether sqlx should log a
/// statement, and left out (tokio-rs/tracing, issue 2519).
fn rooms<S: Subscriber>() -> impl Filter<S> {
    fn is_traced(metadata: &Metadata<'_>) -> bool {
        let room = metadata.target().split("::").next();
        metadata.is_span() && room.is_some_and(|room| TRACED.contains(&room))
    }
    dynamic_filter_fn(|metadata, _| is_traced(metadata))
        .with_callsite_filter(|metadata| {
            if is_traced(metadata) {
                Interest::sometimes()
            } else {
                Interest::never()
            }
        })
        .with_max_level_hint(LevelFilter::DEBUG)
}

fn logs(settings: &Settings) -> Box<dyn Layer<Registry> + Send + Sync> {
    let dev = settings.profile == Profile::Dev;
    let default = if dev { DEV_FILTER } else { PRODUCTION_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let format = settings.telemetry.logs.unwrap_or(if dev {
        LogFormat::Readable
    } else {
        LogFormat::Json
    });
    match format {
        LogFormat::Readable => {
            let colours = std::io::stdout().is_terminal();
            let readable = fmt::layer().compact().with_ansi(colours);
            readable.with_filter(filter).boxed()
        }
        LogFormat::Json => fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(lines::Lines)
            .with_filter(filter)
            .boxed(),
    }
}

/// Where spans go. Without a collector none is kept, but each has its ids.
fn provider(
    program: &'static str,
    settings: &TelemetrySettings,
) -> anyhow::Result<SdkTracerProvider> {
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attribute(KeyValue::new("service.namespace", "meed"))
        .with_attribute(KeyValue::new("service.version", build_id()))
        .build();
    let builder = SdkTracerProvider::builder()
        .with_resource(resource)
        // A flow that is replayed has the ids that it had.
        .with_id_generator(WorkflowIdGenerator::default());
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .context(
            "traces cannot be sent to telemetry.otlp_endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)",
        )?;
    let part = Sampler::TraceIdRatioBased(settings.sample_ratio);
    Ok(builder
        .with_sampler(Sampler::ParentBased(Box::new(part)))
        .with_batch_exporter(exporter)
        .build())
}

/// What carries traces through Temporal, and tells the log lines of a step which flow it is of.
pub(crate) fn plugins() -> [SimplePlugin; 2] {
    [OpenTelemetryPlugin::builder().build(), steps::plugin()]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{
        Dispatch, dispatcher, info_span,
        span::{Attributes, Id},
    };
    use tracing_subscriber::layer::Context;

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            self.0
                .lock()
                .expect("not poisoned")
                .push(span.metadata().name());
        }
    }

    #[test]
    fn a_request_is_traced_and_in_logs_whatever_was_asked_about_before() {
        let (logs, traces) = (Seen::default(), Seen::default());
        let subscriber = tracing_subscriber::registry()
            .with(logs.clone().with_filter(EnvFilter::new(DEV_FILTER)))
            .with(traces.clone().with_filter(rooms()));
        let dispatch = Dispatch::new(subscriber);
        dispatcher::with_default(&dispatch, || {
            let statement = tracing::debug_span!(target: "sqlx::query", "statement");
            let statement = statement.metadata().expect("it has them, taken or not");
            for _ in 0..2 {
                // So does the bridge from `log`, of which sqlx asks after each statement.
                dispatch.enabled(statement);
                drop(info_span!(target: "api::observe", "request"));
            }
        });
        for seen in [logs, traces] {
            assert_eq!(
                *seen.0.lock().expect("not poisoned"),
                ["request", "request"]
            );
        }
    }
}
