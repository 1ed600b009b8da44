//! Tiers: orders to look at a customer, and the upgrade itself, which only ever goes up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    CustomerId, Points, Tier, TierThresholds,
    message::{Recommendation, TierUpgraded},
};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error, callbacks,
    ledger::{self, TierName, points},
    outbox::{self, OutboxMessage},
    transaction,
};

/// An order to look at a customer's tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub order_id: i64,
    /// The customer.
    pub customer_id: CustomerId,
    /// The customer's tier when it was read.
    pub tier: Tier,
}

/// A tier that an order has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The tier before.
    pub previous_tier: Tier,
    /// The tier now.
    pub new_tier: Tier,
    /// When it was given.
    pub upgraded_at: DateTime<Utc>,
    /// Until when the acknowledgement counts.
    pub acknowledge_until: DateTime<Utc>,
}

/// An account as its tier is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierAccount {
    /// Available and held points together.
    pub current_points: Points,
    /// The tier.
    pub tier: Tier,
    /// How often the tier has changed.
    pub tier_version: i64,
    /// What this order has already given.
    pub already_upgraded: Option<Upgrade>,
}

/// A tier that is to be given.
#[derive(Debug, Clone, Copy)]
pub struct NewUpgrade<'a> {
    /// The order it is given by.
    pub order_id: i64,
    /// The customer.
    pub customer: &'a CustomerId,
    /// The workflow that waits for the acknowledgement.
    pub workflow_id: &'a str,
    /// The tier to give.
    pub tier: Tier,
    /// The tier version that was read.
    pub expected_tier_version: i64,
    /// What the notification recommends.
    pub recommendations: &'a [Recommendation],
    /// How long the acknowledgement may take.
    pub acknowledge_within: Duration,
}

fn tier(name: String) -> Result<Tier, Error> {
    TierName::try_from(name).map(|name| name.0)
}

type OrderRow = (i64, String, String);

fn order(row: OrderRow) -> Result<Order, Error> {
    let (order_id, customer_id, tier_name) = row;
    Ok(Order {
        order_id,
        customer_id: CustomerId::new(customer_id)
            .map_err(|e| Error::Inconsistent(format!("tier order {order_id}: {e}")))?,
        tier: tier(tier_name)?,
    })
}

/// Open orders whose flow has not been started, oldest first.
///
/// # Errors
/// What the database reports.
pub async fn orders_to_start(pool: &PgPool, limit: i64) -> Result<Vec<Order>, Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT order_id, customer_id, tier FROM tier_orders JOIN customers USING (customer_id)
         WHERE closed_at IS NULL AND started_at IS NULL ORDER BY order_id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(order).collect()
}

/// Open orders that were started, or whose flow was found open, at least `age` ago: it may have been cut
/// off since. Those first for which that is longest.
///
/// # Errors
/// What the database reports.
pub async fn stale_orders(pool: &PgPool, age: Duration, limit: i64) -> Result<Vec<Order>, Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT order_id, customer_id, tier FROM tier_orders JOIN customers USING (customer_id)
         WHERE closed_at IS NULL AND started_at < clock_timestamp() - $1 * interval '1 second'
         ORDER BY started_at LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(order).collect()
}

/// Whether an order has not been closed.
///
/// # Errors
/// What the database reports.
pub async fn is_open(pool: &PgPool, order_id: i64) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM tier_orders WHERE order_id = $1 AND closed_at IS NULL)",
    )
    .bind(order_id)
    .fetch_one(pool)
    .await?)
}

/// Records that an order's flow has been started, or was found open.
///
/// # Errors
/// What the database reports.
pub async fn mark_started(pool: &PgPool, order_id: i64) -> Result<(), Error> {
    sqlx::query("UPDATE tier_orders SET started_at = clock_timestamp() WHERE order_id = $1")
        .bind(order_id)
        .execute(pool)
        .await?;
    Ok(())
}

/// Reads the account, and what the order has already done.
///
/// # Errors
/// [`Error::NotFound`] without such an order; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "tiers.read_account", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn read_account(pool: &PgPool, order_id: i64) -> Result<TierAccount, Error> {
    let row: Option<(i64, i64, String, i64)> = sqlx::query_as(
        "SELECT available, held, tier, tier_version
         FROM tier_orders JOIN customers USING (customer_id) WHERE order_id = $1",
    )
    .bind(order_id)
    .fetch_optional(pool)
    .await?;
    let (available, held, tier_name, tier_version) =
        row.ok_or_else(|| Error::not_found("tier order", order_id.to_string()))?;
    let mut conn = pool.acquire().await?;
    Ok(TierAccount {
        current_points: points(available)?.saturating_add(points(held)?),
        tier: tier(tier_name)?,
        tier_version,
        already_upgraded: upgrade_of(&mut conn, order_id).await?,
    })
}

async fn upgrade_of(conn: &mut PgConnection, order_id: i64) -> Result<Option<Upgrade>, Error> {
    let row: Option<(String, String, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT previous_tier, new_tier, upgraded_at, expires_at
         FROM tier_orders JOIN callbacks USING (callback_id) WHERE order_id = $1",
    )
    .bind(order_id)
    .fetch_optional(conn)
    .await?;
    row.map(|(previous, new, upgraded_at, acknowledge_until)| {
        Ok(Upgrade {
            previous_tier: tier(previous)?,
            new_tier: tier(new)?,
            upgraded_at,
            acknowledge_until,
        })
    })
    .transpose()
}

