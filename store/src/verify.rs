//! Recomputes what must be true of the ledger, from the transfers alone.

use futures::TryStreamExt;
use sqlx::PgPool;

use crate::{
    Error,
    chain::{self, Findings, Head},
    transaction,
};

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

/// The messages to a topic that are in the outbox, with their bodies as JSON.
macro_rules! told {
    ($topic:literal) => {
        concat!(
            "(SELECT outbox_id, convert_from(body, 'UTF8')::jsonb AS body,
                     (SELECT convert_from(decode(header ->> 1, 'base64'), 'UTF8')::bigint
                      FROM jsonb_array_elements(headers) AS header
                      WHERE header ->> 0 = 'meed-account-version') AS customer_version
              FROM outbox_messages WHERE topic = '",
            $topic,
            "') AS message"
        )
    };
}

/// Each query names those who break the property; none is the expected answer.
const CHECKS: [(&str, &str); 20] = [
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
        "all accounts together are zero",
        "SELECT 'together they are ' || total
         FROM (SELECT coalesce((SELECT sum(available::numeric + held) FROM customers), 0)
                    + coalesce((SELECT sum(
                          CASE WHEN credit_account NOT IN ('AVAILABLE', 'HELD') THEN amount ELSE 0 END::numeric
                        - CASE WHEN debit_account NOT IN ('AVAILABLE', 'HELD') THEN amount ELSE 0 END)
                      FROM transfers), 0) AS total) AS accounts
         WHERE total <> 0",
    ),
    (
        "no account of a customer was ever below zero",
        "SELECT 'transfer ' || transfer_id || ' of customer ' || customer_id || ': available '
                || available_after || ', held ' || held_after
         FROM transfers WHERE available_after < 0 OR held_after < 0 ORDER BY transfer_id",
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
        "every redemption has the transfers of its state: one hold, one closing",
        "SELECT 'redemption ' || redeem_request_id || ' over ' || r.points || ' points is ' || state
                || ' with ' || coalesce(string_agg(t.leg || ' of ' || t.amount, ', ' ORDER BY t.leg), 'no transfer')
         FROM redemptions r
         LEFT JOIN transfers t ON t.source = 'redeem' AND t.source_event_id = r.redeem_request_id
         GROUP BY redeem_request_id
         HAVING coalesce(string_agg(t.leg, ', ' ORDER BY t.leg), 'none') <> ALL (
             CASE state WHEN 'QUEUED' THEN ARRAY['none']
                        WHEN 'SUCCESS' THEN ARRAY['hold, settle']
                        WHEN 'FAILED' THEN ARRAY['none', 'hold, release']
                        ELSE ARRAY['hold'] END)
             OR NOT coalesce(bool_and((t.amount, t.customer_id) = (r.points, r.customer_id)), true)
         ORDER BY 1",
    ),
    (
        "every transfer of a redemption has its redemption",
        "SELECT 'transfer ' || t.transfer_id || ' (' || t.leg || ' of ' || t.source_event_id || ')'
         FROM transfers t
         WHERE t.source = 'redeem'
           AND NOT EXISTS (SELECT FROM redemptions WHERE redeem_request_id = t.source_event_id)
         ORDER BY t.transfer_id",
    ),
    (
        "every promotion has given its points when it was claimed, and only then",
        "SELECT 'promotion ' || a.promotion_id || ' of customer ' || a.customer_id || ' over '
                || coalesce(a.points, 0) || ' points is ' || state || ', the ledger says '
                || coalesce(t.amount, 0)
         FROM promotion_assignments a
         LEFT JOIN transfers t ON (t.source, t.source_event_id, t.leg)
                = ('promotion', a.promotion_id || '/' || a.customer_id, 'bonus')
         WHERE CASE WHEN state = 'CLAIMED'
               THEN (t.amount, t.customer_id) IS DISTINCT FROM (a.points, a.customer_id)
               ELSE t.transfer_id IS NOT NULL END
         ORDER BY 1",
    ),
    (
        "every bonus in the ledger has its claim",
        "SELECT 'transfer ' || t.transfer_id || ' (' || t.leg || ' of ' || t.source_event_id || ')'
         FROM transfers t
         WHERE t.source = 'promotion'
           AND NOT EXISTS (SELECT FROM promotion_assignments a
                           WHERE a.customer_id = t.customer_id AND t.leg = 'bonus'
                             AND a.promotion_id || '/' || a.customer_id = t.source_event_id)
         ORDER BY t.transfer_id",
    ),
    (
        "every transaction of another service has its transfer, and the other way round",
        "SELECT coalesce('transaction ' || b.transaction_id, 'transfer ' || t.transfer_id) || ' of customer '
                || coalesce(b.customer_id, t.customer_id) || ': ' || coalesce(b.direction, 'nothing')
                || ' of ' || coalesce(b.points, 0) || ' points, the ledger says '
                || coalesce(t.leg || ' of ' || t.amount, 'nothing')
         FROM transactions b
         FULL JOIN (SELECT * FROM transfers WHERE source = 'transaction') t
              ON t.source_event_id = b.transaction_id
         WHERE (b.customer_id, lower(b.direction), b.points, b.available_after)
               IS DISTINCT FROM (t.customer_id, t.leg, t.amount, t.available_after)
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
    (
        "no customer was given a tier twice",
        "SELECT 'customer ' || o.customer_id || ' was given ' || o.new_tier || ' by orders '
                || string_agg(o.order_id::text, ', ' ORDER BY o.order_id)
         FROM tier_orders o WHERE o.new_tier IS NOT NULL
         GROUP BY o.customer_id, o.new_tier HAVING count(*) > 1
         UNION ALL
         SELECT 'customer ' || customer_id || ': ' || count(*) || ' upgrades, the tier has changed '
                || tier_version || ' times'
         FROM tier_orders JOIN customers USING (customer_id) WHERE new_tier IS NOT NULL
         GROUP BY customer_id, tier_version HAVING count(*) > tier_version
         ORDER BY 1",
    ),
    // A message of the outbox is gone some weeks after it was published; what was posted since
    // `pruned_before` has its message still.
    (
        "every award is confirmed once, as it was posted",
        concat!(
            "WITH told AS MATERIALIZED (
                 SELECT outbox_id, body ->> 'customerId' AS customer_id,
                        (body ->> 'pointsAwarded')::bigint AS amount,
                        (body ->> 'balanceAfter')::bigint AS available_after,
                        body ->> 'sourceEventId' AS source_event_id, customer_version
                 FROM ", told!("reward-confirmed"), "), award AS (
                 SELECT * FROM transfers WHERE leg = 'award')
             SELECT 'transfer ' || transfer_id || ' of customer ' || customer_id || ': '
                    || count(outbox_id) || ' confirmations that agree'
             FROM award LEFT JOIN told
                  USING (customer_id, customer_version, amount, available_after, source_event_id)
             WHERE posted_at >= (SELECT pruned_before FROM outbox_pruned)
             GROUP BY transfer_id, customer_id HAVING count(outbox_id) <> 1
             UNION ALL
             SELECT 'outbox ' || outbox_id || ': customer ' || customer_id
                    || ' was told of an award that is not in the ledger'
             FROM told LEFT JOIN award
                  USING (customer_id, customer_version, amount, available_after, source_event_id)
             WHERE transfer_id IS NULL
             ORDER BY 1"
        ),
    ),
    (
        "every change of a total is told once, as it was posted",
        concat!(
            "WITH told AS MATERIALIZED (
                 SELECT outbox_id, body ->> 'userId' AS customer_id,
                        (body ->> 'totalPoints')::bigint AS total,
                        (body ->> 'difference')::bigint AS difference, customer_version
                 FROM ", told!("loyalty.pointsAdded.v2"), "), change AS (
                 SELECT transfer_id, customer_id, customer_version, posted_at,
                        available_after + held_after AS total,
                        CASE WHEN credit_account IN ('AVAILABLE', 'HELD') THEN amount
                             ELSE -amount END AS difference
                 FROM transfers
                 WHERE (credit_account IN ('AVAILABLE', 'HELD'))
                    <> (debit_account IN ('AVAILABLE', 'HELD')))
             SELECT 'transfer ' || transfer_id || ' of customer ' || customer_id || ': '
                    || count(outbox_id) || ' messages that agree'
             FROM change LEFT JOIN told USING (customer_id, customer_version, total, difference)
             WHERE posted_at >= (SELECT pruned_before FROM outbox_pruned)
             GROUP BY transfer_id, customer_id HAVING count(outbox_id) <> 1
             UNION ALL
             SELECT 'outbox ' || outbox_id || ': customer ' || customer_id
                    || ' was told of a change that is not in the ledger'
             FROM told LEFT JOIN change USING (customer_id, customer_version, total, difference)
             WHERE transfer_id IS NULL
             ORDER BY 1"
        ),
    ),
    (
        "every end of a redemption is told once, as it was",
        concat!(
            "WITH told AS MATERIALIZED (
                 SELECT outbox_id, body ->> 'redeemRequestId' AS redeem_request_id,
                        body ->> 'customerId' AS customer_id, body ->> 'status' AS state,
                        (body ->> 'pointsDeducted')::bigint AS points_deducted,
                        (body ->> 'balanceAfter')::bigint AS balance_after
                 FROM ", told!("redeem-confirmed"), "), ended AS (
                 SELECT *, true AS has_ended FROM redemptions WHERE state IN ('SUCCESS', 'FAILED'))
             SELECT 'redemption ' || redeem_request_id || ' is ' || state || ': '
                    || count(outbox_id) || ' answers that agree'
             FROM ended LEFT JOIN told
                  USING (redeem_request_id, customer_id, state, points_deducted, balance_after)
             WHERE updated_at >= (SELECT pruned_before FROM outbox_pruned)
             GROUP BY redeem_request_id, state HAVING count(outbox_id) <> 1
             UNION ALL
             SELECT 'outbox ' || outbox_id || ': redemption ' || redeem_request_id
                    || ' did not end as was told: ' || state
             FROM told LEFT JOIN ended
                  USING (redeem_request_id, customer_id, state, points_deducted, balance_after)
             WHERE has_ended IS NULL
             ORDER BY 1"
        ),
    ),
    (
        "every tier that was given is told once",
        concat!(
            "WITH told AS MATERIALIZED (
                 SELECT outbox_id, body ->> 'userId' AS customer_id, body ->> 'newTier' AS new_tier,
                        body ->> 'callbackId' AS callback_id
                 FROM ", told!("loyalty.tierUpgraded.v1"), ")
             SELECT 'tier order ' || order_id || ' gave ' || new_tier || ' to customer ' || customer_id
                    || ': ' || count(outbox_id) || ' messages that agree'
             FROM tier_orders LEFT JOIN told USING (customer_id, new_tier, callback_id)
             WHERE new_tier IS NOT NULL
               AND upgraded_at >= (SELECT pruned_before FROM outbox_pruned)
             GROUP BY order_id HAVING count(outbox_id) <> 1
             UNION ALL
             SELECT 'outbox ' || outbox_id || ': customer ' || customer_id || ' was told of '
                    || new_tier || ', which no order gave'
             FROM told LEFT JOIN tier_orders USING (customer_id, new_tier, callback_id)
             WHERE order_id IS NULL
             ORDER BY 1"
        ),
    ),
    (
        "every promotion that was assigned is told once",
        concat!(
            "WITH told AS MATERIALIZED (
                 SELECT outbox_id, body ->> 'user_id' AS customer_id,
                        body -> 'content' ->> 'id' AS promotion_id
                 FROM ", told!("notifications"), " WHERE body ->> 'eventType' = 'PROMOTION')
             SELECT 'promotion ' || promotion_id || ' of customer ' || customer_id || ': '
                    || count(outbox_id) || ' notifications'
             FROM promotion_assignments LEFT JOIN told USING (customer_id, promotion_id)
             WHERE assigned_at >= (SELECT pruned_before FROM outbox_pruned)
             GROUP BY promotion_id, customer_id HAVING count(outbox_id) <> 1
             UNION ALL
             SELECT 'outbox ' || outbox_id || ': customer ' || customer_id || ' was told of promotion '
                    || promotion_id || ', which was not assigned'
             FROM told LEFT JOIN promotion_assignments a USING (customer_id, promotion_id)
             WHERE a.state IS NULL
             ORDER BY 1"
        ),
    ),
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every property; the last is that of the chain.
    pub checks: Vec<Check>,
    /// What became of the chain.
    pub chain: Findings,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A property is looked at next.
    Property {
        /// How many have been.
        done: usize,
        /// How many there are, without the chain.
        of: usize,
        /// Which one.
        property: &'static str,
    },
    /// So many transfers of the chain have been looked at.
    Chain(u64),
}

