//! Ledger against confirmations: what the world should have been told, what the outbox has of it,
//! and what it claims to have published.

use chrono::{DateTime, Utc};
use domain::{
    CustomerId, Points, SourceKind,
    message::{PointsAdded, RedeemConfirmed, RewardConfirmed, topic},
    redemption::{FailureReason, RedemptionState},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    ledger::points,
    outbox::{self, OutboxMessage},
    relay::read_headers,
    transaction,
};

/// How long before or after its transfer a message may have been written: they share a
/// transaction, so this is longer than any of those.
const SAME_TRANSACTION_SECONDS: f64 = 60.0;

/// Something that the world should have been told and that the outbox does not have.
#[derive(Debug, Clone)]
pub struct Untold {
    /// When it happened.
    pub happened_at: DateTime<Utc>,
    /// The customer.
    pub customer_id: CustomerId,
    /// What it is called in findings: the topic and the transfer or redemption.
    pub subject: String,
    message: OutboxMessage,
    redeem_request_id: Option<String>,
    version: i64,
}

/// When the first transfer was posted.
///
/// # Errors
/// What the database reports.
pub async fn beginning(pool: &PgPool) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(
        sqlx::query_scalar("SELECT posted_at FROM transfers ORDER BY transfer_id LIMIT 1")
            .fetch_optional(pool)
            .await?,
    )
}

/// Up to when messages may be gone from the outbox because they were published long ago.
///
/// # Errors
/// What the database reports.
pub async fn pruned_before(pool: &PgPool) -> Result<DateTime<Utc>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT greatest(pruned_before, 'epoch'::timestamptz) FROM outbox_pruned",
    )
    .fetch_one(pool)
    .await?)
}

#[derive(sqlx::FromRow)]
struct TransferRow {
    topic: String,
    transfer_id: i64,
    source: String,
    source_event_id: String,
    leg: String,
    customer_id: String,
    amount: i64,
    debit_account: String,
    customer_version: i64,
    available_after: i64,
    held_after: i64,
    posted_at: DateTime<Utc>,
}

/// How many messages transfers of a slice of time should have led to, and those that are missing.
///
/// # Errors
/// What the database reports.
pub async fn untold_transfers(
    pool: &PgPool,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<(u64, Vec<Untold>), Error> {
    let (expected,): (i64,) = sqlx::query_as(
        "SELECT coalesce(sum(CASE leg WHEN 'award' THEN 2 ELSE 1 END), 0)::bigint FROM transfers
         WHERE posted_at >= $1 AND posted_at < $2
           AND leg IN ('award', 'bonus', 'credit', 'debit', 'settle', 'adjust')",
    )
    .bind(from)
    .bind(until)
    .fetch_one(pool)
    .await?;
    if expected == 0 {
        return Ok((0, Vec::new()));
    }
    let rows: Vec<TransferRow> = sqlx::query_as(
        "WITH told AS MATERIALIZED (
             SELECT topic, message_key,
                    (SELECT h ->> 1 FROM jsonb_array_elements(headers) AS h
                     WHERE h ->> 0 = 'meed-account-version' LIMIT 1) AS version
             FROM outbox_messages
             WHERE topic IN ('reward-confirmed', 'loyalty.pointsAdded.v2')
               AND created_at >= $1 - $3 * interval '1 second'
               AND created_at < $2 + $3 * interval '1 second')
         SELECT k.topic, t.transfer_id, t.source, t.source_event_id, t.leg, t.customer_id, t.amount,
                t.debit_account::text, t.customer_version, t.available_after, t.held_after,
                t.posted_at
         FROM transfers t
         CROSS JOIN LATERAL (VALUES ('reward-confirmed'), ('loyalty.pointsAdded.v2')) AS k (topic)
         WHERE t.posted_at >= $1 AND t.posted_at < $2
           AND t.leg IN ('award', 'bonus', 'credit', 'debit', 'settle', 'adjust')
           AND (k.topic = 'loyalty.pointsAdded.v2' OR t.leg = 'award')
           AND NOT EXISTS (
               SELECT FROM told
               WHERE told.topic = k.topic
                 AND told.message_key = convert_to(t.customer_id, 'UTF8')
                 AND told.version = encode(convert_to(t.customer_version::text, 'UTF8'), 'base64'))
         ORDER BY t.transfer_id, k.topic DESC",
    )
    .bind(from)
    .bind(until)
    .bind(SAME_TRANSACTION_SECONDS)
    .fetch_all(pool)
    .await?;
    let untold = never_told(pool, rows.iter().map(of_transfer)).await?;
    Ok((u64::try_from(expected).unwrap_or_default(), untold))
}

