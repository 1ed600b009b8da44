//! Assigning a promotion to many players: accepted here, done by the flow, and looked at meanwhile.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use domain::{
    AssignmentJobId, CustomerId, PromotionId, Refusal, RefusalClass,
    promotion::{AssignmentState, PLAYERS_MAX, Standing},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    assignments::{self, Job},
    audit, promotions,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    App,
    auth::{AsStaff, Holder, Role},
    body::{self, JsonBody},
    error::{ApiError, ProblemDocument, Thing},
    idempotency::{self, Claim, Reply},
    openapi::{AnyBody, AnyCall, told},
    paging,
    parameters::{IdempotencyKey, Origin, Parameters},
};

/// To whom to assign it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "playerIds": ["C-42", "C-43"] }))]
pub(in crate::routes) struct Players {
    /// The players. Somebody who is named twice counts once.
    #[schema(min_items = 1, max_items = 10_000)]
    player_ids: Vec<String>,
}

/// A job that assigns a promotion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "jobId": "01926f3e-9a11-7b0c-8c55-3d2f1e0a9b8c",
    "promotionId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "status": "QUEUED", "players": 2
}))]
pub(in crate::routes) struct JobAccepted {
    /// Its id.
    job_id: String,
    /// The promotion.
    promotion_id: String,
    /// Where it stands.
    #[schema(value_type = JobStatus)]
    status: AssignmentState,
    /// How many players it is about.
    players: i64,
}

/// Where a job stands. DONE and CANCELLED are final.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "it describes `domain::promotion::AssignmentState`"
)]
pub(in crate::routes) enum JobStatus {
    Queued,
    Running,
    Done,
    Cancelled,
}

/// How far a job has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "jobId": "01926f3e-9a11-7b0c-8c55-3d2f1e0a9b8c",
    "promotionId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "status": "DONE", "players": 10,
    "done": 10, "assigned": 7, "already": 1, "unknown": 2, "notDone": 0,
    "requestedAt": "2026-03-14T12:00:00Z", "endedAt": "2026-03-14T12:00:01Z",
    "unknownPlayers": ["C-99", "C-98"]
}))]
pub(in crate::routes) struct JobBody {
    /// Its id.
    job_id: String,
    /// The promotion.
    promotion_id: String,
    /// Where it stands.
    #[schema(value_type = JobStatus)]
    status: AssignmentState,
    /// How many players it is about.
    players: i64,
    /// How many of them were looked at.
    done: i64,
    /// How many got the promotion.
    assigned: i64,
    /// How many had it before.
    already: i64,
    /// How many have no account.
    unknown: i64,
    /// How many were not looked at: still, or at all when it was cancelled.
    not_done: i64,
    /// When it was asked for.
    requested_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    /// Those without an account, in the order of the request: a page of them.
    unknown_players: Vec<String>,
    /// Where the next page of those is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<&Job> for JobAccepted {
    fn from(job: &Job) -> Self {
        Self {
            job_id: job.job_id.to_string(),
            promotion_id: job.promotion_id.to_string(),
            status: job.state,
            players: job.players,
        }
    }
}

fn location(id: &AssignmentJobId) -> String {
    let id = paging::path_segment(id.as_str());
    format!("/api/v1/promotions/jobs/{id}")
}

fn accepted(job: &Job) -> Reply {
    let at = location(&job.job_id);
    Reply::new(StatusCode::ACCEPTED, &JobAccepted::from(job), Some(at))
}

/// Those who are named, once each.
fn players(body: &[u8]) -> Result<Vec<CustomerId>, ApiError> {
    let Players { player_ids } = body::read(body)?;
    if !(1..=PLAYERS_MAX).contains(&player_ids.len()) {
        return Err(ApiError::InvalidBody(format!(
            "playerIds is a list of 1 to {PLAYERS_MAX} players."
        )));
    }
    let mut named = HashSet::with_capacity(player_ids.len());
    let mut players = Vec::with_capacity(player_ids.len());
    for (index, id) in player_ids.into_iter().enumerate() {
        let player = CustomerId::new(id).map_err(|error| {
            let reason = format!("playerIds[{index}]: {error}");
            ApiError::Refused(Refusal::new(RefusalClass::InvalidId, reason))
        })?;
        if named.insert(player.clone()) {
            players.push(player);
        }
    }
    Ok(players)
}

