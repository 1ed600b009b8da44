//! A customer's own account: the customer is the subject of the token.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::Utc;
use domain::{
    CustomerId, MerchantId, Number, OrderId, Points, RedeemRequestId, Refusal, RefusalClass,
    command::RedeemRequest, redemption::BUILT_IN_MERCHANT,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{history::Wanted, redemptions::Origin as Road};
use utoipa::ToSchema;
use uuid::Uuid;

use super::redeem::{RedeemAccepted, carry_out};
use crate::{
    App,
    auth::{AsPlayer, Holder, Identity, Role},
    body::{self, JsonBody},
    cache::AskLedger,
    error::{ApiError, ProblemDocument},
    idempotency::{self, Reply},
    openapi::{AnyBody, AnyCall, told},
    parameters::{IdempotencyKey, Origin},
};

/// A customer's own account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "userId": "C-42", "currentPoints": 750, "tier": "SILVER" }))]
pub(super) struct Loyalty {
    /// The customer.
    user_id: String,
    /// Points that can be spent and points that are held for redemptions under way.
    current_points: i64,
    /// BRONZE, SILVER, GOLD or PLATINUM.
    tier: &'static str,
}

/// How many points to spend.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "points": 100 }))]
pub(super) struct Spend {
    /// The points.
    #[schema(value_type = i64, minimum = 1)]
    points: Box<RawValue>,
}

/// Shows the account of the customer whose token it is.
///
/// Somebody to whom nothing has happened yet has no points and the first tier.
#[utoipa::path(
    get,
    path = "/api/v1/loyalty",
    operation_id = "readLoyalty",
    tag = "loyalty",
    security(("token" = ["player"])),
    responses(
        (status = 200, description = "The account", body = Loyalty),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        AnyCall,
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    AskLedger(ask_ledger): AskLedger,
) -> Result<Response, ApiError> {
    let customer = customer(&player.identity)?;
    let shown = app
        .cache
        .read(&customer, Wanted::default(), ask_ledger)
        .await?;
    let loyalty = |current_points, tier: domain::Tier| Loyalty {
        user_id: customer.to_string(),
        current_points,
        tier: tier.as_str(),
    };
    Ok(match shown {
        Some(shown) => {
            let account = &shown.account;
            (shown.source, Json(loyalty(account.current(), account.tier))).into_response()
        }
        None => Json(loyalty(0, domain::Tier::default())).into_response(),
    })
}

/// The same without a version in the address.
#[utoipa::path(
    get,
    path = "/loyalty",
    operation_id = "readLoyaltyUnversioned",
    tag = "loyalty",
    security(("token" = ["player"])),
    responses(
        (status = 200, description = "The account", body = Loyalty),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        AnyCall,
    )
)]
pub(super) async fn read_unversioned(
    app: State<Arc<App>>,
    player: Holder<AsPlayer>,
    ask: AskLedger,
) -> Result<Response, ApiError> {
    read(app, player, ask).await
}

/// Spends points of the customer whose token it is, at no merchant's.
///
/// It is a redemption like all others, at a merchant that confirms by itself, so it has mostly ended
/// when the answer comes; `Location` leads to it. The same `Idempotency-Key` is the same redemption.
#[utoipa::path(
    post,
    path = "/api/v1/loyalty",
    operation_id = "spendLoyalty",
    tag = "loyalty",
    security(("token" = ["player"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-2")),
    request_body(content = Spend, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = RedeemAccepted,
            headers(("Location" = String, description = "The redemption")),
            example = json!({ "redeemRequestId": "loyalty-6d0c7f0e-6a0f-5c0e-9a53-2f6f0b8a7c11", "status": "SUCCESS" })),
        (status = 400, description = "The request breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        (status = 409, description = "INSUFFICIENT_POINTS or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InsufficientPoints))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn spend(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let identity = player.identity;
    let request = request(&identity, &key, &body)?;
    let keyed = idempotency::Request::new(&identity, "POST /api/v1/loyalty", key, "", &body);
    carry_out(app, identity, origin, keyed, request, Road::Loyalty).await
}

/// The same without a version in the address.
#[utoipa::path(
    post,
    path = "/loyalty",
    operation_id = "spendLoyaltyUnversioned",
    tag = "loyalty",
    security(("token" = ["player"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-3")),
    request_body(content = Spend, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = RedeemAccepted,
            headers(("Location" = String, description = "The redemption")),
            example = json!({ "redeemRequestId": "loyalty-6d0c7f0e-6a0f-5c0e-9a53-2f6f0b8a7c11", "status": "SUCCESS" })),
        (status = 400, description = "The request breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        (status = 409, description = "INSUFFICIENT_POINTS or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InsufficientPoints))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn spend_unversioned(
    app: State<Arc<App>>,
    player: Holder<AsPlayer>,
    origin: Origin,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    spend(app, player, origin, key, body).await
}

/// The customer that the token stands for.
pub(super) fn customer(identity: &Identity) -> Result<CustomerId, ApiError> {
    CustomerId::new(identity.subject.clone())
        .map_err(|_| ApiError::InvalidToken("its subject cannot be a customer"))
}

/// The redemption. Its id follows from whose key it is: whoever takes over from a process that died
/// between the effect and the answer finds the same redemption.
fn request(
    identity: &Identity,
    key: &IdempotencyKey,
    body: &[u8],
) -> Result<RedeemRequest, ApiError> {
    let Spend { points } = body::read(body)?;
    let refused = |class, reason: String| ApiError::Refused(Refusal::new(class, reason));
    // The same numbers as in a request to redeem: 100.0 is one of them.
    let points = Number::parse(points.get())
        .and_then(|points| Points::new(points.to_i64()?).ok())
        .filter(|points| !points.is_zero())
        .ok_or_else(|| {
            let reason = "points is a whole number above 0".to_owned();
            refused(RefusalClass::InvalidPoints, reason)
        })?;
    let customer_id = customer(identity)?;
    let name = format!("meed:loyalty/{}\n{}", identity.client(), key.0);
    let id = format!(
        "loyalty-{}",
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    );
    let impossible = |error: String| ApiError::Internal(error);
    Ok(RedeemRequest {
        customer_id,
        points,
        merchant_id: MerchantId::new(BUILT_IN_MERCHANT).map_err(|e| impossible(e.to_string()))?,
        order_id: OrderId::new(id.clone()).map_err(|e| impossible(e.to_string()))?,
        redeem_request_id: RedeemRequestId::new(id).map_err(|e| impossible(e.to_string()))?,
        requested_at: Utc::now(),
    })
}