fn of_transfer(row: &TransferRow) -> Result<Untold, Error> {
    let customer_id = CustomerId::new(row.customer_id.clone())
        .map_err(|e| Error::Inconsistent(format!("transfer {}: {e}", row.transfer_id)))?;
    let message = if row.topic == topic::REWARD_CONFIRMED {
        OutboxMessage::reward_confirmed(
            &RewardConfirmed {
                event_id: outbox::message_id("reward-confirmed", &row.source, &row.source_event_id),
                customer_id: customer_id.clone(),
                points_awarded: points(row.amount)?,
                balance_after: points(row.available_after)?,
                source_event_id: row.source_event_id.clone(),
                timestamp: row.posted_at,
            },
            row.customer_version,
        )?
    } else {
        let takes = row.leg == "settle" || row.debit_account == "AVAILABLE";
        OutboxMessage::points_added(
            &PointsAdded {
                user_id: customer_id.clone(),
                total_points: points(row.available_after)?.saturating_add(points(row.held_after)?),
                difference: if takes { -row.amount } else { row.amount },
            },
            row.customer_version,
            row.posted_at,
        )?
    };
    Ok(Untold {
        happened_at: row.posted_at,
        customer_id,
        subject: format!(
            "{} of {} {} {}",
            row.topic, row.source, row.source_event_id, row.leg
        ),
        message,
        redeem_request_id: None,
        version: row.customer_version,
    })
}

#[derive(sqlx::FromRow)]
struct EndedRow {
    redeem_request_id: String,
    customer_id: String,
    state: String,
    reason: Option<String>,
    points_deducted: i64,
    balance_after: Option<i64>,
    updated_at: DateTime<Utc>,
    version: i64,
}

/// How many redemptions ended in a slice of time, and those whose answer is missing.
///
/// # Errors
/// What the database reports.
pub async fn untold_redemptions(
    pool: &PgPool,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<(u64, Vec<Untold>), Error> {
    let (expected,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM redemptions
         WHERE state IN ('SUCCESS', 'FAILED') AND updated_at >= $1 AND updated_at < $2",
    )
    .bind(from)
    .bind(until)
    .fetch_one(pool)
    .await?;
    if expected == 0 {
        return Ok((0, Vec::new()));
    }
    let rows: Vec<EndedRow> = sqlx::query_as(
        "WITH told AS MATERIALIZED (
             SELECT convert_from(body, 'UTF8')::jsonb ->> 'redeemRequestId' AS id
             FROM outbox_messages
             WHERE topic = 'redeem-confirmed'
               AND created_at >= $1 - $3 * interval '1 second'
               AND created_at < $2 + $3 * interval '1 second')
         SELECT r.redeem_request_id, r.customer_id, r.state, r.reason, r.points_deducted,
                r.balance_after, r.updated_at,
                coalesce((SELECT max(t.customer_version) FROM transfers t
                          WHERE t.customer_id = r.customer_id AND t.posted_at <= r.updated_at), 0)
                AS version
         FROM redemptions r
         WHERE r.state IN ('SUCCESS', 'FAILED') AND r.updated_at >= $1 AND r.updated_at < $2
           AND NOT EXISTS (SELECT FROM told WHERE told.id = r.redeem_request_id)
         ORDER BY r.updated_at",
    )
    .bind(from)
    .bind(until)
    .bind(SAME_TRANSACTION_SECONDS)
    .fetch_all(pool)
    .await?;
    let untold = never_told(pool, rows.into_iter().map(of_redemption)).await?;
    Ok((u64::try_from(expected).unwrap_or_default(), untold))
}

