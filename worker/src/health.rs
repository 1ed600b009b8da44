//! Whether this process lives and can work, and what it has measured.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use boot::metrics::Metrics;
use serde_json::json;
use store::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{flows::Flows, intake::IntakeHealth};

/// How long a part may take to answer before it counts as not ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What readiness looks at.
#[derive(Clone)]
pub struct Health {
    /// Whether messages can come in, where they are taken in.
    pub intake: Option<Arc<IntakeHealth>>,
    /// The ledger.
    pub pool: PgPool,
    /// Temporal, once it has been reached.
    pub flows: Arc<OnceLock<Flows>>,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    /// What was measured.
    pub metrics: Arc<Metrics>,
}

/// The routes of the health server.
pub fn routes(health: Health) -> Router {
    Router::new()
        .route(
            "/health/live",
            get(async || Json(json!({ "status": "live" }))),
        )
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    let database = tokio::time::timeout(ANSWER_WITHIN, store::relay::waiting_shards(&health.pool));
    let temporal = async {
        let flows = health.flows.get()?;
        let asked = flows.is_open(workflows::id::RELAY_WORKFLOW_ID);
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?.ok()
    };
    let (database, temporal) = tokio::join!(database, temporal);
    let parts = [
        (
            "kafka",
            health.intake.is_none_or(|intake| intake.is_ready()),
        ),
        ("database", matches!(database, Ok(Ok(_)))),
        ("temporal", temporal.is_some()),
    ];
    let draining = health.stopping.is_cancelled();
    let ready = !draining && parts.iter().all(|(_, ready)| *ready);
    let word = |ready| if ready { "ready" } else { "not ready" };
    let mut body = json!({ "status": word(ready) });
    for (part, ready) in parts {
        body[part] = json!(word(ready));
    }
    body["draining"] = json!(draining);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    let headers = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (headers, health.metrics.render()).into_response()
}