/// Checks every property and the chain, on one snapshot of the database.
///
/// # Errors
/// What the database reports.
pub async fn verify(pool: &PgPool) -> Result<Vec<Check>, Error> {
    Ok(report(pool, &[], &mut |_| {}).await?.checks)
}

/// The same with what is known of the chain; `noted` are heads that must be in it.
///
/// # Errors
/// What the database reports.
pub async fn report(
    pool: &PgPool,
    noted: &[Head],
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *tx)
        .await?;
    let mut checks = Vec::with_capacity(CHECKS.len() + 1);
    for (done, (property, query)) in CHECKS.into_iter().enumerate() {
        let of = CHECKS.len();
        progress(Progress::Property { done, of, property });
        let mut check = Check {
            property,
            violations: 0,
            examples: Vec::new(),
        };
        let mut offenders = sqlx::query_as(query).fetch(&mut *tx);
        while let Some((text,)) = offenders.try_next().await? {
            check.violations += 1;
            if check.examples.len() < EXAMPLES {
                check.examples.push(text);
            }
        }
        drop(offenders);
        checks.push(check);
    }
    let mut looked_at = |transfers| progress(Progress::Chain(transfers));
    let chain = chain::check_on(&mut tx, noted, &mut looked_at).await?;
    tx.commit().await?;
    checks.push(Check {
        property: "every sealed transfer is what it was when it was sealed",
        violations: chain.violations,
        examples: chain.examples.iter().map(ToString::to_string).collect(),
    });
    Ok(Report { checks, chain })
}
