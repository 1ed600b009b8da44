//! What those who run it ask: is it alive, is it ready, how does it do.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{App, measures, readiness::Ready};

/// The process runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "status": "live" }))]
pub(super) struct Live {
    /// Always `live`.
    status: &'static str,
}

/// Says that the process runs.
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "isLive",
    tag = "operations",
    security(()),
    responses((status = 200, description = "It runs", body = Live))
)]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// Says whether the process can take requests.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "isReady",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "It can", body = Ready),
        (status = 503, description = "It cannot, and what is missing", body = Ready,
            example = json!({
                "ready": false, "database": true, "temporal": false, "worker": true, "draining": false
            }))
    )
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Ready>) {
    let ready = app.readiness.look(&app).await;
    let status = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ready))
}

/// Shows the metrics, in Prometheus' format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "readMetrics",
    tag = "operations",
    security(()),
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain",
        example = json!("meed_http_requests_total{method=\"GET\",route=\"/loyalty\",status=\"200\"} 3\n")))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    measures::sockets_open(app.sockets.open());
    let text = app.metrics.as_ref().map(|metrics| metrics.render());
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        text.unwrap_or_default(),
    )
}
