//! Metrics in Prometheus' format: what the process counts, what Temporal's SDK counts, and the
//! process itself.
//!
//! Names end in their unit, counters in `_total`. A label has few values, known beforehand: every
//! series costs memory for good, so ids of customers, requests and flows are no labels.

mod sdk;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;

use crate::temporal::build_id;

pub(crate) use sdk::Meter;

/// Bounds of every histogram whose name ends in `_seconds`.
const SECONDS: [f64; 14] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bounds of what may take as long as merchants do: whole redemptions and flows.
const LONG_SECONDS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
];
/// Bounds of the messages in a batch.
const BATCH_MESSAGES: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0,
];
/// Bounds of the points for one event.
const POINTS: [f64; 10] = [
    0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 10_000.0,
];
/// How often samples that nobody has asked for are put into their histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

const BUILD: &str = "meed_build_info";
const CONNECTIONS: &str = "meed_database_connections";
const CONNECTIONS_MAX: &str = "meed_database_connections_max";

/// The metrics of this process.
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    pool: OnceLock<PgPool>,
}

impl Metrics {
    /// Collects the metrics of the program of this name from now on.
    ///
    /// # Errors
    /// When they are collected already.
    pub fn install(program: &'static str) -> anyhow::Result<Arc<Self>> {
        let handle = builder()
            .context("histogram bounds")?
            .install_recorder()
            .context("metrics are collected already")?;
        let process = metrics_process::Collector::default();
        process.describe();
        describe_gauge!(BUILD, "Always 1; its labels say what runs.");
        describe_gauge!(
            CONNECTIONS,
            "Connections of this process to the database, by whether they are in use."
        );
        describe_gauge!(
            CONNECTIONS_MAX,
            "How many connections to the database this process may have."
        );
        let version = env!("CARGO_PKG_VERSION");
        gauge!(BUILD, "program" => program, "version" => version, "commit" => build_id()).set(1.0);
        Ok(Arc::new(Self {
            handle,
            process,
            pool: OnceLock::new(),
        }))
    }

    /// Measures how much of this pool is in use, too.
    pub fn watch(&self, pool: &PgPool) {
        // The first pool of a process is its only one.
        let _ = self.pool.set(pool.clone());
    }

    /// All of them, as they are now.
    pub fn render(&self) -> String {
        self.process.collect();
        if let Some(pool) = self.pool.get() {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            let in_use = pool.size().saturating_sub(idle);
            gauge!(CONNECTIONS, "state" => "in-use").set(f64::from(in_use));
            gauge!(CONNECTIONS, "state" => "idle").set(f64::from(idle));
            gauge!(CONNECTIONS_MAX).set(f64::from(pool.options().get_max_connections()));
        }
        self.handle.render()
    }

    /// Keeps what waits to be asked for small, until the end.
    pub async fn keep_small(&self) {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.handle.run_upkeep();
        }
    }
}

/// The first that fits counts: whole names before ends of names, these in the order of the alphabet.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let suffix = |name: &str| Matcher::Suffix(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(full("meed_batch_messages"), &BATCH_MESSAGES)?
        .set_buckets_for_metric(full("meed_points_awarded"), &POINTS)?
        .set_buckets_for_metric(full("meed_redemption_duration_seconds"), &LONG_SECONDS)?
        .set_buckets_for_metric(suffix("_endtoend_latency_seconds"), &LONG_SECONDS)?
        .set_buckets_for_metric(suffix("_seconds"), &SECONDS)
}
