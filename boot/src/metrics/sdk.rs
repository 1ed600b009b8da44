//! What Temporal's SDK counts, among the process's own metrics.
//!
//! The SDK can serve its metrics at an address of their own; a process would then have two. Times
//! are in seconds here and counters end in `_total`.

use std::{error::Error, sync::Arc, time::Duration};

use metrics::{Label, SharedString};
use temporalio_common::telemetry::metrics::{
    CoreMeter, Counter, CounterBase, Gauge, GaugeBase, GaugeF64, GaugeF64Base, Histogram,
    HistogramBase, HistogramDuration, HistogramDurationBase, HistogramF64, HistogramF64Base,
    MetricAttributable, MetricAttributes, MetricParameters, NewAttributes, OrderedPromLabelSet,
    UpDownCounter, UpDownCounterBase,
};

/// Hands the SDK's metrics to the recorder of this process.
#[derive(Debug)]
pub struct Meter {
    /// What their names begin with, where the SDK has not said it already.
    pub prefix: &'static str,
}

/// A metric that has no labels yet.
#[derive(Debug)]
struct Unlabelled(String);

/// One with its labels.
struct Labelled<T>(T);

impl Meter {
    fn metric(&self, name: &str, unit: &str) -> Arc<Unlabelled> {
        Arc::new(Unlabelled(format!("{}{name}{unit}", self.prefix)))
    }
}

fn said(parameters: &MetricParameters) -> SharedString {
    SharedString::from(parameters.description.clone().into_owned())
}

impl CoreMeter for Meter {
    fn new_attributes(&self, attributes: NewAttributes) -> MetricAttributes {
        MetricAttributes::Prometheus {
            labels: Arc::new(attributes.into()),
        }
    }

    fn extend_attributes(
        &self,
        existing: MetricAttributes,
        attributes: NewAttributes,
    ) -> MetricAttributes {
        let mut labels = match existing {
            MetricAttributes::Prometheus { labels } => (*labels).clone(),
            _ => OrderedPromLabelSet::new(),
        };
        for attribute in attributes.attributes {
            labels.add_kv(attribute);
        }
        MetricAttributes::Prometheus {
            labels: Arc::new(labels),
        }
    }

    fn counter(&self, parameters: MetricParameters) -> Counter {
        let metric = self.metric(&parameters.name, "_total");
        metrics::describe_counter!(metric.0.clone(), said(&parameters));
        Counter::new(metric)
    }

    fn histogram(&self, parameters: MetricParameters) -> Histogram {
        let metric = self.metric(&parameters.name, "");
        metrics::describe_histogram!(metric.0.clone(), said(&parameters));
        Histogram::new(metric)
    }

    fn histogram_f64(&self, parameters: MetricParameters) -> HistogramF64 {
        let metric = self.metric(&parameters.name, "");
        metrics::describe_histogram!(metric.0.clone(), said(&parameters));
        HistogramF64::new(metric)
    }

    fn histogram_duration(&self, parameters: MetricParameters) -> HistogramDuration {
        let metric = self.metric(&parameters.name, "_seconds");
        metrics::describe_histogram!(metric.0.clone(), said(&parameters));
        HistogramDuration::new(metric)
    }

    fn gauge(&self, parameters: MetricParameters) -> Gauge {
        let metric = self.metric(&parameters.name, "");
        metrics::describe_gauge!(metric.0.clone(), said(&parameters));
        Gauge::new(metric)
    }

    fn gauge_f64(&self, parameters: MetricParameters) -> GaugeF64 {
        let metric = self.metric(&parameters.name, "");
        metrics::describe_gauge!(metric.0.clone(), said(&parameters));
        GaugeF64::new(metric)
    }

    fn up_down_counter(&self, parameters: MetricParameters) -> UpDownCounter {
        let metric = self.metric(&parameters.name, "");
        metrics::describe_gauge!(metric.0.clone(), said(&parameters));
        UpDownCounter::new(metric)
    }
}

fn labels(attributes: &MetricAttributes) -> Vec<Label> {
    let MetricAttributes::Prometheus { labels } = attributes else {
        return Vec::new();
    };
    let labels = labels.as_prom_labels().into_iter();
    labels
        .map(|(name, value)| Label::new(name.to_owned(), value))
        .collect()
}

macro_rules! labelled {
    ($($base:ident as $kind:ident)*) => {$(
        impl MetricAttributable<Box<dyn $base>> for Unlabelled {
            fn with_attributes(
                &self,
                attributes: &MetricAttributes,
            ) -> Result<Box<dyn $base>, Box<dyn Error>> {
                let metric = metrics::$kind!(self.0.clone(), labels(attributes));
                Ok(Box::new(Labelled(metric)))
            }
        }
    )*};
}

labelled! {
    CounterBase as counter
    HistogramBase as histogram
    HistogramF64Base as histogram
    HistogramDurationBase as histogram
    GaugeBase as gauge
    GaugeF64Base as gauge
    UpDownCounterBase as gauge
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn float(number: u64) -> f64 {
    number as f64
}

impl CounterBase for Labelled<metrics::Counter> {
    fn adds(&self, value: u64) {
        self.0.increment(value);
    }
}

impl HistogramBase for Labelled<metrics::Histogram> {
    fn records(&self, value: u64) {
        self.0.record(float(value));
    }
}

impl HistogramF64Base for Labelled<metrics::Histogram> {
    fn records(&self, value: f64) {
        self.0.record(value);
    }
}

impl HistogramDurationBase for Labelled<metrics::Histogram> {
    fn records(&self, value: Duration) {
        self.0.record(value.as_secs_f64());
    }
}

impl GaugeBase for Labelled<metrics::Gauge> {
    fn records(&self, value: u64) {
        self.0.set(float(value));
    }
}

impl GaugeF64Base for Labelled<metrics::Gauge> {
    fn records(&self, value: f64) {
        self.0.set(value);
    }
}

impl UpDownCounterBase for Labelled<metrics::Gauge> {
    fn adds(&self, value: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        self.0.increment(value as f64);
    }
}

#[cfg(test)]
mod tests {
    use temporalio_common::telemetry::metrics::MetricKeyValue;

    use super::*;

    #[test]
    fn what_the_sdk_counts_has_a_unit_in_its_name_and_its_labels() {
        let recorder = super::super::builder().expect("bounds").build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let meter = Meter {
                prefix: "temporal_",
            };
            let queue = [MetricKeyValue::new("task-queue", "redeem")];
            let attributes = meter.new_attributes(queue.into());
            let operation = [MetricKeyValue::new("operation", "Poll")];
            let more = meter.extend_attributes(attributes.clone(), operation.into());
            let request = meter.counter("request".into());
            request.add(2, &attributes);
            request.add(3, &more);
            meter
                .histogram_duration("request_latency".into())
                .record(Duration::from_millis(30), &attributes);
            let slots = meter.gauge("slots".into());
            slots.record(7, &attributes);
            slots.record(5, &attributes);
        });
        let text = handle.render();
        for line in [
            r#"temporal_request_total{task_queue="redeem"} 2"#,
            r#"temporal_request_latency_seconds_bucket{task_queue="redeem",le="0.025"} 0"#,
            r#"temporal_request_latency_seconds_bucket{task_queue="redeem",le="0.05"} 1"#,
            r#"temporal_slots{task_queue="redeem"} 5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            text.contains(r#"operation="Poll""#) && text.contains("} 3"),
            "{text}"
        );
    }
}