/// Gives the tier, only upwards and only if the tier version is still the one that was read.
/// The callback id and `loyalty.tierUpgraded.v1` are written in the same transaction. Nothing
/// when the version has changed. Run again, it answers what it did the first time.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "tiers.upgrade", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn upgrade(pool: &PgPool, new: &NewUpgrade<'_>) -> Result<Option<Upgrade>, Error> {
    let NewUpgrade {
        order_id,
        customer,
        tier: new_tier,
        ..
    } = *new;
    let mut tx = transaction::begin(pool).await?;
    let (available, held, version, previous, tier_version): (i64, i64, i64, String, i64) =
        sqlx::query_as(
            "SELECT available, held, version, tier, tier_version FROM customers
             WHERE customer_id = $1 FOR UPDATE",
        )
        .bind(customer.as_str())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::not_found("customer", customer.as_str()))?;
    if let Some(done) = upgrade_of(&mut tx, order_id).await? {
        return Ok(Some(done));
    }
    let previous_tier = tier(previous)?;
    if tier_version != new.expected_tier_version || new_tier <= previous_tier {
        return Ok(None);
    }
    sqlx::query(
        "UPDATE customers SET tier = $2, tier_version = tier_version + 1,
                updated_at = clock_timestamp()
         WHERE customer_id = $1",
    )
    .bind(customer.as_str())
    .bind(new_tier.as_str())
    .execute(&mut *tx)
    .await?;
    let upgraded_at = Utc::now();
    let acknowledge_until = upgraded_at
        + chrono::Duration::from_std(new.acknowledge_within)
            .map_err(|e| Error::Inconsistent(format!("acknowledgement time limit: {e}")))?;
    let callback_id = callbacks::mint();
    callbacks::write(
        &mut tx,
        &callbacks::NewCallback {
            callback_id: &callback_id,
            workflow_id: new.workflow_id,
            subject: &order_id.to_string(),
            merchant_id: None,
            expires_at: acknowledge_until,
        },
    )
    .await?;
    sqlx::query(
        "UPDATE tier_orders SET previous_tier = $2, new_tier = $3, upgraded_at = $4, callback_id = $5
         WHERE order_id = $1",
    )
    .bind(order_id)
    .bind(previous_tier.as_str())
    .bind(new_tier.as_str())
    .bind(upgraded_at)
    .bind(&callback_id)
    .execute(&mut *tx)
    .await?;
    let message = TierUpgraded {
        user_id: customer.clone(),
        previous_tier,
        new_tier,
        current_points: points(available)?.saturating_add(points(held)?),
        upgraded_at,
        recommendations: new.recommendations.to_vec(),
        callback_id,
    };
    outbox::write(&mut tx, &[OutboxMessage::tier_upgraded(&message, version)?]).await?;
    transaction::commit(tx, "tier").await?;
    Ok(Some(Upgrade {
        previous_tier,
        new_tier,
        upgraded_at,
        acknowledge_until,
    }))
}

/// The answer to an order's notification: `Some(true)` when it was acknowledged, `Some(false)`
/// when failure was reported, nothing as long as nobody has answered.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "tiers.acknowledgement", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn acknowledgement(pool: &PgPool, order_id: i64) -> Result<Option<bool>, Error> {
    let row: Option<(Option<String>,)> = sqlx::query_as(
        "SELECT answer FROM tier_orders JOIN callbacks USING (callback_id) WHERE order_id = $1",
    )
    .bind(order_id)
    .fetch_optional(pool)
    .await?;
    Ok(row
        .and_then(|(answer,)| answer)
        .map(|answer| answer == "SUCCESS"))
}

/// Closes an order, with the time of the notification only if it was acknowledged, and looks
/// again under the account's lock: when a tier is due, the next order is opened. False when it was
/// closed before.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "tiers.close", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn close(
    pool: &PgPool,
    order_id: i64,
    customer: &CustomerId,
    outcome: &str,
    acknowledged: bool,
    thresholds: &TierThresholds,
) -> Result<bool, Error> {
    let mut tx = transaction::begin(pool).await?;
    let (available, held, tier_name): (i64, i64, String) = sqlx::query_as(
        "SELECT available, held, tier FROM customers WHERE customer_id = $1 FOR UPDATE",
    )
    .bind(customer.as_str())
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Error::not_found("customer", customer.as_str()))?;
    let closed = sqlx::query(
        "UPDATE tier_orders
         SET closed_at = clock_timestamp(), outcome = $2,
             notified_at = CASE WHEN $3 THEN clock_timestamp() END
         WHERE order_id = $1 AND closed_at IS NULL",
    )
    .bind(order_id)
    .bind(outcome)
    .bind(acknowledged)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    let current = points(available)?.saturating_add(points(held)?);
    if closed > 0 && thresholds.due(current, tier(tier_name)?).is_some() {
        ledger::open_tier_orders(&mut tx, &[customer.as_str()]).await?;
    }
    transaction::commit(tx, "tier").await?;
    Ok(closed > 0)
}

/// Orders to look at a tier that have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OpenOrders {
    /// How many there are.
    pub count: i64,
    /// How long ago the oldest of them was written, in seconds.
    pub oldest_age_seconds: f64,
}

/// What has not ended, for the metrics.
///
/// # Errors
/// What the database reports.
pub async fn open(pool: &PgPool) -> Result<OpenOrders, Error> {
    let (count, oldest_age_seconds): (i64, f64) = sqlx::query_as(
        "SELECT count(*),
                coalesce(extract(epoch FROM clock_timestamp() - min(opened_at)), 0)::float8
         FROM tier_orders WHERE closed_at IS NULL",
    )
    .fetch_one(pool)
    .await?;
    Ok(OpenOrders {
        count,
        oldest_age_seconds,
    })
}
