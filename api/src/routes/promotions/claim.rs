//! A player's promotions: seen, and claimed. A claim is accepted here and done by the flow; a start
//! that is in doubt is repeated by others, so it never fails the request.

use std::{sync::Arc, time::Duration};

use activities::outcomes::{Changes, ClaimOf};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use domain::{
    CustomerId, Points, Promotion, PromotionId,
    promotion::{ClaimRefusal, ClaimState, Standing},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit,
    claims::{self, Asked, Assignment},
    promotions, transaction,
};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use workflows::contract::PromotionClaim;

use super::{PromotionBody, cursor, place};
use crate::{
    App,
    auth::{AsPerson, AsPlayer, Holder, Identity, Role},
    body::{self, JsonBody},
    error::{ApiError, ProblemDocument, Thing},
    idempotency::{self, Claim, Reply},
    openapi::{AnyBody, AnyCall, told},
    paging,
    parameters::{IdInAddress, IdempotencyKey, Origin, Parameters},
    routes::detached,
    waiting::{self, LookAt},
};

/// Which promotion to claim.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "promotionId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e" }))]
pub(in crate::routes) struct ClaimRequest {
    /// The promotion.
    #[schema(value_type = IdInAddress)]
    promotion_id: String,
}

/// How far a claim has come.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "it describes `domain::promotion::ClaimState`")]
pub(in crate::routes) enum ClaimStatus {
    Unclaimed,
    Claiming,
    Claimed,
}

/// Why a claim was rolled back; nothing was credited.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "it describes `domain::promotion::ClaimRefusal`")]
pub(in crate::routes) enum RefusalReason {
    NoPoints,
    TooManyPoints,
    UnknownCurrency,
}

/// A claim that is accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "promotionId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "playerId": "C-42",
    "status": "CLAIMED", "points": 10
}))]
pub(in crate::routes) struct ClaimAccepted {
    /// The promotion.
    promotion_id: String,
    /// The player.
    player_id: String,
    /// CLAIMED when the points are credited, CLAIMING as long as they are not.
    #[schema(value_type = ClaimStatus)]
    status: ClaimState,
    /// What it is worth, once that is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    points: Option<Points>,
}

/// A promotion of a player.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::routes) struct PlayerPromotion {
    /// The promotion.
    #[serde(flatten)]
    promotion: PromotionBody,
    /// How far its claim has come.
    #[schema(value_type = ClaimStatus)]
    status: ClaimState,
    /// Whether it can be claimed now.
    can_be_claimed: bool,
    /// The points of the claim, once they are fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    points: Option<Points>,
    /// Why the last claim was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RefusalReason>)]
    refusal: Option<ClaimRefusal>,
    /// When it was assigned.
    assigned_at: DateTime<Utc>,
    /// When the points were credited.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<DateTime<Utc>>,
}

impl PlayerPromotion {
    fn of(promotion: Promotion, row: &Assignment, now: DateTime<Utc>) -> Self {
        let is_open = promotion.terms.standing(now) == Standing::Open;
        Self {
            promotion: promotion.into(),
            status: row.state,
            can_be_claimed: is_open && row.state == ClaimState::Unclaimed,
            points: row.points,
            refusal: row.refusal,
            assigned_at: row.assigned_at,
            claimed_at: row.claimed_at,
        }
    }
}

