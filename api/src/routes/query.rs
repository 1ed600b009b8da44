//! The points of many customers in one request.

use std::sync::Arc;

use axum::{Json, extract::State};
use domain::CustomerId;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::rewards::{LEDGER_WITHIN, Question, Rewards, span};
use crate::{
    App,
    auth::{Caller, Identity, RewardsRead, Scope},
    body::{self, JsonBody},
    cache::AskLedger,
    error::{ApiError, ProblemDocument, Thing},
    openapi::{AnyBody, AnyCall, told},
    parameters::Origin,
};

/// How many customers a request may ask for.
const ITEMS_MAX: usize = 100;
/// How many are looked at together: a request takes no more of the database than that.
const TOGETHER: usize = 4;

/// Whose points, and of which range.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "customerId": "C-42", "from": "2026-03-01", "to": "2026-04-01" }))]
pub(super) struct RewardsQuery {
    /// The customer. Who cannot be one is none that is known.
    customer_id: String,
    /// The first instant that counts, up to 400 days before `to`, or before now: an ISO date (UTC)
    /// or an RFC 3339 instant. Without it and `to` the balance of now.
    from: Option<String>,
    /// The first instant that does not count any more.
    to: Option<String>,
}

/// Whose points, and of which ranges.
#[derive(Debug, ToSchema)]
#[schema(min_items = 1, max_items = 100)]
#[expect(dead_code, reason = "it describes the list, which is read as one")]
pub(super) struct RewardsQueries(Vec<RewardsQuery>);

/// A result, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RewardsOrProblem {
    /// The customer's points.
    Rewards(Rewards),
    /// Why there are none to show.
    Problem(RewardsProblem),
}

/// What is wrong with one part of the question.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RewardsProblem {
    /// The customer, as it was asked for.
    customer_id: String,
    /// The problem; with LEDGER_UNAVAILABLE also `partial`, `asOf` and the last known balance.
    #[schema(value_type = ProblemDocument)]
    problem: Value,
}

/// Shows the points of up to 100 customers: a result or a problem for each, in their order.
#[utoipa::path(
    post,
    path = "/api/v1/rewards/query",
    operation_id = "queryRewards",
    tag = "rewards",
    security(("token" = ["rewards.read"])),
    request_body(content = RewardsQueries, content_type = "application/json",
        description = "From 1 to 100 of them",
        example = json!([
            { "customerId": "C-42", "from": "2026-03-01", "to": "2026-04-01" },
            { "customerId": "C-43" }
        ])),
    responses(
        (status = 200, description = "One answer for each, in their order", body = Vec<RewardsOrProblem>,
            example = json!([
                {
                    "customerId": "C-42", "totalPoints": 750,
                    "breakdown": [
                        { "source": "reward-event", "reason": "HOTEL_STAY", "points": 750, "transfers": 2 }
                    ],
                    "calculationTimestamp": "2026-03-14T12:00:00Z"
                },
                {
                    "customerId": "C-43",
                    "problem": {
                        "type": "urn:meed:problem:customer-not-found", "status": 404,
                        "title": "There is no such customer", "detail": "There is no such customer.",
                        "code": "CUSTOMER_NOT_FOUND", "instance": "/api/v1/rewards/query",
                        "requestId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e"
                    }
                }
            ])),
        (status = 400, description = "The question cannot be understood", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidBody("The body is not JSON.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        AnyBody,
        (status = 415, description = "The body is not JSON", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::UnsupportedMediaType))),
        AnyCall,
    )
)]
pub(super) async fn query(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRead>,
    origin: Origin,
    AskLedger(ask_ledger): AskLedger,
    JsonBody(body): JsonBody,
) -> Result<Json<Vec<RewardsOrProblem>>, ApiError> {
    let queries: Vec<RewardsQuery> = body::read(&body)?;
    if !(1..=ITEMS_MAX).contains(&queries.len()) {
        return Err(ApiError::InvalidBody(format!(
            "The body is a list of 1 to {ITEMS_MAX} questions."
        )));
    }
    let deadline = Instant::now() + LEDGER_WITHIN;
    let answers = stream::iter(queries).map(|query| {
        let (app, identity, request_id) = (&app, &caller.identity, &origin.request_id);
        async move {
            match answer(app, identity, &query, ask_ledger, deadline).await {
                Ok(rewards) => RewardsOrProblem::Rewards(rewards),
                Err(error) => {
                    let problem = error.problem();
                    if problem.status().is_server_error() {
                        tracing::error!(%error, "a question of many failed");
                    }
                    RewardsOrProblem::Problem(RewardsProblem {
                        customer_id: query.customer_id,
                        problem: problem.document(request_id, "/api/v1/rewards/query"),
                    })
                }
            }
        }
    });
    Ok(Json(answers.buffered(TOGETHER).collect().await))
}

async fn answer(
    app: &App,
    identity: &Identity,
    query: &RewardsQuery,
    ask_ledger: bool,
    deadline: Instant,
) -> Result<Rewards, ApiError> {
    let customer = CustomerId::new(query.customer_id.clone())
        .map_err(|_| ApiError::NotFound(Thing::Customer))?;
    if !identity.reaches_customer(&customer) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let question = Question {
        customer: &customer,
        span: span(query.from.as_deref(), query.to.as_deref(), None)?,
        breakdown: true,
        ask_ledger,
    };
    let (rewards, _) = question.answer(app, deadline).await?;
    Ok(rewards)
}
