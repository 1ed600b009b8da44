//! What has happened to a customer's points, newest first; and a picture of an account of which all
//! parts are of one moment.

use chrono::{DateTime, Utc};
use domain::CustomerId;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    ledger::{self, Balance, BreakdownLine},
    transaction,
};

/// One change of a customer's points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Transaction {
    /// Its id in the ledger.
    pub transfer_id: i64,
    /// The customer's version after it: the place in the history.
    pub customer_version: i64,
    /// What kind of command it came from.
    pub source: String,
    /// The id of the event or the redemption.
    pub source_event_id: String,
    /// Which part of it.
    pub leg: String,
    /// What it was for, such as HOTEL_STAY or REDEMPTION.
    pub reason: String,
    /// By how much the available points changed.
    pub available_change: i64,
    /// By how much the held points changed.
    pub held_change: i64,
    /// Available points after it.
    pub available_after: i64,
    /// Held points after it.
    pub held_after: i64,
    /// The merchant of a redemption.
    pub merchant_id: Option<String>,
    /// The version of the rules that decided it.
    pub rule_set_version: Option<String>,
    /// When the business event happened.
    pub occurred_at: DateTime<Utc>,
    /// When it was posted.
    pub posted_at: DateTime<Utc>,
}

/// A customer's changes before this version of the account, the newest `limit` of them, newest
/// first. What is posted meanwhile comes before the first page and moves nothing.
///
/// # Errors
/// What the database reports.
pub async fn page(
    conn: &mut PgConnection,
    customer: &CustomerId,
    before_version: Option<i64>,
    limit: i64,
) -> Result<Vec<Transaction>, Error> {
    Ok(sqlx::query_as(
        "SELECT t.transfer_id, t.customer_version, t.source, t.source_event_id, t.leg, t.reason,
                CASE 'AVAILABLE'::account_kind WHEN t.credit_account THEN t.amount
                     WHEN t.debit_account THEN -t.amount ELSE 0 END AS available_change,
                CASE 'HELD'::account_kind WHEN t.credit_account THEN t.amount
                     WHEN t.debit_account THEN -t.amount ELSE 0 END AS held_change,
                t.available_after, t.held_after,
                coalesce(t.merchant_id, r.merchant_id) AS merchant_id, t.rule_set_version,
                t.occurred_at, t.posted_at
         FROM transfers t
         LEFT JOIN redemptions r ON t.source = 'redeem' AND r.redeem_request_id = t.source_event_id
         WHERE t.customer_id = $1 AND t.customer_version < $2
         ORDER BY t.customer_version DESC LIMIT $3",
    )
    .bind(customer.as_str())
    .bind(before_version.unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(conn)
    .await?)
}

/// Which version of an account a picture shows. Both parts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// How many transfers have touched the account.
    pub account: i64,
    /// How often its tier has changed.
    pub tier: i64,
}

/// What a picture is to show beside the balance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What the points were for.
    pub breakdown: bool,
    /// The newest changes: how many; none for 0.
    pub recent: u32,
}

/// An account at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its version.
    pub version: Version,
    /// The balance.
    pub balance: Balance,
    /// What the points were for, if that was wanted.
    pub breakdown: Option<Vec<BreakdownLine>>,
    /// The newest changes, if they were wanted.
    pub recent: Option<Vec<Transaction>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    customer_id: String,
    #[sqlx(flatten)]
    balance: Balance,
    tier_version: i64,
}

impl Row {
    fn picture(self) -> Picture {
        Picture {
            version: Version {
                account: self.balance.version,
                tier: self.tier_version,
            },
            balance: self.balance,
            breakdown: None,
            recent: None,
        }
    }
}

/// An account as it is now, all parts of one moment; nothing for a customer without one.
///
/// # Errors
/// What the database reports.
pub async fn picture(
    pool: &PgPool,
    customer: &CustomerId,
    wanted: Wanted,
) -> Result<Option<Picture>, Error> {
    let mut tx = transaction::begin_snapshot(pool).await?;
    let row: Option<Row> = sqlx::query_as(
        "SELECT customer_id, available, held, lifetime_earned, version, tier, tier_version
         FROM customers WHERE customer_id = $1",
    )
    .bind(customer.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(mut picture) = row.map(Row::picture) else {
        return Ok(None);
    };
    if wanted.breakdown {
        picture.breakdown = Some(ledger::breakdown(&mut tx, customer, None, None).await?);
    }
    if wanted.recent > 0 {
        picture.recent = Some(page(&mut tx, customer, None, wanted.recent.into()).await?);
    }
    tx.rollback().await?;
    Ok(Some(picture))
}

/// Several accounts as they are now, without breakdown and changes; those that exist, in no order.
///
/// # Errors
/// What the database reports.
pub async fn pictures(
    pool: &PgPool,
    customers: &[&CustomerId],
) -> Result<Vec<(CustomerId, Picture)>, Error> {
    let ids: Vec<&str> = customers.iter().map(|id| id.as_str()).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT customer_id, available, held, lifetime_earned, version, tier, tier_version
         FROM customers WHERE customer_id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = CustomerId::new(row.customer_id.clone())
                .map_err(|e| Error::Inconsistent(e.to_string()))?;
            Ok((id, row.picture()))
        })
        .collect()
}