/// A part of a player's promotions, the one that was assigned last first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "playerId": "C-42",
    "promotions": [{
        "id": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "title": "Ten to begin the year",
        "description": "For everybody who plays in January", "type": "DEPOSIT_MATCH",
        "amount": "10", "startDate": "2026-01-01T00:00:00Z", "endDate": "2026-02-01T00:00:00Z",
        "isActive": true, "createdAt": "2025-12-20T09:00:00Z", "status": "CLAIMED",
        "canBeClaimed": false, "points": 10, "assignedAt": "2026-01-02T08:00:00Z",
        "claimedAt": "2026-01-03T19:30:00Z"
    }],
    "next": "/api/v1/promotions/players/C-42?limit=1&cursor=cGxheWVycw"
}))]
pub(in crate::routes) struct PlayerPromotions {
    /// The player.
    player_id: String,
    /// The promotions.
    promotions: Vec<PlayerPromotion>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct PlayerParameters {
    /// How many promotions.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The newest page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// Lists the promotions of a player, the one that was assigned last first.
///
/// Somebody to whom none was assigned has none.
#[utoipa::path(
    get,
    path = "/api/v1/promotions/players/{playerId}",
    operation_id = "listPlayerPromotions",
    tag = "promotions",
    security(("token" = ["player"]), ("token" = ["staff"]), ("token" = ["admin"])),
    params(
        ("playerId" = String, Path, description = "The player: the customer id, and the `sub` of the player's tokens", example = "C-42"),
        PlayerParameters
    ),
    responses(
        (status = 200, description = "A page of them", body = PlayerPromotions),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "CUSTOMER_NOT_ALLOWED: another player's; or not for this role", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::CustomerNotAllowed))),
        (status = 404, description = "Nobody can have this id", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Customer)))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn list(
    State(app): State<Arc<App>>,
    person: Holder<AsPerson>,
    Path(player): Path<String>,
    Parameters(parameters): Parameters<PlayerParameters>,
) -> Result<Json<PlayerPromotions>, ApiError> {
    let player = CustomerId::new(player).map_err(|_| ApiError::NotFound(Thing::Customer))?;
    if !person.identity.reaches_customer(&player) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let limit = paging::limit(parameters.limit)?;
    let list = format!("players/{player}");
    let before = paging::place(&list, parameters.cursor.as_deref(), place)?;
    let before = before.as_ref().map(|(at, id)| (*at, id.as_str()));
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    let one_more = i64::from(limit) + 1;
    let mut page = promotions::of_customer(&mut conn, &player, before, one_more).await?;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|(_, last)| {
        let cursor = cursor(&list, last.assigned_at, &last.promotion_id);
        let path = format!(
            "/api/v1/promotions/players/{}",
            paging::path_segment(player.as_str())
        );
        paging::next(&path, &[("limit", Some(&limit.to_string()))], &cursor)
    });
    let now = Utc::now();
    Ok(Json(PlayerPromotions {
        player_id: player.to_string(),
        promotions: page
            .into_iter()
            .map(|(promotion, row)| PlayerPromotion::of(promotion, &row, now))
            .collect(),
        next,
    }))
}

fn accepted(row: &Assignment) -> Reply {
    let body = ClaimAccepted {
        promotion_id: row.promotion_id.to_string(),
        player_id: row.customer_id.to_string(),
        status: row.state,
        points: row.points,
    };
    Reply::new(StatusCode::ACCEPTED, &body, None)
}

