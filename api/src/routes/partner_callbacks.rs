//! A merchant's late answer, signed with the merchant's key over the body as it came.

use std::sync::Arc;

use activities::signature::{self, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use axum::{Json, extract::State, http::HeaderMap};
use chrono::Utc;
use domain::{
    redemption::{PARTNER_DETAIL_MAX_CHARS, PartnerVerdict},
    refusal::printable,
};
use serde::Deserialize;
use serde_json::json;
use store::{
    audit,
    callbacks::{self, Kind},
    transaction,
};
use utoipa::ToSchema;

use super::callbacks::{Taken, taken, tell};
use crate::{
    App,
    body::{self, RawBody},
    error::{ApiError, ProblemDocument, Thing},
    flows::Signal,
    openapi::{AnyBody, AnyCall, told},
    parameters::{CallbackId, Origin},
};

/// A merchant's late answer. Members that are not known are ignored: the protocol may grow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "status": "CONFIRMED", "confirmationId": "C-9001" }))]
pub(super) struct PartnerAnswer {
    /// Whether it delivers.
    status: PartnerStatus,
    /// The merchant's own id of the confirmation.
    confirmation_id: Option<String>,
    /// Why it does not deliver.
    reason: Option<String>,
}

/// Whether a merchant delivers.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum PartnerStatus {
    /// It does.
    Confirmed,
    /// It does not.
    Refused,
}

/// Takes the late answer of a merchant.
#[utoipa::path(
    post,
    path = "/api/v1/partner-callbacks/{callbackId}",
    operation_id = "answerPartnerCallback",
    tag = "callbacks",
    security(("merchantSignature" = [])),
    params(
        ("callbackId" = String, Path, description = "The last part of `callbackUrl`",
            example = "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978"),
        ("Meed-Timestamp" = i64, Header, description = "The Unix time in seconds", example = 1_773_489_600)
    ),
    request_body(content = PartnerAnswer, content_type = "application/json"),
    responses(
        (status = 200, description = "Taken; also when the same answer comes again", body = Taken,
            example = json!({ "callbackId": "3f0d1c2b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a6978", "answer": "CONFIRMED" })),
        (status = 400, description = "The answer breaks the protocol", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "Not signed, or wrongly", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidSignature("Meed-Signature is missing".to_owned())))),
        (status = 404, description = "There is no such callback", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Callback)))),
        (status = 409, description = "Another answer was taken before", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackAnswered))),
        (status = 410, description = "Too late", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CallbackExpired))),
        AnyBody,
        AnyCall,
    )
)]
pub(super) async fn answer(
    State(app): State<Arc<App>>,
    origin: Origin,
    CallbackId(callback_id): CallbackId,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Json<Taken>, ApiError> {
    let unknown = || ApiError::NotFound(Thing::Callback);
    let callback = {
        let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
        callbacks::find(&mut conn, &callback_id).await?
    };
    let callback = callback
        .filter(|callback| callback.kind == Kind::Partner)
        .ok_or_else(unknown)?;
    let merchant = callback.merchant_id.ok_or_else(unknown)?;
    check_signature(&app, &merchant, &headers, &body)?;
    body::not_too_deep(&body)?;

    let answer: PartnerAnswer = serde_json::from_slice(&body).map_err(|_| {
        ApiError::InvalidBody(
            "The body is {\"status\": \"CONFIRMED\" or \"REFUSED\", \"confirmationId\"?, \
             \"reason\"?}, with texts for values."
                .to_owned(),
        )
    })?;
    let (verdict, detail) = match answer.status {
        PartnerStatus::Confirmed => (PartnerVerdict::Confirmed, answer.confirmation_id),
        PartnerStatus::Refused => (PartnerVerdict::Refused, answer.reason),
    };
    let detail = detail.map(|detail| printable(&detail, PARTNER_DETAIL_MAX_CHARS));
    let mut tx = transaction::begin(&app.pool).await?;
    let answered =
        callbacks::answer_partner(&mut tx, &callback_id, verdict, detail.as_deref()).await?;
    let to_signal = match taken(answered) {
        Ok(to_signal) => to_signal,
        Err(refusal) => {
            // What came too late does not count, but what was said is kept.
            transaction::commit(tx, "callback").await?;
            return Err(refusal);
        }
    };
    if let Some(workflow_id) = to_signal {
        let change = audit::Change {
            actor: &format!("merchant {merchant}"),
            action: "partner-callback.answer",
            subject: &callback.subject,
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "answer": verdict, "detail": detail }),
        };
        audit::write(&mut tx, &change).await?;
        transaction::commit(tx, "callback").await?;
        tell(&app, &callback_id, &workflow_id, Signal::PartnerCalledBack).await;
    }
    Ok(Json(Taken {
        callback_id,
        answer: verdict.as_str(),
    }))
}

fn check_signature(
    app: &App,
    merchant: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), ApiError> {
    let refused = |why: &str| ApiError::InvalidSignature(why.to_owned());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let timestamp = header(TIMESTAMP_HEADER).ok_or_else(|| refused("Meed-Timestamp is missing"))?;
    let given = header(SIGNATURE_HEADER).ok_or_else(|| refused("Meed-Signature is missing"))?;
    let key = app
        .signing_key(merchant)
        .ok_or_else(|| refused("the merchant is not known"))?;
    signature::verify(key, timestamp, given, body, Utc::now().timestamp())
        .map_err(|error| refused(&error.to_string()))
}