/// Assigns a promotion to up to 10,000 players.
///
/// The answer comes at once; `Location` leads to the job that does it. Each player who gets the
/// promotion is notified. One that does not hold yet may be assigned, one that has ended may not.
#[utoipa::path(
    post,
    path = "/api/v1/promotions/{promotionId}/assign",
    operation_id = "assignPromotion",
    tag = "promotions",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(
        ("promotionId" = String, Path, description = "The promotion", example = "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e"),
        ("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The client's own key for this request", example = "7f1c1b52-9")
    ),
    request_body(content = Players, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted", body = JobAccepted,
            headers(("Location" = String, description = "The job"))),
        (status = 400, description = "The request breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        (status = 404, description = "There is no such promotion", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Promotion)))),
        (status = 409, description = "PROMOTION_INACTIVE, PROMOTION_ENDED or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::PromotionNotOpen(Standing::Ended)))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn assign(
    State(app): State<Arc<App>>,
    staff: Holder<AsStaff>,
    origin: Origin,
    key: IdempotencyKey,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let players = players(&body)?;
    let not_found = || ApiError::NotFound(Thing::Promotion);
    let promotion_id = PromotionId::new(id).map_err(|_| not_found())?;
    let identity = staff.identity;
    let route = "POST /api/v1/promotions/{promotionId}/assign";
    let keyed = idempotency::Request::new(&identity, route, key, promotion_id.as_str(), &body);
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let promotion = promotions::find(&mut tx, &promotion_id).await?;
    let promotion = promotion.ok_or_else(not_found)?;
    match promotion.terms.standing(Utc::now()) {
        Standing::Open | Standing::NotStarted => {}
        standing @ (Standing::Inactive | Standing::Ended) => {
            let reply = Reply::problem(&ApiError::PromotionNotOpen(standing));
            idempotency::finish_in(tx, &keyed, &reply).await?;
            return Ok(reply);
        }
    }
    let job_id = AssignmentJobId::new(Uuid::now_v7().to_string())
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    assignments::order(&mut tx, &job_id, &promotion_id, &players).await?;
    let change = audit::Change {
        actor: &identity.client(),
        action: "promotion.assign",
        subject: promotion_id.as_str(),
        request_id: &origin.request_id,
        address: origin.address.as_deref(),
        detail: json!({ "jobId": job_id, "players": players.len() }),
    };
    audit::write(&mut tx, &change).await?;
    let job = assignments::find(&mut tx, &job_id).await?;
    let job = job.ok_or_else(|| ApiError::Internal(format!("job {job_id} has vanished")))?;
    let reply = accepted(&job);
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct JobParameters {
    /// How many of those without an account are named.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The first page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// Shows how far a job has come, and which players are not known.
#[utoipa::path(
    get,
    path = "/api/v1/promotions/jobs/{jobId}",
    operation_id = "readAssignmentJob",
    tag = "promotions",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(
        ("jobId" = String, Path, description = "The job", example = "01926f3e-9a11-7b0c-8c55-3d2f1e0a9b8c"),
        JobParameters
    ),
    responses(
        (status = 200, description = "The job", body = JobBody),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        (status = 404, description = "There is no such job", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::AssignmentJob)))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn read(
    State(app): State<Arc<App>>,
    _staff: Holder<AsStaff>,
    Path(id): Path<String>,
    Parameters(parameters): Parameters<JobParameters>,
) -> Result<Json<JobBody>, ApiError> {
    let not_found = || ApiError::NotFound(Thing::AssignmentJob);
    let id = AssignmentJobId::new(id).map_err(|_| not_found())?;
    let limit = paging::limit(parameters.limit)?;
    let list = format!("jobs/{id}");
    let after = paging::place(&list, parameters.cursor.as_deref(), |position| {
        position.parse::<i32>().ok()
    })?;
    let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
    let job = assignments::find(&mut conn, &id).await?;
    let job = job.ok_or_else(not_found)?;
    let one_more = i64::from(limit) + 1;
    let mut page =
        assignments::unknown_players(&mut conn, &id, after.unwrap_or(0), one_more).await?;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|(position, _)| {
        let cursor = paging::cursor(&list, &position.to_string());
        let kept = [("limit", Some(&*limit.to_string()))];
        paging::next(&location(&id), &kept, &cursor)
    });
    Ok(Json(JobBody {
        job_id: job.job_id.to_string(),
        promotion_id: job.promotion_id.to_string(),
        status: job.state,
        players: job.players,
        done: job.players - job.left(),
        assigned: job.assigned,
        already: job.already,
        unknown: job.unknown,
        not_done: job.left(),
        requested_at: job.requested_at,
        ended_at: job.ended_at,
        unknown_players: page.into_iter().map(|(_, player)| player).collect(),
        next,
    }))
}

/// Takes a job back: who has the promotion keeps it, the rest does not get it.
#[utoipa::path(
    post,
    path = "/api/v1/promotions/jobs/{jobId}/cancel",
    operation_id = "cancelAssignmentJob",
    tag = "promotions",
    security(("token" = ["staff"]), ("token" = ["admin"])),
    params(
        ("jobId" = String, Path, description = "The job", example = "01926f3e-9a11-7b0c-8c55-3d2f1e0a9b8c"),
        ("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The client's own key for this request", example = "7f1c1b52-10")
    ),
    responses(
        (status = 202, description = "The wish is recorded", body = JobAccepted,
            headers(("Location" = String, description = "The job"))),
        (status = 400, description = "No usable Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyMissing))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "Not for this role: staff or admin", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Staff)))),
        (status = 404, description = "There is no such job", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::AssignmentJob)))),
        (status = 409, description = "ALREADY_ENDED or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::AlreadyEnded))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(in crate::routes) async fn cancel(
    State(app): State<Arc<App>>,
    staff: Holder<AsStaff>,
    origin: Origin,
    key: IdempotencyKey,
    Path(id): Path<String>,
) -> Result<Reply, ApiError> {
    let not_found = || ApiError::NotFound(Thing::AssignmentJob);
    let id = AssignmentJobId::new(id).map_err(|_| not_found())?;
    let identity = staff.identity;
    let route = "POST /api/v1/promotions/jobs/{jobId}/cancel";
    let keyed = idempotency::Request::new(&identity, route, key, id.as_str(), b"");
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    if assignments::find(&mut tx, &id).await?.is_none() {
        return Err(not_found());
    }
    let job = assignments::request_cancel(&mut tx, &id).await?;
    let reply = if job.state.is_final() {
        Reply::problem(&ApiError::AlreadyEnded)
    } else {
        let change = audit::Change {
            actor: &identity.client(),
            action: "promotion.assign-cancel",
            subject: job.promotion_id.as_str(),
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "jobId": job.job_id, "notDone": job.left() }),
        };
        audit::write(&mut tx, &change).await?;
        accepted(&job)
    };
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}
