//! Holds and orders against open flows.

use chrono::{DateTime, Utc};
use domain::{CustomerId, MerchantId, Points, RedeemRequestId};
use sqlx::PgPool;

use crate::{Error, ledger::points};

/// A redemption that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRedemption {
    /// Which one.
    pub redeem_request_id: RedeemRequestId,
    /// Whose.
    pub customer_id: CustomerId,
    /// Where.
    pub merchant_id: MerchantId,
    /// How many points.
    pub points: Points,
    /// Its state.
    pub state: String,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// The trace that it was asked for in.
    pub traceparent: Option<String>,
}

type OpenRow = (
    String,
    String,
    String,
    i64,
    String,
    DateTime<Utc>,
    Option<String>,
);

fn open(row: OpenRow) -> Result<OpenRedemption, Error> {
    let (id, customer, merchant, amount, state, updated_at, traceparent) = row;
    let unreadable = |what: String| Error::Inconsistent(format!("redemption {id}: {what}"));
    Ok(OpenRedemption {
        customer_id: CustomerId::new(customer).map_err(|e| unreadable(e.to_string()))?,
        merchant_id: MerchantId::new(merchant).map_err(|e| unreadable(e.to_string()))?,
        redeem_request_id: RedeemRequestId::new(id.clone())
            .map_err(|e| unreadable(e.to_string()))?,
        points: points(amount)?,
        state,
        updated_at,
        traceparent,
    })
}

/// The next `limit` redemptions after one that have not ended.
///
/// # Errors
/// What the database reports.
pub async fn open_redemptions(
    pool: &PgPool,
    after: &str,
    limit: i64,
) -> Result<Vec<OpenRedemption>, Error> {
    let rows: Vec<OpenRow> = sqlx::query_as(
        "SELECT redeem_request_id, customer_id, merchant_id, points, state, updated_at,
                traceparent
         FROM redemptions
         WHERE state NOT IN ('SUCCESS', 'FAILED') AND redeem_request_id > $1
         ORDER BY redeem_request_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(open).collect()
}

/// A redemption's state and when it last changed.
///
/// # Errors
/// What the database reports.
pub async fn state(pool: &PgPool, id: &str) -> Result<Option<(String, DateTime<Utc>)>, Error> {
    Ok(
        sqlx::query_as("SELECT state, updated_at FROM redemptions WHERE redeem_request_id = $1")
            .bind(id)
            .fetch_optional(pool)
            .await?,
    )
}

/// Points held that no redemption under way accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldForNothing {
    /// The customer.
    pub customer_id: String,
    /// What the balance says is held.
    pub held: i64,
    /// What redemptions under way hold.
    pub under_way: i64,
    /// Holds without a settlement or release whose redemption has ended or does not exist.
    pub stray_holds: Vec<String>,
}

/// Customers whose held points are not those of their redemptions under way, on one snapshot.
///
/// # Errors
/// What the database reports.
pub async fn held_for_nothing(pool: &PgPool) -> Result<Vec<HeldForNothing>, Error> {
    let rows: Vec<(String, i64, i64, Vec<String>)> = sqlx::query_as(
        "WITH under_way AS (
             SELECT customer_id, sum(points)::bigint AS points FROM redemptions
             WHERE state IN ('RESERVED', 'CONFIRMING', 'AWAITING_CALLBACK')
             GROUP BY customer_id)
         SELECT c.customer_id, c.held, coalesce(u.points, 0),
                ARRAY(SELECT h.source_event_id FROM transfers h
                      LEFT JOIN redemptions r ON r.redeem_request_id = h.source_event_id
                      WHERE h.customer_id = c.customer_id AND h.source = 'redeem'
                        AND h.leg = 'hold'
                        AND (r.state IS NULL OR r.state IN ('SUCCESS', 'FAILED'))
                        AND NOT EXISTS (SELECT FROM transfers e
                            WHERE (e.source, e.source_event_id) = (h.source, h.source_event_id)
                              AND e.leg IN ('settle', 'release'))
                      ORDER BY h.transfer_id)
         FROM customers c LEFT JOIN under_way u USING (customer_id)
         WHERE c.held <> coalesce(u.points, 0)
         ORDER BY c.customer_id",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(
            |(customer_id, held, under_way, stray_holds)| HeldForNothing {
                customer_id,
                held,
                under_way,
                stray_holds,
            },
        )
        .collect())
}

/// How many customers have points held or redemptions under way.
///
/// # Errors
/// What the database reports.
pub async fn customers_with_holds(pool: &PgPool) -> Result<u64, Error> {
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM customers WHERE held > 0")
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Redemptions whose hold has outlived its limit, oldest first: id, state, limit.
///
/// # Errors
/// What the database reports.
pub async fn over_limit(
    pool: &PgPool,
    limit: i64,
) -> Result<Vec<(String, String, DateTime<Utc>)>, Error> {
    Ok(sqlx::query_as(
        "SELECT redeem_request_id, state, hold_expires_at FROM redemptions
         WHERE state NOT IN ('SUCCESS', 'FAILED') AND hold_expires_at < clock_timestamp()
         ORDER BY hold_expires_at LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?)
}
