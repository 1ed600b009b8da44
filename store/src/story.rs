//! What happened to one customer, with the flows that did it: for people who look into it.

use chrono::{DateTime, Utc};
use domain::CustomerId;
use sqlx::PgPool;

use crate::Error;

/// One thing that happened, newest first.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Entry {
    /// When.
    pub at: DateTime<Utc>,
    /// What, in words.
    pub what: String,
    /// The workflow that did it.
    pub workflow_id: String,
}

/// The last `limit` things that happened to a customer: transfers, redemptions, tier upgrades.
///
/// # Errors
/// What the database reports.
pub async fn of(pool: &PgPool, customer: &CustomerId, limit: i64) -> Result<Vec<Entry>, Error> {
    Ok(sqlx::query_as(
        "SELECT * FROM (
             (SELECT posted_at AS at,
                     reason || ': ' || amount || ' points from ' || debit_account || ' to '
                     || credit_account || ' (' || source || ' ' || source_event_id || ', available '
                     || available_after || ', held ' || held_after || ')' AS what,
                     workflow_id
              FROM transfers WHERE customer_id = $1 ORDER BY customer_version DESC LIMIT $2)
             UNION ALL
             (SELECT updated_at, 'redemption ' || redeem_request_id || ' of ' || points || ' points at '
                     || merchant_id || ': ' || state || coalesce(' (' || reason || ')', ''),
                     redeem_request_id
              FROM redemptions WHERE customer_id = $1 ORDER BY created_at DESC LIMIT $2)
             UNION ALL
             (SELECT coalesce(closed_at, opened_at),
                     'look at the tier: ' || coalesce(outcome, 'open')
                     || coalesce(', ' || previous_tier || ' to ' || new_tier, ''),
                     'tier-upgrade/' || customer_id || '/' || order_id
              FROM tier_orders WHERE customer_id = $1 ORDER BY order_id DESC LIMIT $2)
         ) entries ORDER BY at DESC LIMIT $2",
    )
    .bind(customer.as_str())
    .bind(limit)
    .fetch_all(pool)
    .await?)
}
