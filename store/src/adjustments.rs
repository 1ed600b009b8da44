//! Adjusting transfers: what a person decided, once per id, with an audit record and word to the
//! world.

use chrono::Utc;
use domain::{CustomerId, Points, message::PointsAdded};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error, audit,
    ledger::{self, points},
    outbox::{self, OutboxMessage},
    redemptions, transaction,
};

/// The ledger source of adjustments.
pub const SOURCE: &str = "adjustment";

/// What is to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// This many points more or, when negative, fewer.
    Points(i64),
    /// The hold of a redemption that is not under way is released.
    ReleaseHold(String),
}

/// An adjustment.
#[derive(Debug, Clone)]
pub struct Adjustment<'a> {
    /// Its id: the same one again is nothing.
    pub id: &'a str,
    /// The customer.
    pub customer: &'a CustomerId,
    /// What is to be put right.
    pub what: What,
    /// Why.
    pub reason: &'a str,
    /// Who decided it.
    pub actor: &'a str,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjusted {
    /// It is posted; the available balance after it.
    Posted(Points),
    /// It had been posted before.
    Again,
    /// The id had been used for something else.
    Different,
    /// The customer has fewer points to spend than are to be taken.
    NotEnough(Points),
    /// There is no such account.
    NoAccount,
    /// There is no open hold under this id, or its redemption is under way.
    NoSuchHold,
}

/// Posts an adjustment, the message that tells of it and the audit record, in one transaction.
///
/// # Errors
/// What the database reports.
pub async fn post(pool: &PgPool, adjustment: &Adjustment<'_>) -> Result<Adjusted, Error> {
    let mut tx = transaction::begin(pool).await?;
    let customer = adjustment.customer.as_str();
    let account: Option<(i64, i64)> =
        sqlx::query_as("SELECT available, held FROM customers WHERE customer_id = $1 FOR UPDATE")
            .bind(customer)
            .fetch_optional(&mut *tx)
            .await?;
    let Some((available, _)) = account else {
        return Ok(Adjusted::NoAccount);
    };
    let transfer = match &adjustment.what {
        What::Points(number) => by_points(adjustment.id, *number),
        What::ReleaseHold(id) => match open_hold(&mut tx, customer, id).await? {
            Hold::Open(amount) => release(id, amount),
            Hold::Released => return Ok(Adjusted::Again),
            Hold::None => return Ok(Adjusted::NoSuchHold),
        },
    };
    if let Some(same) = posted_before(&mut tx, customer, &transfer).await? {
        return Ok(if same {
            Adjusted::Again
        } else {
            Adjusted::Different
        });
    }
    if available + transfer.available_change < 0 {
        return Ok(Adjusted::NotEnough(points(available)?));
    }
    let after = write(&mut tx, customer, &transfer).await?;
    let total_change = transfer.available_change + transfer.held_change;
    if total_change != 0 {
        let message = PointsAdded {
            user_id: adjustment.customer.clone(),
            total_points: points(after.0)?.saturating_add(points(after.1)?),
            difference: total_change,
        };
        let message = OutboxMessage::points_added(&message, after.2, Utc::now())?;
        outbox::write(&mut tx, &[message]).await?;
    }
    if total_change > 0 {
        // Whether a tier is due is for the look itself, which knows the rules.
        ledger::open_tier_orders(&mut tx, &[customer]).await?;
    }
    let change = audit::Change {
        actor: adjustment.actor,
        action: "ledger.adjust",
        subject: customer,
        request_id: adjustment.id,
        address: None,
        detail: serde_json::json!({
            "points": total_change, "released": transfer.leg == "release",
            "reason": adjustment.reason
        }),
    };
    audit::write(&mut tx, &change).await?;
    transaction::commit(tx, "adjust").await?;
    Ok(Adjusted::Posted(points(after.0)?))
}

struct Transfer {
    source: &'static str,
    id: String,
    leg: &'static str,
    debit: &'static str,
    credit: &'static str,
    amount: i64,
    available_change: i64,
    held_change: i64,
}

