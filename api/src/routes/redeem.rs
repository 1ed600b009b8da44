//! Redeeming: accepted here, done by the flow. The balance is looked at first, and the row, the
//! idempotency key and the audit record are one transaction; then the flow is started, and a start
//! that is in doubt is repeated by others, so it never fails the request.

use std::{sync::Arc, time::Duration};

use activities::outcomes::Changes;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use domain::{
    Points, RedeemRequestId,
    command::RedeemRequest,
    inbound::{self, UnknownFields},
    redemption::{FailureReason, RedemptionState},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    Transaction, audit,
    redemptions::{self, Accepted, Origin as Road, Redemption},
    transaction,
};
use tokio::{task::JoinHandle, time::Instant};
use tracing::Instrument;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{Caller, Identity, RewardsRedeem, Scope},
    body::JsonBody,
    error::{ApiError, ProblemDocument, Thing},
    flows::Signal,
    idempotency::{self, Claim, Reply},
    limits::{Class, Place},
    measures,
    observe::about,
    openapi::{AnyBody, AnyCall, told},
    parameters::{Id, IdInAddress, IdempotencyKey, Origin, Parameters},
    routes::{ANSWER_WITHIN, detached},
    waiting::{self, LookAt},
};

/// How long a redemption holds its place, at most.
const HELD_FOR: Duration = Duration::from_secs(3);

/// What a client asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RedeemRequest, example = json!({
    "redeemRequestId": "R-1001", "customerId": "C-42", "requestedPoints": 250,
    "merchantContext": { "merchantId": "M1", "orderId": "ORD-77" },
    "timestamp": "2026-03-14T12:00:00Z"
}))]
#[expect(dead_code, reason = "it describes what `domain::inbound` reads")]
pub(super) struct RedeemBody {
    /// The client's id of the redemption; the same id and body is the same redemption.
    #[schema(value_type = IdInAddress)]
    redeem_request_id: String,
    /// Whose points.
    #[schema(value_type = Id)]
    customer_id: String,
    /// How many points.
    #[schema(minimum = 1)]
    requested_points: i64,
    /// Where and for what.
    merchant_context: MerchantContext,
    /// When it was asked for; now, when it is left out.
    timestamp: Option<DateTime<Utc>>,
}

/// The merchant and its order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MerchantContext {
    /// The merchant.
    #[schema(value_type = IdInAddress)]
    merchant_id: String,
    /// The order there.
    #[schema(value_type = Id)]
    order_id: String,
}

/// A redemption that is under way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "redeemRequestId": "R-1001", "status": "RESERVED" }))]
pub(super) struct RedeemAccepted {
    /// The client's id of it.
    pub(super) redeem_request_id: String,
    /// Where it stands.
    #[schema(value_type = Status)]
    pub(super) status: RedemptionState,
}

/// A redemption.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Redemption, example = json!({
    "redeemRequestId": "R-1001", "customerId": "C-42", "status": "SUCCESS", "pointsDeducted": 250,
    "balanceAfter": 750, "merchantContext": { "merchantId": "M1", "orderId": "ORD-77" },
    "createdAt": "2026-03-14T12:00:00Z", "updatedAt": "2026-03-14T12:00:01Z"
}))]
pub(super) struct RedemptionBody {
    /// The client's id of it.
    redeem_request_id: String,
    /// Whose points.
    customer_id: String,
    /// Where it stands.
    #[schema(value_type = Status)]
    status: RedemptionState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Reason>)]
    reason: Option<FailureReason>,
    /// Points deducted; none before SUCCESS.
    #[schema(value_type = i64)]
    points_deducted: Points,
    /// The available balance when it ended.
    #[schema(value_type = Option<i64>)]
    balance_after: Option<Points>,
    /// Where and for what.
    merchant_context: MerchantContext,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// Where a redemption stands. SUCCESS and FAILED are final.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "it describes `domain::redemption::RedemptionState`"
)]
pub(super) enum Status {
    Queued,
    Reserved,
    Confirming,
    AwaitingCallback,
    Success,
    Failed,
}

/// Why a redemption failed; nothing was deducted.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "it describes `domain::redemption::FailureReason`")]
pub(super) enum Reason {
    InsufficientPoints,
    PartnerRefused,
    PartnerTimeout,
    Cancelled,
    HoldExpired,
    UnknownMerchant,
}