/// Claims a promotion of the player whose token it is.
///
/// The points are mostly credited when the answer comes, and are on their way otherwise: the list of
/// the player's promotions shows when they are. Whoever claims while the same claim is under way is
/// told of that one; once it is claimed, the answer is 409.
#[utoipa::path(
    post,
    path = "/api/v1/promotions/claim",
    operation_id = "claimPromotion",
    tag = "promotions",
    security(("token" = ["player"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-11")),
    request_body(content = ClaimRequest, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = ClaimAccepted),
        (status = 400, description = "The request breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Player)))),
        (status = 404, description = "There is no such promotion, or not for this player", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Promotion)))),
        (status = 409, description = "PROMOTION_ALREADY_CLAIMED, PROMOTION_NOT_STARTED, PROMOTION_ENDED, PROMOTION_INACTIVE, CLAIM_REFUSED or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::AlreadyClaimed))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn claim(
    State(app): State<Arc<App>>,
    player: Holder<AsPlayer>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let ClaimRequest { promotion_id } = body::read(&body)?;
    let not_found = || ApiError::NotFound(Thing::Promotion);
    let promotion_id = PromotionId::new(promotion_id).map_err(|_| not_found())?;
    let identity = player.identity;
    let customer = CustomerId::new(identity.subject.clone())
        .map_err(|_| ApiError::InvalidToken("its subject cannot be a customer"))?;
    let keyed =
        idempotency::Request::new(&identity, "POST /api/v1/promotions/claim", key, "", &body);
    let (mut tx, turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    // A client that hangs up must not leave the key without its answer.
    detached(async move {
        // All of it, to be held until the answer is kept.
        let turn = turn;
        let asked = claims::ask(&mut tx, &promotion_id, &customer, Utc::now()).await?;
        let (row, is_new) = match asked {
            Asked::New(row) => {
                write_down(&mut tx, &row, &identity, &origin).await?;
                (row, true)
            }
            // Who asked first starts the flow, and a start that is lost is repeated by others.
            Asked::UnderWay(row) => (row, false),
            Asked::NotAssigned => return Err(not_found()),
            // The request that it takes over from had claimed it, and the answer was lost.
            Asked::Before(row) if turn.takes_over => {
                let reply = accepted(&row);
                idempotency::finish_in(tx, &keyed, &reply).await?;
                return Ok(reply);
            }
            Asked::Before(_) => return refused(tx, &keyed, &ApiError::AlreadyClaimed).await,
            Asked::NotOpen(standing) => {
                return refused(tx, &keyed, &ApiError::PromotionNotOpen(standing)).await;
            }
        };
        let changes = app
            .outcomes
            .listen_to_claim(&(promotion_id, customer.clone()));
        transaction::commit(tx, "claim").await?;
        if is_new {
            start(&app, &row);
        }
        let reply = match ended(&app, &row, changes).await {
            Ok(row) => reply(&row),
            // It stands in the ledger: how far it has come cannot be seen now, but it will end.
            Err(ApiError::Unavailable(error)) => {
                tracing::warn!(%error, "claimed, and out of sight");
                accepted(&row)
            }
            Err(error) => return Err(error),
        };
        // Who was told of the claim looks at the balance next.
        app.cache.lapse(&customer);
        idempotency::finish(&app, &keyed, &reply).await;
        Ok(reply)
    })
    .await
}

async fn refused(
    tx: store::Transaction,
    keyed: &idempotency::Request,
    why: &ApiError,
) -> Result<Reply, ApiError> {
    let reply = Reply::problem(why);
    idempotency::finish_in(tx, keyed, &reply).await?;
    Ok(reply)
}

/// The answer to a claim that stands like this.
fn reply(row: &Assignment) -> Reply {
    match (row.state, row.refusal) {
        (ClaimState::Unclaimed, Some(refusal)) => Reply::problem(&ApiError::ClaimRefused(refusal)),
        _ => accepted(row),
    }
}

/// Writes who claims what.
async fn write_down(
    tx: &mut store::Transaction,
    row: &Assignment,
    identity: &Identity,
    origin: &Origin,
) -> Result<(), ApiError> {
    let change = audit::Change {
        actor: &identity.client(),
        action: "promotion.claim",
        subject: row.promotion_id.as_str(),
        request_id: &origin.request_id,
        address: origin.address.as_deref(),
        detail: json!({ "playerId": row.customer_id, "claim": row.claims }),
    };
    Ok(audit::write(tx, &change).await?)
}

/// Starts the flow, without waiting for the start.
fn start(app: &Arc<App>, row: &Assignment) {
    let starting = Arc::clone(app);
    let claim = PromotionClaim {
        promotion_id: row.promotion_id.clone(),
        customer_id: row.customer_id.clone(),
        number: row.claims,
    };
    tokio::spawn(async move {
        if let Err(error) = starting.flows.start_claim(&claim).await {
            tracing::warn!(?claim, %error, "the start is in doubt; it is repeated");
        }
    });
}

/// Waits a little for the end of a claim; its start may take longer than that.
async fn ended(
    app: &Arc<App>,
    row: &Assignment,
    changes: Changes<ClaimOf>,
) -> Result<Assignment, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(app.settings.api.outcome_wait_ms);
    let of = (row.promotion_id.clone(), row.customer_id.clone());
    let has_ended = |row: &Assignment| row.state != ClaimState::Claiming;
    waiting::until(app, &of, changes, LookAt::Rest, deadline, has_ended)
        .await?
        .ok_or_else(|| ApiError::Internal("a claim has vanished".to_owned()))
}
