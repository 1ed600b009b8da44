//! Balances: now, from a copy or the ledger; of the past, from the ledger.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::CustomerId;
use serde::{Deserialize, Serialize};
use store::{
    history::Wanted,
    ledger::{self, BreakdownLine},
};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{Caller, RewardsRead, Scope},
    cache::{AskLedger, Source},
    error::{ApiError, LastKnown, ProblemDocument, Thing},
    observe::about,
    openapi::{AnyCall, told},
    parameters::{Parameters, instant, instant_schema},
};

/// How long the ledger may take to answer before it counts as out of reach: a customer who looks at
/// a balance rather sees the last one.
pub(super) const LEDGER_WITHIN: Duration = Duration::from_secs(3);

/// The longest range of dates, in days.
const RANGE_MAX_DAYS: i64 = 400;

/// Which balance.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RewardsParameters {
    /// The first instant that counts, up to 400 days before `to`, or before now: an ISO date (UTC)
    /// or an RFC 3339 instant. With `from` or `to`, `totalPoints` is the net change within
    /// `[from, to)`.
    #[param(schema_with = instant_schema)]
    from: Option<String>,
    /// The first instant that does not count any more.
    #[param(schema_with = instant_schema)]
    to: Option<String>,
    /// Whether to say what the points were for.
    #[param(default = true)]
    breakdown: Option<bool>,
    /// The balance at this instant instead of now; not together with `from` or `to`.
    #[param(schema_with = instant_schema)]
    at: Option<String>,
}

/// A customer's points.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "customerId": "C-42", "totalPoints": 750,
    "breakdown": [
        { "source": "redeem", "reason": "REDEMPTION", "points": -250, "transfers": 1 },
        { "source": "reward-event", "reason": "HOTEL_STAY", "points": 1000, "transfers": 2 }
    ],
    "calculationTimestamp": "2026-03-14T12:00:00Z"
}))]
pub(super) struct Rewards {
    /// The customer.
    customer_id: String,
    /// Points that can be spent, or the net change within the range.
    total_points: i64,
    /// Where they came from and what they were for.
    #[serde(skip_serializing_if = "Option::is_none")]
    breakdown: Option<Vec<RewardsLine>>,
    /// When the ledger was asked. A balance may come from a copy, which the header `Cache-Status`
    /// says; send `Cache-Control: no-cache` to have the ledger asked.
    calculation_timestamp: DateTime<Utc>,
}

/// The net change of available points from one kind of source, for one reason.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RewardsLine {
    /// What kind of command they came from, such as reward-event, order or redeem.
    source: String,
    /// What the points were for, such as HOTEL_STAY or REDEMPTION.
    reason: String,
    /// The signed net change.
    points: i64,
    /// How many transfers make it up.
    transfers: i64,
}

impl From<BreakdownLine> for RewardsLine {
    fn from(line: BreakdownLine) -> Self {
        Self {
            source: line.source,
            reason: line.reason,
            points: line.points,
            transfers: line.transfers,
        }
    }
}

/// The ledger is out of reach: a problem with what was known last.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "type": "urn:meed:problem:ledger-unavailable", "title": "The ledger is out of reach",
    "status": 503, "detail": "The balance cannot be read now. Try again.",
    "code": "LEDGER_UNAVAILABLE", "instance": "/api/v1/rewards/C-42",
    "requestId": "01926f3e-8f7a-7c1e-9d43-0a4c1f2b3d4e", "partial": true,
    "asOf": "2026-03-14T11:59:58Z", "availablePoints": 750, "totalPoints": 750
}))]
pub(super) struct PartialRewards {
    #[serde(flatten)]
    problem: ProblemDocument,
    /// True with LEDGER_UNAVAILABLE: there is no more than this. Absent with another problem, as
    /// are the members below.
    partial: Option<bool>,
    /// When the ledger was last asked; null when nothing is known.
    as_of: Option<DateTime<Utc>>,
    /// Points that could be spent then.
    available_points: Option<i64>,
    /// The same, where the balance of now was asked for.
    total_points: Option<i64>,
}

