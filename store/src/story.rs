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
    /// The workflow that did it; empty where that is not known.
    pub workflow_id: String,
}

/// The last `limit` things that happened to a customer: transfers, redemptions, promotions, tier
/// upgrades, events that gave no points.
///
/// # Errors
/// What the database reports.
pub async fn of(pool: &PgPool, customer: &CustomerId, limit: i64) -> Result<Vec<Entry>, Error> {
    Ok(sqlx::query_as(
        "SELECT * FROM (
             (SELECT t.posted_at AS at,
                     reason || ': ' || t.amount || ' points from ' || debit_account || ' to '
                     || credit_account || ' (' || source || ' ' || source_event_id || ', available '
                     || t.available_after || ', held ' || held_after || ')'
                     || coalesce(': ' || nullif(b.description, ''), '') AS what,
                     workflow_id
              FROM transfers t
              LEFT JOIN transactions b
                     ON t.source = 'transaction' AND b.transaction_id = t.source_event_id
              WHERE t.customer_id = $1 ORDER BY customer_version DESC LIMIT $2)
             UNION ALL
             (SELECT updated_at, 'redemption ' || redeem_request_id || ' of ' || points || ' points at '
                     || merchant_id || ': ' || state || coalesce(' (' || reason || ')', ''),
                     redeem_request_id
              FROM redemptions WHERE customer_id = $1 ORDER BY created_at DESC LIMIT $2)
             UNION ALL
             (SELECT a.updated_at, 'promotion ' || promotion_id || ' (' || p.type || '): ' || a.state
                     || coalesce(' (' || a.refusal || ')', ''),
                     CASE WHEN a.claims > 0
                     THEN 'claim/' || promotion_id || '/' || a.customer_id ELSE '' END
              FROM promotion_assignments a JOIN promotions p USING (promotion_id)
              WHERE a.customer_id = $1 ORDER BY a.assigned_at DESC LIMIT $2)
             UNION ALL
             (SELECT coalesce(closed_at, opened_at),
                     'look at the tier: ' || coalesce(outcome, 'open')
                     || coalesce(', ' || previous_tier || ' to ' || new_tier, ''),
                     'tier-upgrade/' || customer_id || '/' || order_id
              FROM tier_orders WHERE customer_id = $1 ORDER BY order_id DESC LIMIT $2)
             UNION ALL
             (SELECT processed_at, source || ' ' || event_id || ': no points', ''
              FROM processed_events WHERE customer_id = $1 AND points = 0
              ORDER BY processed_at DESC LIMIT $2)
         ) entries ORDER BY at DESC LIMIT $2",
    )
    .bind(customer.as_str())
    .bind(limit)
    .fetch_all(pool)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_without_points_is_told_also_of_a_customer_without_an_account() {
        let database = crate::testing::database().await;
        let pool = &database.pool;
        sqlx::query(
            "INSERT INTO processed_events (source, event_id, body_hash, customer_id, points)
             VALUES ('orders', 'E1', '', 'A', 0), ('orders', 'E2', '', 'A', 5),
                    ('orders', 'E3', '', 'B', 0)",
        )
        .execute(pool)
        .await
        .expect("written");
        let customer = CustomerId::new("A").expect("an id");
        let story = of(pool, &customer, 9).await.expect("asked");
        let told: Vec<_> = story
            .iter()
            .map(|entry| (entry.what.as_str(), entry.workflow_id.as_str()))
            .collect();
        assert_eq!(told, [("orders E1: no points", "")]);
    }
}
