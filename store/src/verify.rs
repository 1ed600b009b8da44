//! Recomputes what must be true of the ledger, from the transfers alone.

use sqlx::PgPool;

use crate::Error;

/// How many offenders a check names.
const EXAMPLES: usize = 5;

/// One property, and who breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The property, in words.
    pub property: &'static str,
    /// How many rows break it.
    pub violations: usize,
    /// The first few of them.
    pub examples: Vec<String>,
}

/// Each query names those who break the property; none is the expected answer.
const CHECKS: [(&str, &str); 8] = [
    (
        "every balance equals the fold of its transfers",
        "WITH fold AS (
             SELECT customer_id,
                    sum(CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END) AS available,
                    sum(CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END) AS held,
                    sum(CASE WHEN debit_account = 'ISSUANCE' THEN amount ELSE 0 END) AS lifetime,
                    count(*) AS version
             FROM transfers GROUP BY customer_id)
         SELECT 'customer ' || c.customer_id || ': available ' || c.available || ' (transfers say '
                || coalesce(f.available, 0) || '), held ' || c.held || ' (' || coalesce(f.held, 0) || ')'
         FROM customers c LEFT JOIN fold f USING (customer_id)
         WHERE (c.available, c.held, c.lifetime_earned, c.version)
            <> (coalesce(f.available, 0), coalesce(f.held, 0), coalesce(f.lifetime, 0), coalesce(f.version, 0))
         ORDER BY 1",
    ),
    (
        "every transfer follows from the one before it",
        "SELECT 'transfer ' || transfer_id || ' of customer ' || customer_id
         FROM (SELECT *,
                      lag(available_after, 1, 0) OVER w AS available_before,
                      lag(held_after, 1, 0) OVER w AS held_before,
                      lag(customer_version, 1, 0::bigint) OVER w AS version_before
               FROM transfers WINDOW w AS (PARTITION BY customer_id ORDER BY customer_version)) t
         WHERE customer_version <> version_before + 1
            OR available_after <> available_before
               + CASE 'AVAILABLE'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END
            OR held_after <> held_before
               + CASE 'HELD'::account_kind WHEN credit_account THEN amount WHEN debit_account THEN -amount ELSE 0 END
         ORDER BY transfer_id",
    ),
    (
        "every event's points are in the ledger, once",
        "SELECT p.source || ' ' || p.event_id || ': ' || p.points || ' points, the ledger says '
                || coalesce(t.amount, 0)
         FROM processed_events p
         LEFT JOIN transfers t
                ON (t.source, t.source_event_id, t.leg) = (p.source, p.event_id, 'award')
         WHERE p.points <> coalesce(t.amount, 0) ORDER BY 1",
    ),
    (
        "every award in the ledger has its event",
        "SELECT 'transfer ' || t.transfer_id || ' (' || t.source || ' ' || t.source_event_id || ')'
         FROM transfers t
         LEFT JOIN processed_events p ON (p.source, p.event_id) = (t.source, t.source_event_id)
         WHERE t.leg = 'award' AND p.event_id IS NULL ORDER BY t.transfer_id",
    ),
    (
        "points are held for redemptions under way, and for nothing else",
        "SELECT 'customer ' || customer_id || ': held ' || held || ', redemptions under way '
                || coalesce(under_way, 0)
         FROM customers LEFT JOIN (
             SELECT customer_id, sum(points) AS under_way FROM redemptions
             WHERE state IN ('RESERVED', 'CONFIRMING', 'AWAITING_CALLBACK')
             GROUP BY customer_id) r USING (customer_id)
         WHERE held <> coalesce(under_way, 0) ORDER BY 1",
    ),
    (
        "every ended redemption agrees with its transfers",
        "SELECT 'redemption ' || redeem_request_id || ' is ' || state || ' with legs '
                || coalesce(string_agg(t.leg, ', ' ORDER BY t.leg), 'none')
         FROM redemptions r
         LEFT JOIN transfers t ON t.source = 'redeem' AND t.source_event_id = r.redeem_request_id
         WHERE state IN ('SUCCESS', 'FAILED')
         GROUP BY redeem_request_id, state
         HAVING coalesce(string_agg(t.leg, ', ' ORDER BY t.leg), 'none') <> ALL (
             CASE state WHEN 'SUCCESS' THEN ARRAY['hold, settle']
                        ELSE ARRAY['none', 'hold, release'] END)
         ORDER BY 1",
    ),
    (
        "no merchant said afterwards that it did otherwise",
        "SELECT 'redemption ' || redeem_request_id || ' is ' || state || ', but ' || r.merchant_id
                || ' said ' || late_answer || ' afterwards'
         FROM callbacks c JOIN redemptions r USING (callback_id)
         WHERE late_answer IS NOT NULL ORDER BY 1",
    ),
    (
        "no customer has fallen below a tier that was given",
        "SELECT 'customer ' || customer_id || ' has ' || c.tier || ', order ' || o.order_id || ' gave '
                || o.new_tier
         FROM tier_orders o JOIN customers c USING (customer_id)
         WHERE array_position(ARRAY['BRONZE', 'SILVER', 'GOLD', 'PLATINUM'], c.tier)
             < array_position(ARRAY['BRONZE', 'SILVER', 'GOLD', 'PLATINUM'], o.new_tier)
         ORDER BY 1",
    ),
];

/// Checks every property, on one snapshot of the database.
///
/// # Errors
/// What the database reports.
pub async fn verify(pool: &PgPool) -> Result<Vec<Check>, Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *tx)
        .await?;
    let mut checks = Vec::with_capacity(CHECKS.len());
    for (property, query) in CHECKS {
        let offenders: Vec<(String,)> = sqlx::query_as(query).fetch_all(&mut *tx).await?;
        checks.push(Check {
            property,
            violations: offenders.len(),
            examples: offenders
                .into_iter()
                .take(EXAMPLES)
                .map(|(text,)| text)
                .collect(),
        });
    }
    tx.commit().await?;
    Ok(checks)
}
