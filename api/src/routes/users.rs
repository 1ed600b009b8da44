//! Administering the product's own users.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use store::{
    audit,
    users::{self, Deactivated},
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    App,
    auth::{AsAdmin, Holder, Role},
    error::{ApiError, ProblemDocument, Thing},
    idempotency::{self, Claim, Reply},
    openapi::{AnyCall, told},
    parameters::{IdempotencyKey, Origin},
};

/// A user who is refused from now on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "userId": "5f0c6c1e-3a52-4b6d-9a0f-0d8f3c1f7a11", "deactivatedAt": "2026-03-14T12:00:00Z" }))]
pub(super) struct DeactivatedUser {
    /// Who.
    user_id: Uuid,
    /// Since when.
    deactivated_at: DateTime<Utc>,
}

/// Deactivates a user: no login and no refresh any more, and the tokens at hand do not count.
///
/// On this server they are refused at once, on others within five seconds. Deactivating somebody
/// again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/users/{userId}/deactivate",
    operation_id = "deactivateUser",
    tag = "users",
    security(("token" = ["admin"])),
    params(
        ("userId" = String, Path, description = "The user", example = "5f0c6c1e-3a52-4b6d-9a0f-0d8f3c1f7a11"),
        ("Idempotency-Key" = String, Header, description = "The client's own key for this request", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "7f1c1b52-5")
    ),
    responses(
        (status = 200, description = "Deactivated, now or before", body = DeactivatedUser),
        (status = 400, description = "No Idempotency-Key", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyMissing))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token is not an admin's", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingRole(Role::Admin)))),
        (status = 404, description = "There is no such user", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::User)))),
        (status = 409, description = "LAST_ADMIN or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::LastAdmin))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn deactivate(
    State(app): State<Arc<App>>,
    admin: Holder<AsAdmin>,
    origin: Origin,
    key: IdempotencyKey,
    Path(id): Path<String>,
) -> Result<Reply, ApiError> {
    let user_id: Uuid = id.parse().map_err(|_| ApiError::NotFound(Thing::User))?;
    let subject = user_id.to_string();
    let route = "POST /api/v1/users/{userId}/deactivate";
    let keyed = idempotency::Request::new(&admin.identity, route, key, &subject, b"");
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let (at, ended) = match users::deactivate(&mut tx, user_id).await? {
        Deactivated::Unknown => return Err(ApiError::NotFound(Thing::User)),
        Deactivated::LastAdmin => {
            let reply = Reply::problem(&ApiError::LastAdmin);
            idempotency::finish_in(tx, &keyed, &reply).await?;
            return Ok(reply);
        }
        Deactivated::Before { at } => (at, Vec::new()),
        Deactivated::Now { at, sessions } => {
            let change = audit::Change {
                actor: &admin.identity.client(),
                action: "user.deactivate",
                subject: &subject,
                request_id: &origin.request_id,
                address: origin.address.as_deref(),
                detail: json!({ "sessions": sessions.len() }),
            };
            audit::write(&mut tx, &change).await?;
            (at, sessions)
        }
    };
    let deactivated = DeactivatedUser {
        user_id,
        deactivated_at: at,
    };
    let reply = Reply::new(StatusCode::OK, &deactivated, None);
    idempotency::finish_in(tx, &keyed, &reply).await?;
    app.sessions_ended(&ended);
    Ok(reply)
}