fn of_redemption(row: EndedRow) -> Result<Untold, Error> {
    let unreadable =
        |what: &str| Error::Inconsistent(format!("redemption {}: {what}", row.redeem_request_id));
    let customer_id =
        CustomerId::new(row.customer_id.clone()).map_err(|e| unreadable(&e.to_string()))?;
    let answer = RedeemConfirmed {
        redeem_request_id: row.redeem_request_id.clone(),
        customer_id: customer_id.clone(),
        points_deducted: points(row.points_deducted)?,
        balance_after: row.balance_after.map_or(Ok(Points::ZERO), points)?,
        status: RedemptionState::parse(&row.state).ok_or_else(|| unreadable(&row.state))?,
        reason: row
            .reason
            .as_deref()
            .map(|name| FailureReason::parse(name).ok_or_else(|| unreadable(name)))
            .transpose()?,
        timestamp: row.updated_at,
    };
    Ok(Untold {
        happened_at: row.updated_at,
        customer_id,
        subject: format!("redeem-confirmed of {}", row.redeem_request_id),
        message: OutboxMessage::redeem_confirmed(&answer, row.version)?,
        redeem_request_id: Some(row.redeem_request_id),
        version: row.version,
    })
}

/// Those that the outbox does not have at any time: a row that was written again stands at another
/// time than its transfer.
async fn never_told(
    pool: &PgPool,
    missing: impl Iterator<Item = Result<Untold, Error>>,
) -> Result<Vec<Untold>, Error> {
    let mut untold = Vec::new();
    for missing in missing {
        let missing = missing?;
        let mut conn = pool.acquire().await?;
        if !is_told(&mut conn, &missing).await? {
            untold.push(missing);
        }
    }
    Ok(untold)
}

/// Whether the outbox has it at whatever time; slow, for the few that seem to be missing.
async fn is_told(conn: &mut PgConnection, untold: &Untold) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM outbox_messages
             WHERE topic = $1 AND message_key = $2
               AND CASE WHEN $3::text IS NULL
                   THEN headers @> jsonb_build_array(jsonb_build_array('meed-account-version',
                            encode(convert_to($4::bigint::text, 'UTF8'), 'base64')))
                   ELSE convert_from(body, 'UTF8')::jsonb ->> 'redeemRequestId' = $3 END)",
    )
    .bind(&untold.message.topic)
    .bind(&untold.message.key)
    .bind(&untold.redeem_request_id)
    .bind(untold.version)
    .fetch_one(conn)
    .await?)
}

/// Writes what is missing again, from the ledger, under the customer's lock: whether it was
/// still missing.
///
/// # Errors
/// What the database reports.
pub async fn tell_again(pool: &PgPool, untold: &Untold) -> Result<bool, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query("SELECT FROM customers WHERE customer_id = $1 FOR UPDATE")
        .bind(untold.customer_id.as_str())
        .execute(&mut *tx)
        .await?;
    if is_told(&mut tx, untold).await? {
        return Ok(false);
    }
    outbox::write(&mut tx, std::slice::from_ref(&untold.message)).await?;
    tx.commit().await?;
    Ok(true)
}

/// A message that the outbox says was published.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its place in the outbox.
    pub outbox_id: i64,
    /// Its shard.
    pub shard: i16,
    /// When it was marked.
    pub published_at: DateTime<Utc>,
    /// The message.
    pub message: OutboxMessage,
}

type PublishedRow = (
    i64,
    i16,
    DateTime<Utc>,
    String,
    Option<Vec<u8>>,
    serde_json::Value,
    Vec<u8>,
);

/// What was marked as published in a slice of time on one topic, the next `limit` of it.
///
/// # Errors
/// What the database reports.
pub async fn published(
    pool: &PgPool,
    topic: &str,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    after: i64,
    limit: i64,
) -> Result<Vec<Published>, Error> {
    let rows: Vec<PublishedRow> = sqlx::query_as(
        "SELECT outbox_id, shard, published_at, topic, message_key, headers, body FROM (
             SELECT * FROM outbox_state
             WHERE published_at >= $2 AND published_at < $3 OFFSET 0) AS slice
         JOIN outbox_messages USING (outbox_id)
         WHERE topic = $1 AND outbox_id > $4
         ORDER BY outbox_id LIMIT $5",
    )
    .bind(topic)
    .bind(from)
    .bind(until)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(
            |(outbox_id, shard, published_at, topic, key, headers, body)| {
                let headers = read_headers(headers).map_err(|reason| {
                    Error::Inconsistent(format!("outbox {outbox_id}: {reason}"))
                })?;
                Ok(Published {
                    outbox_id,
                    shard,
                    published_at,
                    message: OutboxMessage {
                        topic,
                        key,
                        headers,
                        body,
                    },
                })
            },
        )
        .collect()
}

