//! Acknowledgements of tier upgrades: stored first, then signalled. What was stored and not
//! signalled is signalled again by the worker.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::json;
use store::{
    audit,
    callbacks::{self, Answered},
    transaction,
};
use utoipa::ToSchema;

use crate::{
    App,
    auth::{CallbacksWrite, Caller, Scope},
    error::{ApiError, ProblemDocument, Thing},
    flows::Signal,
    openapi::{AnyCall, told},
    parameters::{CallbackId, Origin},
};

/// An answer that was taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "callbackId": "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978", "answer": "SUCCESS"
}))]
pub(super) struct Taken {
    /// The callback.
    pub(super) callback_id: String,
    /// The answer that stands.
    pub(super) answer: &'static str,
}

/// Acknowledges that a customer was told of a new tier.
#[utoipa::path(
    post,
    path = "/api/v1/callbacks/{callbackId}/success",
    operation_id = "acknowledgeSuccess",
    tag = "callbacks",
    security(("token" = ["callbacks.write"])),
    params(("callbackId" = String, Path, description = "The id from the notification",
        example = "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978")),
    responses(
        (status = 200, description = "Taken; also when the same answer comes again", body = Taken),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::CallbacksWrite)))),
        (status = 404, description = "There is no such callback", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Callback)))),
        (status = 409, description = "Another answer was taken before", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackAnswered))),
        (status = 410, description = "The callback has expired", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackExpired))),
        AnyCall,
    )
)]
pub(super) async fn success(
    State(app): State<Arc<App>>,
    caller: Caller<CallbacksWrite>,
    origin: Origin,
    CallbackId(callback_id): CallbackId,
) -> Result<Json<Taken>, ApiError> {
    acknowledge(&app, &caller, &origin, callback_id, true).await
}

/// Reports that a customer could not be told of a new tier.
#[utoipa::path(
    post,
    path = "/api/v1/callbacks/{callbackId}/failure",
    operation_id = "acknowledgeFailure",
    tag = "callbacks",
    security(("token" = ["callbacks.write"])),
    params(("callbackId" = String, Path, description = "The id from the notification",
        example = "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978")),
    responses(
        (status = 200, description = "Taken; also when the same answer comes again", body = Taken,
            example = json!({ "callbackId": "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978", "answer": "FAILURE" })),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::CallbacksWrite)))),
        (status = 404, description = "There is no such callback", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Callback)))),
        (status = 409, description = "Another answer was taken before", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackAnswered))),
        (status = 410, description = "The callback has expired", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackExpired))),
        AnyCall,
    )
)]
pub(super) async fn failure(
    State(app): State<Arc<App>>,
    caller: Caller<CallbacksWrite>,
    origin: Origin,
    CallbackId(callback_id): CallbackId,
) -> Result<Json<Taken>, ApiError> {
    acknowledge(&app, &caller, &origin, callback_id, false).await
}

async fn acknowledge(
    app: &App,
    caller: &Caller<CallbacksWrite>,
    origin: &Origin,
    callback_id: String,
    success: bool,
) -> Result<Json<Taken>, ApiError> {
    let answer = if success { "SUCCESS" } else { "FAILURE" };
    let mut tx = transaction::begin(&app.pool).await?;
    let answered = callbacks::answer_tier_upgrade(&mut tx, &callback_id, success).await?;
    let workflow_id = taken(answered)?;
    if let Some(workflow_id) = workflow_id {
        let change = audit::Change {
            actor: &caller.identity.client(),
            action: "callback.answer",
            subject: &workflow_id,
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "answer": answer }),
        };
        audit::write(&mut tx, &change).await?;
        transaction::commit(tx, "callback").await?;
        tell(
            app,
            &callback_id,
            &workflow_id,
            Signal::NotificationAcknowledged,
        )
        .await;
    }
    Ok(Json(Taken {
        callback_id,
        answer,
    }))
}

/// The workflow to signal, when the answer is the first one.
pub(super) fn taken(answered: Answered) -> Result<Option<String>, ApiError> {
    match answered {
        Answered::First { workflow_id } => Ok(Some(workflow_id)),
        Answered::Again { .. } => Ok(None),
        Answered::Different => Err(ApiError::CallbackAnswered),
        Answered::Expired => Err(ApiError::CallbackExpired),
        Answered::Unknown => Err(ApiError::NotFound(Thing::Callback)),
    }
}

/// Signals the flow. A signal that is in doubt is sent again by the worker.
pub(super) async fn tell(app: &App, callback_id: &str, workflow_id: &str, signal: Signal) {
    match app.flows.signal(workflow_id, signal).await {
        Ok(()) => {
            faultpoint::reach("callback", "after-signal");
            if let Err(error) = callbacks::mark_signalled(&app.pool, callback_id).await {
                tracing::warn!(workflow_id, %error, "a signal was not recorded; it is sent again");
            }
        }
        Err(error) => tracing::warn!(workflow_id, %error, "a signal is in doubt; it is sent again"),
    }
}
