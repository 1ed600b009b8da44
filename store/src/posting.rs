//! Credits and debits of a customer's available points that come from no event: one transfer, the
//! balance, word of the new total, and the order to look at the tier.

use chrono::Utc;
use domain::{
    CustomerId, Points, Tier, TierThresholds, message::PointsAdded, transaction::Direction,
};
use sqlx::PgConnection;

use crate::{
    Error,
    ledger::{self, TierName, points},
    outbox::{self, OutboxMessage},
};

/// A customer's account, its row locked.
pub(crate) struct Account {
    available: Points,
    held: Points,
    lifetime_earned: Points,
    tier: Tier,
}

/// Opens an account with nothing in it, where there is none.
pub(crate) async fn open(conn: &mut PgConnection, customer: &CustomerId) -> Result<(), Error> {
    sqlx::query("INSERT INTO customers (customer_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(customer.as_str())
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks an account; nothing for a customer without one.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    customer: &CustomerId,
) -> Result<Option<Account>, Error> {
    let row: Option<(i64, i64, i64, String)> = sqlx::query_as(
        "SELECT available, held, lifetime_earned, tier FROM customers
         WHERE customer_id = $1 FOR UPDATE",
    )
    .bind(customer.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|(available, held, lifetime, tier)| {
        Ok(Account {
            available: points(available)?,
            held: points(held)?,
            lifetime_earned: points(lifetime)?,
            tier: TierName::try_from(tier)?.0,
        })
    })
    .transpose()
}

/// Why an account cannot bear a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbearable {
    /// There are fewer points to spend than are to be taken: so many.
    NotEnough(Points),
    /// The account cannot hold that many.
    TooMany,
}

impl Account {
    /// The available points after a posting.
    pub(crate) fn after(&self, direction: Direction, amount: Points) -> Result<Points, Unbearable> {
        match direction {
            Direction::Debit => self
                .available
                .subtract(amount)
                .map_err(|_| Unbearable::NotEnough(self.available)),
            Direction::Credit => {
                let current = self
                    .available
                    .add(amount)
                    .and_then(|available| available.add(self.held));
                let available = current.and(self.lifetime_earned.add(amount));
                available
                    .and_then(|_| self.available.add(amount))
                    .map_err(|_| Unbearable::TooMany)
            }
        }
    }
}

/// What is posted.
pub(crate) struct Posting<'a> {
    /// The kind of command, and its id: together with the leg, once.
    pub source: &'static str,
    pub event_id: &'a str,
    pub leg: &'static str,
    pub customer: &'a CustomerId,
    pub direction: Direction,
    pub points: Points,
    /// What it is for, such as WELCOME_BONUS.
    pub reason: &'a str,
    pub workflow_id: &'a str,
    /// The version of the rules that decided the points.
    pub rule_set_version: &'a str,
}

/// Posts it on an account that can bear it.
pub(crate) async fn write(
    conn: &mut PgConnection,
    account: &Account,
    posting: &Posting<'_>,
    thresholds: &TierThresholds,
) -> Result<(), Error> {
    let amount = posting.points.get();
    // What is taken is no award taken back: points that were ever earned stay earned.
    let (debit, credit, change, earned) = match posting.direction {
        Direction::Credit => ("ISSUANCE", "AVAILABLE", amount, amount),
        Direction::Debit => ("AVAILABLE", "ADJUSTMENT", -amount, 0),
    };
    let (available, held, version): (i64, i64, i64) = sqlx::query_as(
        "WITH account AS (
             UPDATE customers SET available = available + $2, lifetime_earned = lifetime_earned + $3,
                    version = version + 1, updated_at = clock_timestamp()
             WHERE customer_id = $1
             RETURNING available, held, version
         ), transfer AS (
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, amount, reason, workflow_id, rule_set_version, customer_version,
                    available_after, held_after, occurred_at)
             SELECT $4, $5, $6, $7::account_kind, $8::account_kind, $1, $9, $10, $11, $12, version,
                    available, held, clock_timestamp()
             FROM account
         )
         SELECT available, held, version FROM account",
    )
    .bind(posting.customer.as_str())
    .bind(change)
    .bind(earned)
    .bind(posting.source)
    .bind(posting.event_id)
    .bind(posting.leg)
    .bind(debit)
    .bind(credit)
    .bind(amount)
    .bind(posting.reason)
    .bind(posting.workflow_id)
    .bind(posting.rule_set_version)
    .fetch_one(&mut *conn)
    .await?;
    let current = points(available)?.saturating_add(points(held)?);
    let told = PointsAdded {
        user_id: posting.customer.clone(),
        total_points: current,
        difference: change,
    };
    let told = OutboxMessage::points_added(&told, version, Utc::now())?;
    outbox::write(&mut *conn, &[told]).await?;
    if thresholds.due(current, account.tier).is_some() {
        ledger::open_tier_orders(conn, &[posting.customer.as_str()]).await?;
    }
    Ok(())
}