/// Makes the relay publish a message again, under the shard's lock, so that the relay is not at
/// work on it.
///
/// # Errors
/// What the database reports.
pub async fn publish_again(pool: &PgPool, published: &Published) -> Result<bool, Error> {
    let mut tx = transaction::begin(pool).await?;
    sqlx::query("SELECT FROM outbox_shards WHERE shard = $1 FOR UPDATE")
        .bind(published.shard)
        .execute(&mut *tx)
        .await?;
    let cleared = sqlx::query(
        "UPDATE outbox_state SET published_at = NULL WHERE outbox_id = $1 AND published_at = $2",
    )
    .bind(published.outbox_id)
    .bind(published.published_at)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(cleared > 0)
}

/// What a confirmation on Kafka claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "kebab-case")]
pub enum Claim {
    /// An event was awarded.
    Rewarded {
        /// Whose points.
        customer: String,
        /// The event.
        event: String,
        /// How many.
        points: i64,
    },
    /// A customer's total changed.
    Changed {
        /// Whose total.
        customer: String,
        /// The account's version after it.
        version: i64,
        /// By how much.
        difference: i64,
        /// The total after it.
        total: i64,
    },
    /// A redemption ended.
    Ended {
        /// Which one.
        redemption: String,
        /// How.
        status: String,
        /// How many points were deducted.
        points: i64,
    },
    /// Nothing that can be read.
    Unreadable,
}

/// Which of these claims the ledger bears out, one answer for each, in order.
///
/// # Errors
/// What the database reports.
pub async fn borne_out(pool: &PgPool, claims: &[Claim]) -> Result<Vec<bool>, Error> {
    let mut true_of = vec![false; claims.len()];
    let mut rewarded = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut changed = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut ended = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (place, claim) in (0_i32..).zip(claims) {
        match claim {
            Claim::Rewarded {
                customer,
                event,
                points,
            } => {
                rewarded.0.push(customer.as_str());
                rewarded.1.push(event.as_str());
                rewarded.2.push(*points);
                rewarded.3.push(place);
            }
            Claim::Changed {
                customer,
                version,
                difference,
                total,
            } => {
                changed.0.push(customer.as_str());
                changed.1.push(*version);
                changed.2.push(*difference);
                changed.3.push(*total);
                changed.4.push(place);
            }
            Claim::Ended {
                redemption,
                status,
                points,
            } => {
                ended.0.push(redemption.as_str());
                ended.1.push(status.as_str());
                ended.2.push(*points);
                ended.3.push(place);
            }
            Claim::Unreadable => {}
        }
    }
    let sources: Vec<&str> = SourceKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let mut places: Vec<(i32,)> = sqlx::query_as(
        "SELECT place FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[])
                           AS w (customer, event, points, place)
         WHERE EXISTS (
             SELECT FROM transfers t
             WHERE t.source = ANY ($5) AND t.source_event_id = w.event AND t.leg = 'award'
               AND t.customer_id = w.customer AND t.amount = w.points)",
    )
    .bind(&rewarded.0)
    .bind(&rewarded.1)
    .bind(&rewarded.2)
    .bind(&rewarded.3)
    .bind(&sources)
    .fetch_all(pool)
    .await?;
    places.extend(
        sqlx::query_as::<_, (i32,)>(
            "SELECT place FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[])
                               AS w (customer, version, difference, total, place)
             JOIN transfers t ON (t.customer_id, t.customer_version) = (w.customer, w.version)
             WHERE t.leg IN ('award', 'bonus', 'credit', 'debit', 'settle', 'adjust')
               AND abs(w.difference) = t.amount
               AND (w.difference < 0) = (t.leg = 'settle' OR t.debit_account = 'AVAILABLE')
               AND w.total = t.available_after + t.held_after",
        )
        .bind(&changed.0)
        .bind(&changed.1)
        .bind(&changed.2)
        .bind(&changed.3)
        .bind(&changed.4)
        .fetch_all(pool)
        .await?,
    );
    places.extend(
        sqlx::query_as::<_, (i32,)>(
            "SELECT place FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[])
                               AS w (redemption, status, points, place)
             JOIN redemptions r ON r.redeem_request_id = w.redemption
             WHERE r.state = w.status AND r.points_deducted = w.points",
        )
        .bind(&ended.0)
        .bind(&ended.1)
        .bind(&ended.2)
        .bind(&ended.3)
        .fetch_all(pool)
        .await?,
    );
    for (place,) in places {
        if let Some(is_true) = usize::try_from(place).ok().and_then(|p| true_of.get_mut(p)) {
            *is_true = true;
        }
    }
    Ok(true_of)
}
