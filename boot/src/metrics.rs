//! Metrics in Prometheus' format.

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of every histogram whose name ends in `_seconds`.
const SECONDS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

/// Bounds of the messages in a batch.
const BATCH_MESSAGES: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0,
];
/// Bounds of the points for one event.
const POINTS: [f64; 10] = [
    0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 10_000.0,
];

/// Collects the process's metrics from now on; what is returned renders them.
///
/// # Errors
/// When they are collected already.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| {
            let batch = Matcher::Full("meed_batch_messages".to_owned());
            builder.set_buckets_for_metric(batch, &BATCH_MESSAGES)
        })
        .and_then(|builder| {
            let points = Matcher::Full("meed_points_awarded".to_owned());
            builder.set_buckets_for_metric(points, &POINTS)
        })
        .context("histogram bounds")?
        .install_recorder()
        .context("metrics are collected already")
}