/// The transfers that count, by when they were posted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Span {
    Now,
    At(DateTime<Utc>),
    Within(Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

/// Reads the ends of a range, or a past instant.
pub(super) fn span(
    from: Option<&str>,
    to: Option<&str>,
    at: Option<&str>,
) -> Result<Span, ApiError> {
    let wrong = |text: &str| Err(ApiError::InvalidParameter(text.to_owned()));
    let read = |name, text: Option<&str>| text.map(|text| instant(name, text)).transpose();
    match (read("from", from)?, read("to", to)?, read("at", at)?) {
        (None, None, None) => Ok(Span::Now),
        (None, None, Some(at)) => Ok(Span::At(at)),
        (_, _, Some(_)) => wrong("at cannot be combined with from or to."),
        (Some(from), Some(to), None) if from >= to => wrong("from must be before to."),
        (Some(from), to, None)
            if to.unwrap_or_else(Utc::now) - from > TimeDelta::days(RANGE_MAX_DAYS) =>
        {
            Err(ApiError::InvalidParameter(format!(
                "from may be {RANGE_MAX_DAYS} days before to, or before now."
            )))
        }
        (from, to, None) => Ok(Span::Within(from, to)),
    }
}

/// Shows a customer's points: now, at a past instant, or the change within a range.
#[utoipa::path(
    get,
    path = "/api/v1/rewards/{customerId}",
    operation_id = "readRewards",
    tag = "rewards",
    security(("token" = ["rewards.read"])),
    params(("customerId" = String, Path, description = "The customer", example = "C-42"), RewardsParameters),
    responses(
        (status = 200, description = "The points", body = Rewards),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        (status = 404, description = "There is no such customer", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Customer)))),
        AnyCall,
        (status = 503, description = "LEDGER_UNAVAILABLE: with the last known balance, if there is one; or another problem for the moment", body = PartialRewards, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRead>,
    Path(customer): Path<String>,
    AskLedger(ask_ledger): AskLedger,
    Parameters(parameters): Parameters<RewardsParameters>,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Customer);
    let customer = CustomerId::new(customer).map_err(|_| not_found())?;
    about("customer_id", customer.as_str());
    if !caller.identity.reaches_customer(&customer) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let RewardsParameters {
        from,
        to,
        breakdown,
        at,
    } = &parameters;
    let span = span(from.as_deref(), to.as_deref(), at.as_deref())?;
    let question = Question {
        customer: &customer,
        span,
        breakdown: breakdown.unwrap_or(true),
        ask_ledger,
    };
    let (rewards, source) = question
        .answer(&app, Instant::now() + LEDGER_WITHIN)
        .await?;
    Ok((source, Json(rewards)).into_response())
}

/// A question about somebody's points.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Whose.
    pub customer: &'a CustomerId,
    /// Which.
    pub span: Span,
    /// Whether to say where they came from.
    pub breakdown: bool,
    /// Whether a copy will not do.
    pub ask_ledger: bool,
}

impl Question<'_> {
    /// The answer; without the ledger by the deadline a problem with what was known last.
    pub(super) async fn answer(
        &self,
        app: &App,
        deadline: Instant,
    ) -> Result<(Rewards, Source), ApiError> {
        let looking = async {
            match self.span {
                Span::Now => self.now(app).await,
                _ => self.past(app).await,
            }
        };
        let error = match tokio::time::timeout_at(deadline, looking).await {
            Ok(Ok(rewards)) => return rewards.ok_or(ApiError::NotFound(Thing::Customer)),
            Ok(Err(error)) if error.is_retryable() => error.to_string(),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => "no answer in time".to_owned(),
        };
        let last = app.cache.last(self.customer).await.map(|shown| LastKnown {
            as_of: shown.as_of,
            available: shown.account.available,
            is_total: self.span == Span::Now,
        });
        Err(ApiError::LedgerUnavailable(error, last))
    }

    async fn now(&self, app: &App) -> Result<Option<(Rewards, Source)>, store::Error> {
        let wanted = Wanted {
            breakdown: self.breakdown,
            ..Wanted::default()
        };
        let shown = app
            .cache
            .read(self.customer, wanted, self.ask_ledger)
            .await?;
        Ok(shown.map(|shown| {
            let lines = shown.account.breakdown.iter().flatten().cloned();
            let rewards = Rewards {
                customer_id: self.customer.to_string(),
                total_points: shown.account.available,
                breakdown: self.breakdown.then(|| lines.map(Into::into).collect()),
                calculation_timestamp: shown.as_of,
            };
            (rewards, shown.source)
        }))
    }

    async fn past(&self, app: &App) -> Result<Option<(Rewards, Source)>, store::Error> {
        let now = Utc::now();
        let mut conn = app.pool.acquire().await?;
        if ledger::balance(&mut conn, self.customer).await?.is_none() {
            return Ok(None);
        }
        let (from, to) = match self.span {
            Span::Now => (None, None),
            // The ledger's instants have microseconds; one posted at the instant itself counts.
            Span::At(at) => (None, Some(at + TimeDelta::microseconds(1))),
            Span::Within(from, to) => (from, to),
        };
        // The total is the sum of its lines, so that both are of one moment.
        let (total_points, breakdown) = match self.span {
            Span::At(at) if !self.breakdown => {
                let then = ledger::balance_at(&mut conn, self.customer, at).await?;
                (then.map_or(0, |(available, _)| available.get()), None)
            }
            _ => {
                let lines = ledger::breakdown(&mut conn, self.customer, from, to).await?;
                let total = lines.iter().map(|line| line.points).sum();
                let lines = lines.into_iter().map(Into::into);
                (total, self.breakdown.then(|| lines.collect()))
            }
        };
        let rewards = Rewards {
            customer_id: self.customer.to_string(),
            total_points,
            breakdown,
            calculation_timestamp: now,
        };
        Ok(Some((rewards, Source::Ledger)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: Option<&str>, to: Option<&str>, at: Option<&str>) -> Result<Span, String> {
        span(from, to, at).map_err(|error| error.to_string())
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