impl From<&Redemption> for RedeemAccepted {
    fn from(row: &Redemption) -> Self {
        Self {
            redeem_request_id: row.redeem_request_id.to_string(),
            status: row.state,
        }
    }
}

impl From<Redemption> for RedemptionBody {
    fn from(row: Redemption) -> Self {
        Self {
            redeem_request_id: row.redeem_request_id.to_string(),
            customer_id: row.customer_id.to_string(),
            status: row.state,
            reason: row.reason,
            points_deducted: row.points_deducted,
            balance_after: row.balance_after,
            merchant_context: MerchantContext {
                merchant_id: row.merchant_id.to_string(),
                order_id: row.order_id.to_string(),
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

fn location(id: &RedeemRequestId) -> String {
    let mut location = String::from("/api/v1/redeem/");
    for byte in id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            location.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(location, "%{byte:02X}");
        }
    }
    location
}

fn accepted(row: &Redemption) -> Reply {
    let at = location(&row.redeem_request_id);
    Reply::new(StatusCode::ACCEPTED, &RedeemAccepted::from(row), Some(at))
}

/// The reply when the row was committed and cannot be read.
fn accepted_unseen(request: &RedeemRequest) -> Reply {
    let id = &request.redeem_request_id;
    let body = RedeemAccepted {
        redeem_request_id: id.to_string(),
        status: RedemptionState::Queued,
    };
    Reply::new(StatusCode::ACCEPTED, &body, Some(location(id)))
}

/// Redeems points at a merchant.
///
/// The answer comes at once, with the state as it is; `Location` leads to the redemption.
#[utoipa::path(
    post,
    path = "/api/v1/redeem",
    operation_id = "redeem",
    tag = "redeem",
    security(("token" = ["rewards.redeem"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-6")),
    request_body(content = RedeemBody, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = RedeemAccepted,
            headers(("Location" = String, description = "The redemption"))),
        (status = 400, description = "The request breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRedeem)))),
        (status = 409, description = "INSUFFICIENT_POINTS, CONFLICTING_REQUEST or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InsufficientPoints))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn redeem(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRedeem>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let request = inbound::read_redeem(&body, Utc::now(), UnknownFields::Refuse)?;
    about("redeem_request_id", request.redeem_request_id.as_str());
    about("customer_id", request.customer_id.as_str());
    let identity = caller.identity;
    if !identity.reaches_merchant(&request.merchant_id) {
        return Err(ApiError::MerchantNotAllowed);
    }
    if !identity.reaches_customer(&request.customer_id) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let keyed = idempotency::Request::new(&identity, "POST /api/v1/redeem", key, "", &body);
    carry_out(app, identity, origin, keyed, request, Road::Http).await
}

/// Accepts a redemption under an idempotency key, starts it and waits a little for its first step.
/// One at the built-in merchant, which answers at once, is waited for to its end.
pub(super) async fn carry_out(
    app: Arc<App>,
    identity: Identity,
    origin: Origin,
    keyed: idempotency::Request,
    request: RedeemRequest,
    road: Road,
) -> Result<Reply, ApiError> {
    let (client, places) = (identity.client(), app.limits.starting());
    // Before any work; whoever repeats a request needs no place.
    if !places.have_one_for(&client) {
        let answer = idempotency::answered(&app, &keyed).await?;
        return answer.ok_or_else(overloaded);
    }
    let (tx, turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let place = places.take(&client).ok_or_else(overloaded)?;
    // A client that hangs up must not leave the key without its answer.
    detached(async move {
        let _turn = turn;
        let (tx, is_new) = match accept(tx, &request, road, &identity, &origin).await? {
            Ok(accepted) => accepted,
            Err((tx, refusal)) => {
                let reply = Reply::problem(&refusal);
                idempotency::finish_in(tx, &keyed, &reply).await?;
                return Ok(reply);
            }
        };
        let changes = app.outcomes.listen(&request.redeem_request_id);
        transaction::commit(tx, "accept").await?;
        // What had been accepted before may have come to rest long ago.
        let place = is_new.then_some(place);
        let reply = match start_and_wait(&app, &request, road, changes, place).await {
            Ok(row) => accepted(&row),
            // It stands in the ledger: how far it has come cannot be seen now, but it will end.
            Err(ApiError::Unavailable(error)) => {
                tracing::warn!(%error, "accepted, and out of sight");
                accepted_unseen(&request)
            }
            Err(error) => return Err(error),
        };
        // Who was told of the redemption looks at the balance next.
        app.cache.lapse(&request.customer_id);
        idempotency::finish(&app, &keyed, &reply).await;
        Ok(reply)
    })
    .await
}

fn overloaded() -> ApiError {
    measures::shed(Class::Redeem);
    ApiError::Overloaded
}

/// Writes the redemption's row and the audit record, unless it is refused or there already; whether it
/// is new.
async fn accept(
    mut tx: Transaction,
    request: &RedeemRequest,
    road: Road,
    identity: &Identity,
    origin: &Origin,
) -> Result<Result<(Transaction, bool), (Transaction, ApiError)>, ApiError> {
    if !redemptions::could_be_accepted(&mut tx, request).await? {
        return Ok(Err((tx, ApiError::InsufficientPoints)));
    }
    let accepted = redemptions::accept(&mut tx, std::slice::from_ref(request), road).await?;
    let is_new = accepted == [Accepted::New];
    match accepted.first() {
        Some(Accepted::Conflict) => return Ok(Err((tx, ApiError::ConflictingRequest))),
        Some(Accepted::New) => {
            let change = audit::Change {
                actor: &identity.client(),
                action: "redeem.request",
                subject: request.redeem_request_id.as_str(),
                request_id: &origin.request_id,
                address: origin.address.as_deref(),
                detail: json!({
                    "customerId": request.customer_id,
                    "merchantId": request.merchant_id,
                    "orderId": request.order_id,
                    "points": request.points,
                }),
            };
            audit::write(&mut tx, &change).await?;
        }
        Some(Accepted::Same) | None => {}
    }
    Ok(Ok((tx, is_new)))
}

/// Starts the flow and waits a little for its first step; the start may take longer than that.
async fn start_and_wait(
    app: &Arc<App>,
    request: &RedeemRequest,
    road: Road,
    changes: Changes<RedeemRequestId>,
    place: Option<Place>,
) -> Result<Redemption, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(app.settings.api.outcome_wait_ms);
    let steps = app.outcomes.listen(&request.redeem_request_id);
    let started = tokio::spawn(start(Arc::clone(app), request.clone()).in_current_span());
    if let Some(place) = place {
        tokio::spawn(hold(place, started, steps));
    }
    let id = &request.redeem_request_id;
    let ended = |row: &Redemption| row.state.is_final();
    let begun = |row: &Redemption| row.state != RedemptionState::Queued;
    if road == Road::Loyalty {
        waiting::until(app, id, changes, LookAt::Rest, deadline, ended).await?
    } else {
        waiting::until(app, id, changes, LookAt::EveryChange, deadline, begun).await?
    }
    .ok_or_else(|| ApiError::Internal(format!("redemption {id} has vanished")))
}

/// Starts the flow; whether it is known to have been started.
async fn start(app: Arc<App>, request: RedeemRequest) -> bool {
    let RedeemRequest {
        redeem_request_id: id,
        customer_id,
        merchant_id,
        points,
        ..
    } = &request;
    let started = app
        .flows
        .start_redemption(id, customer_id, merchant_id, *points);
    match started.await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(redeem_request_id = %id, %error, "the start is in doubt; it is repeated");
            false
        }
    }
}

/// Holds a redemption's place until it comes to rest, so that no more are accepted than come to an
/// end. One that has not been started takes none: it waits in the ledger.
async fn hold(place: Place, started: JoinHandle<bool>, mut steps: Changes<RedeemRequestId>) {
    let at_rest = async {
        if matches!(started.await, Ok(true)) {
            while !steps.changed().await {}
        }
    };
    // Temporal may hang, and the steps may run in another process, where nobody tells.
    let _ = tokio::time::timeout(HELD_FOR, at_rest).await;
    drop(place);
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitParameters {
    /// How many seconds to wait for the end, at most; the server's own limit is 30 unless it is
    /// configured otherwise.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 4_294_967_295_u64)]
    wait: Option<u32>,
}

/// Shows a redemption, at once or when it has ended.
#[utoipa::path(
    get,
    path = "/api/v1/redeem/{redeemRequestId}",
    operation_id = "readRedemption",
    tag = "redeem",
    security(("token" = ["rewards.redeem"])),
    params(("redeemRequestId" = String, Path, description = "The client's id of it", example = "R-1001"), WaitParameters),
    responses(
        (status = 200, description = "The redemption", body = RedemptionBody),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRedeem)))),
        (status = 404, description = "There is none, or not for this client", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Redemption)))),
        AnyCall,
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRedeem>,
    Path(id): Path<String>,
    Parameters(WaitParameters { wait }): Parameters<WaitParameters>,
) -> Result<Json<RedemptionBody>, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Redemption);
    let id = RedeemRequestId::new(id).map_err(|_| not_found())?;
    about("redeem_request_id", id.as_str());
    let changes = app.outcomes.listen(&id);
    let seconds = u64::from(wait.unwrap_or(0)).min(app.settings.api.max_wait_seconds);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let reading = async {
        // Whose it is comes first, so that nobody waits for what is not theirs.
        let row = waiting::find(&app, &id).await?;
        let mut row = row
            .filter(|row| may_see(&caller.identity, row))
            .ok_or_else(not_found)?;
        if seconds > 0 && !row.state.is_final() {
            let ended = |row: &Redemption| row.state.is_final();
            row = waiting::until(&app, &id, changes, LookAt::Rest, deadline, ended)
                .await?
                .ok_or_else(not_found)?;
        }
        app.cache.lapse(&row.customer_id);
        Ok(Json(row.into()))
    };
    tokio::time::timeout_at(deadline + ANSWER_WITHIN, reading)
        .await
        .unwrap_or(Err(ApiError::TimedOut))
}