fn by_points(id: &str, number: i64) -> Transfer {
    let (debit, credit) = if number < 0 {
        ("AVAILABLE", "ADJUSTMENT")
    } else {
        ("ADJUSTMENT", "AVAILABLE")
    };
    Transfer {
        source: SOURCE,
        id: id.to_owned(),
        leg: "adjust",
        debit,
        credit,
        amount: number.saturating_abs(),
        available_change: number,
        held_change: 0,
    }
}

fn release(id: &str, amount: i64) -> Transfer {
    Transfer {
        source: redemptions::SOURCE,
        id: id.to_owned(),
        leg: "release",
        debit: "HELD",
        credit: "AVAILABLE",
        amount,
        available_change: amount,
        held_change: -amount,
    }
}

enum Hold {
    Open(i64),
    Released,
    None,
}

/// A hold that no redemption is at work on.
async fn open_hold(conn: &mut PgConnection, customer: &str, id: &str) -> Result<Hold, Error> {
    let row: Option<(i64, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT h.amount, c.leg, r.state
         FROM transfers h
         LEFT JOIN transfers c ON (c.source, c.source_event_id) = (h.source, h.source_event_id)
                              AND c.leg IN ('settle', 'release')
         LEFT JOIN redemptions r ON r.redeem_request_id = h.source_event_id
         WHERE h.source = 'redeem' AND h.source_event_id = $2 AND h.leg = 'hold'
           AND h.customer_id = $1",
    )
    .bind(customer)
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        Some((amount, None, state)) if !state.as_deref().is_some_and(is_under_way) => {
            Hold::Open(amount)
        }
        Some((_, Some(leg), _)) if leg == "release" => Hold::Released,
        _ => Hold::None,
    })
}

fn is_under_way(state: &str) -> bool {
    !matches!(state, "SUCCESS" | "FAILED")
}

/// Whether the transfer's key has been used, and then whether for the same.
async fn posted_before(
    conn: &mut PgConnection,
    customer: &str,
    transfer: &Transfer,
) -> Result<Option<bool>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT customer_id = $4 AND amount = $5 AND debit_account = $6::account_kind
         FROM transfers WHERE source = $1 AND source_event_id = $2 AND leg = $3",
    )
    .bind(transfer.source)
    .bind(&transfer.id)
    .bind(transfer.leg)
    .bind(customer)
    .bind(transfer.amount)
    .bind(transfer.debit)
    .fetch_optional(conn)
    .await?)
}

/// Moves the points: available, held and version after it.
async fn write(
    conn: &mut PgConnection,
    customer: &str,
    transfer: &Transfer,
) -> Result<(i64, i64, i64), Error> {
    Ok(sqlx::query_as(
        "WITH account AS (
             UPDATE customers SET available = available + $2, held = held + $3,
                    version = version + 1, updated_at = clock_timestamp()
             WHERE customer_id = $1
             RETURNING available, held, version
         ), transfer AS (
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, amount, reason, workflow_id, customer_version, available_after,
                    held_after, occurred_at)
             SELECT $4, $5, $6, $7::account_kind, $8::account_kind, $1, $9, 'ADJUSTMENT', '',
                    version, available, held, clock_timestamp()
             FROM account
         )
         SELECT available, held, version FROM account",
    )
    .bind(customer)
    .bind(transfer.available_change)
    .bind(transfer.held_change)
    .bind(transfer.source)
    .bind(&transfer.id)
    .bind(transfer.leg)
    .bind(transfer.debit)
    .bind(transfer.credit)
    .bind(transfer.amount)
    .fetch_one(conn)
    .await?)
}

/// Whether an adjustment of this id has been posted.
///
/// # Errors
/// What the database reports.
pub async fn exists(pool: &PgPool, id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM transfers WHERE source = $1 AND source_event_id = $2)",
    )
    .bind(SOURCE)
    .bind(id)
    .fetch_one(pool)
    .await?)
}
