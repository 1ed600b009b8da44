//! Partner book against redemptions: which redemptions to ask merchants about.

use chrono::{DateTime, Utc};
use domain::{
    CustomerId, MerchantId, Points, RedeemRequestId,
    redemption::{PartnerVerdict, RedemptionState},
};
use sqlx::PgPool;

use crate::{Error, ledger::points};

/// A redemption that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub redeem_request_id: RedeemRequestId,
    /// Whose.
    pub customer_id: CustomerId,
    /// Where.
    pub merchant_id: MerchantId,
    /// How many points it was about.
    pub points: Points,
    /// How it ended.
    pub state: RedemptionState,
    /// What the merchant had said by then.
    pub verdict: Option<PartnerVerdict>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

type Row = (
    String,
    String,
    String,
    i64,
    String,
    Option<String>,
    DateTime<Utc>,
);

fn ended(row: Row) -> Result<Ended, Error> {
    let (id, customer, merchant, amount, state, verdict, ended_at) = row;
    let unreadable = |what: String| Error::Inconsistent(format!("redemption {id}: {what}"));
    Ok(Ended {
        customer_id: CustomerId::new(customer).map_err(|e| unreadable(e.to_string()))?,
        merchant_id: MerchantId::new(merchant).map_err(|e| unreadable(e.to_string()))?,
        points: points(amount)?,
        state: RedemptionState::parse(&state).ok_or_else(|| unreadable(state.clone()))?,
        verdict: verdict
            .map(|name| PartnerVerdict::parse(&name).ok_or_else(|| unreadable(name)))
            .transpose()?,
        ended_at,
        redeem_request_id: RedeemRequestId::new(id.clone())
            .map_err(|e| unreadable(e.to_string()))?,
    })
}

/// The next `limit` redemptions, after one, that ended at a merchant in a window of time.
///
/// # Errors
/// What the database reports.
pub async fn ended_in(
    pool: &PgPool,
    merchant: &MerchantId,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    after: &(DateTime<Utc>, String),
    limit: i64,
) -> Result<Vec<Ended>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT redeem_request_id, customer_id, merchant_id, points, state, partner_verdict,
                updated_at
         FROM redemptions
         WHERE state IN ('SUCCESS', 'FAILED') AND merchant_id = $1
           AND updated_at >= $2 AND updated_at < $3
           AND (updated_at, redeem_request_id) > ($4, $5)
         ORDER BY updated_at, redeem_request_id LIMIT $6",
    )
    .bind(merchant.as_str())
    .bind(from)
    .bind(until)
    .bind(after.0)
    .bind(&after.1)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(ended).collect()
}

/// One redemption, if it has ended.
///
/// # Errors
/// What the database reports.
pub async fn one(pool: &PgPool, id: &str) -> Result<Option<Ended>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT redeem_request_id, customer_id, merchant_id, points, state, partner_verdict,
                updated_at
         FROM redemptions WHERE state IN ('SUCCESS', 'FAILED') AND redeem_request_id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    row.map(ended).transpose()
}

type LateRow = (
    String,
    String,
    String,
    i64,
    String,
    Option<String>,
    DateTime<Utc>,
    String,
);

/// Redemptions of which the merchant said afterwards that it did otherwise, and what it said.
///
/// # Errors
/// What the database reports.
pub async fn late_answers(pool: &PgPool) -> Result<Vec<(Ended, String)>, Error> {
    let rows: Vec<LateRow> = sqlx::query_as(
        "SELECT r.redeem_request_id, r.customer_id, r.merchant_id, r.points, r.state,
                r.partner_verdict, r.updated_at, c.late_answer
         FROM callbacks c JOIN redemptions r USING (callback_id)
         WHERE c.late_answer IS NOT NULL AND r.state IN ('SUCCESS', 'FAILED')
         ORDER BY r.redeem_request_id",
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(a, b, c, d, e, f, g, said)| Ok((ended((a, b, c, d, e, f, g))?, said)))
        .collect()
}
