//! Events over HTTP, from partners that do not speak Kafka. They are written down here and published
//! by the relay to the topic that other partners write to; from there they go one way for all.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use domain::inbound;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    audit,
    events::{self, Accepted},
};
use utoipa::ToSchema;

use crate::{
    App,
    auth::{Caller, RewardsWrite, Role, Scope},
    body::JsonBody,
    error::{ApiError, ProblemDocument},
    idempotency::{self, Claim, Reply},
    observe::about,
    openapi::{AnyBody, AnyCall, told},
    parameters::{Id, IdempotencyKey, Origin},
};

/// A partner's event, as in the topic `reward-events`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RewardEvent, example = json!({
    "eventId": "E-9001", "eventType": "HOTEL_STAY", "customerId": "C-42",
    "timestamp": "2026-03-14T12:00:00Z",
    "payload": { "nights": 3, "amount": "420.50", "currency": "USD" }
}))]
#[expect(dead_code, reason = "it describes what `domain::inbound` reads")]
pub(super) struct EventBody {
    /// The partner's id of the event: it counts once, by whichever road it comes.
    #[schema(value_type = Id)]
    event_id: String,
    /// What happened.
    event_type: RewardEventType,
    /// Whose points.
    #[schema(value_type = Id)]
    customer_id: String,
    /// When it happened.
    timestamp: DateTime<Utc>,
    /// What the rules look at: `nights` of a stay; `amount`, a JSON string or number, and `currency`
    /// of what was spent; anything else that a rule asks for.
    #[schema(value_type = Object)]
    payload: Value,
}

/// What happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum RewardEventType {
    HotelStay,
    Dining,
    CasinoSpend,
}

/// An event that will be counted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "eventId": "E-9001", "status": "ACCEPTED" }))]
pub(super) struct EventAccepted {
    /// The partner's id of it.
    event_id: String,
    /// Always `ACCEPTED`: what became of it is told on `reward-confirmed` and in the customer's
    /// history.
    status: &'static str,
}

/// Takes a partner's event, which is counted soon.
///
/// The same event may come over Kafka as well: it counts once. What the rules of the programme
/// refuse, such as an unknown currency, ends in the dead letters.
#[utoipa::path(
    post,
    path = "/api/v1/rewards/events",
    operation_id = "sendEvent",
    tag = "rewards",
    security(("token" = ["rewards.write"])),
    params(("Idempotency-Key" = String, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The client's own key for this request", example = "7f1c1b52-1")),
    request_body(content = EventBody, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted, also when it was before", body = EventAccepted),
        (status = 400, description = "The event breaks its contract", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it; a player's never does", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsWrite)))),
        (status = 409, description = "CONFLICTING_REQUEST: the id came before with another body; or REQUEST_IN_PROGRESS", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::ConflictingRequest))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        (status = 422, description = "The Idempotency-Key was used for another request", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::IdempotencyKeyReused))),
        AnyCall,
    )
)]
pub(super) async fn send(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsWrite>,
    origin: Origin,
    key: IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let identity = caller.identity;
    // Nobody gives points to themselves.
    if identity.has_role(Role::Player) {
        return Err(ApiError::MissingRole(Role::Staff));
    }
    let award = inbound::read_event(&body, Utc::now())?;
    about("event_id", award.event_id.as_str());
    about("customer_id", award.customer_id.as_str());
    let keyed = idempotency::Request::new(&identity, "POST /api/v1/rewards/events", key, "", &body);
    let (mut tx, _turn) = match idempotency::claim(&app, &keyed).await? {
        Claim::Do(tx, turn) => (tx, turn),
        Claim::Answered(reply) => return Ok(reply),
    };
    let accepted = events::accept(&mut tx, &award, &body).await?;
    let reply = if accepted == Accepted::Conflict {
        Reply::problem(&ApiError::ConflictingRequest)
    } else {
        let answer = EventAccepted {
            event_id: award.event_id.to_string(),
            status: "ACCEPTED",
        };
        Reply::new(StatusCode::ACCEPTED, &answer, None)
    };
    if accepted == Accepted::New {
        let change = audit::Change {
            actor: &identity.client(),
            action: "event.send",
            subject: award.event_id.as_str(),
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({ "customerId": award.customer_id, "eventType": award.event_type }),
        };
        audit::write(&mut tx, &change).await?;
    }
    idempotency::finish_in(tx, &keyed, &reply).await?;
    Ok(reply)
}
