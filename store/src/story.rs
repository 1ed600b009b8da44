//! What happened to one customer, with the flows that did it, and what happened to one redemption: for people who look
//! into it.

use chrono::{DateTime, Utc};
use domain::{CustomerId, RedeemRequestId};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    redemptions::{self, Redemption},
};

/// A row of `transfers` in words.
macro_rules! transfer_in_words {
    () => {
        "reason || ': ' || amount || ' points from ' || debit_account || ' to '
         || credit_account || ' (' || source || ' ' || source_event_id || ', available '
         || available_after || ', held ' || held_after || ')'"
    };
}

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
    Ok(sqlx::query_as(concat!(
        "SELECT * FROM (
             (SELECT posted_at AS at, ",
        transfer_in_words!(),
        " || coalesce(': ' || nullif(description, ''), '') AS what, workflow_id
              FROM transfers
              LEFT JOIN (SELECT transaction_id, description FROM transactions) AS booked
                     ON source = 'transaction' AND transaction_id = source_event_id
              WHERE customer_id = $1 ORDER BY customer_version DESC LIMIT $2)
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
    ))
    .bind(customer.as_str())
    .bind(limit)
    .fetch_all(pool)
    .await?)
}

/// What kind of thing happened to a redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Kind {
    /// It reached a state.
    State,
    /// Points moved.
    Transfer,
    /// The merchant said something final.
    Partner,
    /// The merchant called back, or the flow was told so.
    Callback,
    /// The world was told, or is to be.
    Message,
    /// Somebody asked for something.
    Request,
}

/// One thing that happened to a redemption.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Step {
    /// When.
    pub at: DateTime<Utc>,
    /// What kind of thing.
    pub kind: Kind,
    /// What, in words.
    pub what: String,
}

/// What happened to a redemption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedemptionStory {
    /// Where it stands.
    pub redemption: Redemption,
    /// What the merchant said after it could count, against what had happened.
    pub late_answer: Option<String>,
    /// What happened, oldest first. Times of states that were passed before they were kept are missing.
    pub steps: Vec<Step>,
}

/// What happened to one redemption; nothing when there is none.
///
/// # Errors
/// What the database reports.
pub async fn of_redemption(
    conn: &mut PgConnection,
    id: &RedeemRequestId,
) -> Result<Option<RedemptionStory>, Error> {
    let Some(redemption) = redemptions::find(conn, id).await? else {
        return Ok(None);
    };
    let late: Option<(Option<String>,)> =
        sqlx::query_as("SELECT late_answer FROM callbacks WHERE callback_id = $1")
            .bind(&redemption.callback_id)
            .fetch_optional(&mut *conn)
            .await?;
    // The messages were written with the end, by the customer's key and, where points moved, with the account's
    // version after that; the outbox is searched by time.
    let steps = sqlx::query_as(concat!(
        "WITH redemption AS (SELECT * FROM redemptions WHERE redeem_request_id = $1),
              moved AS (SELECT * FROM transfers
                        WHERE source = 'redeem' AND source_event_id = $1),
              told AS (
                  SELECT o.topic, o.created_at, s.published_at
                  FROM redemption, outbox_messages o JOIN outbox_state s USING (outbox_id)
                  WHERE o.created_at BETWEEN redemption.updated_at - interval '10 seconds'
                                         AND redemption.updated_at + interval '10 seconds'
                    AND o.message_key = convert_to(redemption.customer_id, 'UTF8')
                    AND CASE o.topic
                        WHEN 'redeem-confirmed'
                        THEN convert_from(o.body, 'UTF8')::jsonb ->> 'redeemRequestId' = $1
                        ELSE EXISTS (
                            SELECT FROM moved WHERE leg = 'settle' AND o.headers @> jsonb_build_array(
                                jsonb_build_array('meed-account-version',
                                    encode(convert_to(customer_version::text, 'UTF8'), 'base64'))))
                        END)
         SELECT at, kind, what FROM (
             SELECT 0 AS place, created_at AS at, 'state' AS kind,
                    'QUEUED: ' || points || ' points at ' || merchant_id || ' for its order '
                    || order_id || ', asked for over '
                    || CASE origin WHEN 'KAFKA' THEN 'Kafka' ELSE 'HTTP' END AS what
             FROM redemption
             UNION ALL
             SELECT 1, at, 'request', action || ' by ' || actor || ' (request ' || request_id || ')'
             FROM audit_records
             WHERE subject = $1
               AND action IN ('redeem.request', 'redeem.cancel', 'partner-callback.answer')
             UNION ALL
             SELECT 2, posted_at, 'transfer', ",
        transfer_in_words!(),
        " FROM moved
             UNION ALL
             SELECT 3, posted_at, 'state', 'RESERVED: the points are held' FROM moved
             WHERE leg = 'hold'
             UNION ALL
             SELECT 4, confirming_at, 'state', 'CONFIRMING: the merchant is asked' FROM redemption
             WHERE confirming_at IS NOT NULL
             UNION ALL
             SELECT 5, awaiting_callback_at, 'state',
                    'AWAITING_CALLBACK: the merchant has promised to call back' FROM redemption
             WHERE awaiting_callback_at IS NOT NULL
             UNION ALL
             SELECT 6, answered_at, 'callback', 'the merchant called back: ' || answer
             FROM callbacks c JOIN redemption USING (callback_id) WHERE answered_at IS NOT NULL
             UNION ALL
             SELECT 7, partner_said_at, 'partner', 'the merchant''s last word: ' || partner_verdict
                    || coalesce(' (' || partner_detail || ')', '') FROM redemption
             WHERE partner_said_at IS NOT NULL
             UNION ALL
             SELECT 8, signalled_at, 'callback', 'the flow was told of the callback'
             FROM callbacks c JOIN redemption USING (callback_id) WHERE signalled_at IS NOT NULL
             UNION ALL
             SELECT 9, updated_at, 'state', state || ': ' || CASE state
                    WHEN 'SUCCESS' THEN points_deducted || ' points deducted'
                    ELSE reason || ', nothing deducted' END
             FROM redemption WHERE state IN ('SUCCESS', 'FAILED')
             UNION ALL
             SELECT 10, coalesce(published_at, created_at), 'message', CASE
                    WHEN published_at IS NULL THEN 'waits to be published on '
                    ELSE 'published on ' END || topic
             FROM told
         ) steps ORDER BY at, place",
    ))
    .bind(id.as_str())
    .fetch_all(conn)
    .await?;
    Ok(Some(RedemptionStory {
        redemption,
        late_answer: late.and_then(|(answer,)| answer),
        steps,
    }))
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