/// Whether a redemption is within reach: its merchant and its customer are.
pub(super) fn may_see(identity: &Identity, row: &Redemption) -> bool {
    identity.reaches_merchant(&row.merchant_id) && identity.reaches_customer(&row.customer_id)
}

/// Takes a redemption back.
///
/// It is taken back unless the merchant can no longer undo it; how it ends is seen by asking for it.
#[utoipa::path(
    post,
    path = "/api/v1/redeem/{redeemRequestId}/cancel",
    operation_id = "cancelRedemption",
    tag = "redeem",
    security(("token" = ["rewards.redeem"])),
    params(
        ("redeemRequestId" = String, Path, description = "The client's id of it", example = "R-1001"),
        ("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The client's own key for this request", example = "7f1c1b52-7")
    ),
    responses(
        (status = 202, description = "The wish is recorded", body = RedeemAccepted,
            headers(("Location" = String, description = "The redemption"))),
        (status = 400, description = "No usable Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyMissing))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRedeem)))),
        (status = 404, description = "There is none, or not for this client", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Redemption)))),
        (status = 409, description = "ALREADY_ENDED or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::AlreadyEnded))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRedeem>,
    origin: Origin,
    key: IdempotencyKey,
    Path(id): Path<String>,
) -> Result<Reply, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Redemption);
    let id = RedeemRequestId::new(id).map_err(|_| not_found())?;
    about("redeem_request_id", id.as_str());
    let identity = caller.identity;
    let row = waiting::find(&app, &id).await?;
    row.filter(|row| may_see(&identity, row))
        .ok_or_else(not_found)?;
    let route = "POST /api/v1/redeem/{redeemRequestId}/cancel";
    let keyed = idempotency::Request::new(&identity, route, key, id.as_str(), b"");
    let (mut tx, turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    detached(async move {
        let _turn = turn;
        let row = redemptions::request_cancel(&mut tx, &id).await?;
        if row.state.is_final() {
            let reply = Reply::problem(&ApiError::AlreadyEnded);
            idempotency::finish_in(tx, &keyed, &reply).await?;
            return Ok(reply);
        }
        let change = audit::Change {
            actor: &identity.client(),
            action: "redeem.cancel",
            subject: id.as_str(),
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "state": row.state }),
        };
        audit::write(&mut tx, &change).await?;
        let reply = accepted(&row);
        idempotency::finish_in(tx, &keyed, &reply).await?;
        let workflow_id = workflows::id::redeem(&id);
        if let Err(error) = app.flows.signal(&workflow_id, Signal::CancelRequested).await {
            tracing::warn!(redeem_request_id = %id, %error, "the signal is in doubt; the row has it");
        }
        Ok(reply)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_an_address() {
        let location = |id: &str| location(&RedeemRequestId::new(id).expect("an id"));
        assert_eq!(location("R-1001"), "/api/v1/redeem/R-1001");
        assert_eq!(location("a b?ü"), "/api/v1/redeem/a%20b%3F%C3%BC");
    }
}
