//! The history of a customer's points.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{CustomerId, MerchantId};
use serde::{Deserialize, Serialize};
use store::history::{self, Transaction, Wanted};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App,
    auth::{Caller, Identity, RewardsRead, Scope},
    cache::{self, AskLedger, Source},
    error::{ApiError, ProblemDocument, Thing},
    observe::about,
    openapi::{AnyCall, told},
    paging,
    parameters::Parameters,
};

/// Which part of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParameters {
    /// How many changes.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the page begins: the cursor in `next` of the page before. The newest page without one.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// A part of the history, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "customerId": "C-42",
    "transactions": [
        {
            "transactionId": "1002", "source": "redeem", "eventId": "R-1001", "leg": "hold",
            "reason": "REDEMPTION", "points": -250, "held": 250, "balanceAfter": 750,
            "heldAfter": 250, "merchantId": "M1", "occurredAt": "2026-03-14T12:00:00Z",
            "postedAt": "2026-03-14T12:00:00.004Z"
        },
        {
            "transactionId": "1001", "source": "reward-event", "eventId": "E-1", "leg": "award",
            "reason": "HOTEL_STAY", "points": 1000, "held": 0, "balanceAfter": 1000,
            "heldAfter": 0, "ruleSetVersion": "2026-03", "occurredAt": "2026-03-13T09:30:00Z",
            "postedAt": "2026-03-13T09:30:01.250Z"
        }
    ],
    "next": "/api/v1/customers/C-42/transactions?limit=2&cursor=dHJhbnNhY3Rpb25z"
}))]
pub(super) struct History {
    /// The customer.
    customer_id: String,
    /// The changes.
    transactions: Vec<TransactionBody>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One change of a customer's points.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Transaction)]
pub(super) struct TransactionBody {
    /// Its id in the ledger.
    transaction_id: String,
    /// What kind of command it came from, such as reward-event or redeem.
    source: String,
    /// The id of the event or the redemption. Absent when it is a redemption at a merchant that is
    /// none of the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// Which part of it: award; hold, settle, release of a redemption; bonus of a promotion; adjust of
    /// a person; credit, debit of another service.
    leg: String,
    /// What it was for, such as HOTEL_STAY or REDEMPTION.
    reason: String,
    /// The signed change of the points that can be spent.
    points: i64,
    /// The signed change of the points that are held for redemptions under way.
    held: i64,
    /// Points that could be spent after it.
    balance_after: i64,
    /// Points held after it.
    held_after: i64,
    /// The merchant of a redemption.
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_id: Option<String>,
    /// The version of the rules that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_set_version: Option<String>,
    /// When the business event happened.
    occurred_at: DateTime<Utc>,
    /// When it was posted.
    posted_at: DateTime<Utc>,
}

impl TransactionBody {
    fn of(transaction: Transaction, identity: &Identity) -> Self {
        let within_reach = transaction.merchant_id.as_ref().is_none_or(|merchant| {
            MerchantId::new(merchant.clone())
                .is_ok_and(|merchant| identity.reaches_merchant(&merchant))
        });
        Self {
            transaction_id: transaction.transfer_id.to_string(),
            source: transaction.source,
            event_id: within_reach.then_some(transaction.source_event_id),
            leg: transaction.leg,
            reason: transaction.reason,
            points: transaction.available_change,
            held: transaction.held_change,
            balance_after: transaction.available_after,
            held_after: transaction.held_after,
            merchant_id: transaction.merchant_id.filter(|_| within_reach),
            rule_set_version: transaction.rule_set_version,
            occurred_at: transaction.occurred_at,
            posted_at: transaction.posted_at,
        }
    }
}

/// Lists what has happened to a customer's points, newest first.
///
/// What is posted between two pages moves nothing: it comes before the first one.
#[utoipa::path(
    get,
    path = "/api/v1/customers/{customerId}/transactions",
    operation_id = "listTransactions",
    tag = "rewards",
    security(("token" = ["rewards.read"])),
    params(
        ("customerId" = String, Path, description = "The customer", example = "C-42"),
        HistoryParameters
    ),
    responses(
        (status = 200, description = "A page of the history", body = History),
        (status = 400, description = "A parameter cannot be used", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidParameter("A parameter is not known.".to_owned())))),
        (status = 401, description = "No token that counts", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::InvalidToken("it has expired")))),
        (status = 403, description = "The token does not allow it", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::MissingScope(Scope::RewardsRead)))),
        (status = 404, description = "There is no such customer", body = ProblemDocument, content_type = "application/problem+json", example = json!(told(&ApiError::NotFound(Thing::Customer)))),
        AnyCall,
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<RewardsRead>,
    Path(customer): Path<String>,
    AskLedger(ask_ledger): AskLedger,
    Parameters(parameters): Parameters<HistoryParameters>,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::NotFound(Thing::Customer);
    let customer = CustomerId::new(customer).map_err(|_| not_found())?;
    about("customer_id", customer.as_str());
    let identity = &caller.identity;
    if !identity.reaches_customer(&customer) {
        return Err(ApiError::CustomerNotAllowed);
    }
    let limit = paging::limit(parameters.limit)?;
    let list = format!("transactions/{customer}");
    let before = paging::place(&list, parameters.cursor.as_deref(), |version| {
        version.parse::<i64>().ok()
    })?;
    let wanted = Wanted {
        recent: cache::RECENT,
        ..Wanted::default()
    };
    let (mut page, source) = if before.is_none() && limit <= cache::RECENT {
        let shown = app.cache.read(&customer, wanted, ask_ledger).await?;
        let shown = shown.ok_or_else(not_found)?;
        (
            shown.account.recent.clone().unwrap_or_default(),
            shown.source,
        )
    } else {
        let mut conn = app.pool.acquire().await.map_err(store::Error::from)?;
        let one_more = i64::from(limit) + 1;
        let page = history::page(&mut conn, &customer, before, one_more).await?;
        // An account may have no changes; somebody without one has no history at all.
        if page.is_empty()
            && store::ledger::balance(&mut conn, &customer)
                .await?
                .is_none()
        {
            return Err(not_found());
        }
        (page, Source::Ledger)
    };
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let next = page.last().filter(|_| has_more).map(|last| {
        let cursor = paging::cursor(&list, &last.customer_version.to_string());
        let segment = paging::path_segment(customer.as_str());
        paging::next(
            &format!("/api/v1/customers/{segment}/transactions"),
            &[("limit", Some(&limit.to_string()))],
            &cursor,
        )
    });
    let history = History {
        customer_id: customer.to_string(),
        transactions: page
            .into_iter()
            .map(|transaction| TransactionBody::of(transaction, identity))
            .collect(),
        next,
    };
    Ok((source, Json(history)).into_response())
}
