//! Balances, from the ledger.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::CustomerId;
use serde::{Deserialize, Serialize};
use store::ledger;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{Caller, RewardsRead},
    error::{ApiError, ProblemDocument, Thing},
    parameters::{Parameters, instant},
};

/// The longest range of dates, in days.
const RANGE_MAX_DAYS: i64 = 400;

/// Which balance.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RewardsParameters {
    /// The first instant that counts: an ISO date (UTC) or an RFC 3339 instant. With `from` or
    /// `to`, `totalPoints` is the net change within `[from, to)`.
    from: Option<String>,
    /// The first instant that does not count any more.
    to: Option<String>,
    /// Whether to say what the points were for.
    #[param(default = true)]
    breakdown: Option<bool>,
    /// The balance at this instant instead of now; not together with `from` or `to`.
    at: Option<String>,
}

/// A customer's points.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "customerId": "C-42", "totalPoints": 750,
    "breakdown": [
        { "reason": "HOTEL_STAY", "points": 1000, "transfers": 2 },
        { "reason": "REDEMPTION", "points": -250, "transfers": 1 }
    ],
    "calculationTimestamp": "2026-03-14T12:00:00Z"
}))]
pub(super) struct Rewards {
    /// The customer.
    customer_id: String,
    /// Points that can be spent, or the net change within the range.
    total_points: i64,
    /// What they were for.
    #[serde(skip_serializing_if = "Option::is_none")]
    breakdown: Option<Vec<RewardsLine>>,
    /// When this was reckoned.
    calculation_timestamp: DateTime<Utc>,
}

/// The net change of available points for one reason.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RewardsLine {
    /// What the points were for, such as HOTEL_STAY or REDEMPTION.
    reason: String,
    /// The signed net change.
    points: i64,
    /// How many transfers make it up.
    transfers: i64,
}

/// The transfers that count, by when they were posted.
#[derive(Debug, PartialEq, Eq)]
enum Span {
    Now,
    At(DateTime<Utc>),
    Within(Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

fn span(parameters: &RewardsParameters) -> Result<Span, ApiError> {
    let wrong = |text: &str| Err(ApiError::InvalidParameter(text.to_owned()));
    let read =
        |name, text: &Option<String>| text.as_deref().map(|text| instant(name, text)).transpose();
    let (from, to) = (read("from", &parameters.from)?, read("to", &parameters.to)?);
    match (from, to, read("at", &parameters.at)?) {
        (None, None, None) => Ok(Span::Now),
        (None, None, Some(at)) => Ok(Span::At(at)),
        (_, _, Some(_)) => wrong("at cannot be combined with from or to."),
        (Some(from), Some(to), None) if from >= to => wrong("from must be before to."),
        (Some(from), Some(to), None) if to - from > TimeDelta::days(RANGE_MAX_DAYS) => Err(
            ApiError::InvalidParameter(format!("from and to may be {RANGE_MAX_DAYS} days apart.")),
        ),
        (from, to, None) => Ok(Span::Within(from, to)),
    }
}

/// Shows a customer's points: now, at a past instant, or the change within a range.
#[utoipa::path(
    get,
    path = "/api/v1/rewards/{customerId}",
    tag = "rewards",
    security(("token" = ["rewards.read"])),
    params(("customerId" = String, Path, description = "The customer"), RewardsParameters),
    responses(
        (status = 200, description = "The points", body = Rewards),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "There is no such customer", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The ledger is out of reach", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRead>,
    Path(customer): Path<String>,
    Parameters(parameters): Parameters<RewardsParameters>,
) -> Result<Json<Rewards>, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Customer);
    let customer = CustomerId::new(customer).map_err(|_| not_found())?;
    if !caller.identity.reaches_customer(&customer) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let span = span(&parameters)?;
    let now = Utc::now();
    let rewards = look(
        &app,
        &customer,
        &span,
        parameters.breakdown.unwrap_or(true),
        now,
    )
    .await;
    match rewards {
        Ok(rewards) => rewards.map(Json).ok_or_else(not_found),
        Err(error) if error.is_retryable() => Err(ApiError::LedgerUnavailable(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn look(
    app: &App,
    customer: &CustomerId,
    span: &Span,
    with_breakdown: bool,
    now: DateTime<Utc>,
) -> Result<Option<Rewards>, store::Error> {
    let mut conn = app.pool.acquire().await?;
    let Some(balance) = ledger::balance(&mut conn, customer).await? else {
        return Ok(None);
    };
    let (from, to) = match *span {
        Span::Now => (None, None),
        // The ledger's instants have microseconds; one posted at the instant itself counts.
        Span::At(at) => (None, Some(at + TimeDelta::microseconds(1))),
        Span::Within(from, to) => (from, to),
    };
    // The total is the sum of its lines, so that both are of one moment.
    let (total_points, breakdown) = match span {
        Span::Now if !with_breakdown => (balance.available.get(), None),
        Span::At(at) if !with_breakdown => {
            let then = ledger::balance_at(&mut conn, customer, *at).await?;
            (then.map_or(0, |(available, _)| available.get()), None)
        }
        _ => {
            let lines = ledger::breakdown(&mut conn, customer, from, to).await?;
            let total = lines.iter().map(|line| line.points).sum();
            let lines = lines.into_iter().map(|line| RewardsLine {
                reason: line.reason,
                points: line.points,
                transfers: line.transfers,
            });
            (total, with_breakdown.then(|| lines.collect()))
        }
    };
    Ok(Some(Rewards {
        customer_id: customer.to_string(),
        total_points,
        breakdown,
        calculation_timestamp: now,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: Option<&str>, to: Option<&str>, at: Option<&str>) -> Result<Span, String> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let parameters = RewardsParameters {
            from: owned(from),
            to: owned(to),
            breakdown: None,
            at: owned(at),
        };
        span(&parameters).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_are_read_and_bounded() {
        let day = |text: &str| instant("x", text).expect("a date");
        assert_eq!(of(None, None, None), Ok(Span::Now));
        assert_eq!(
            of(None, None, Some("2026-01-01")),
            Ok(Span::At(day("2026-01-01")))
        );
        assert_eq!(
            of(Some("2026-01-01"), Some("2026-02-01"), None),
            Ok(Span::Within(
                Some(day("2026-01-01")),
                Some(day("2026-02-01"))
            ))
        );
        assert!(
            of(Some("2026-02-01"), Some("2026-02-01"), None)
                .unwrap_err()
                .contains("before")
        );
        assert!(
            of(Some("2024-01-01"), Some("2026-01-01"), None)
                .unwrap_err()
                .contains("400 days")
        );
        assert!(
            of(Some("2026-01-01"), None, Some("2026-01-01"))
                .unwrap_err()
                .contains("combined")
        );
        assert!(
            of(Some("soon"), None, None)
                .unwrap_err()
                .starts_with("from is neither")
        );
    }
}
