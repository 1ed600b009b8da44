//! Redemptions: the row is the state machine. Every step locks it, changes it only from the
//! states it may be changed from, and returns where it stands, so that a step that runs again,
//! late, or beside another changes nothing that it should not.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    CustomerId, MerchantId, OrderId, Points, RedeemRequestId,
    command::RedeemRequest,
    message::{PointsAdded, RedeemConfirmed},
    redemption::{BUILT_IN_MERCHANT, FailureReason, PartnerVerdict, RedemptionState, may_release},
};
use faultpoint::bug;
use sqlx::{PgConnection, PgPool};

use crate::{
    Error, callbacks,
    ledger::points,
    outbox::{self, OutboxMessage},
    trace, transaction,
};

/// The ledger source of everything a redemption does.
pub const SOURCE: &str = "redeem";

/// By which road a redemption came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `POST /api/v1/redeem`.
    Http,
    /// The topic `redeem-events`.
    Kafka,
    /// `POST /loyalty`, at the built-in merchant.
    Loyalty,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Http, Self::Kafka, Self::Loyalty];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Kafka => "KAFKA",
            Self::Loyalty => "LOYALTY",
        }
    }
}

/// A redemption's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The client's id of it.
    pub redeem_request_id: RedeemRequestId,
    /// The customer.
    pub customer_id: CustomerId,
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The order at the merchant.
    pub order_id: OrderId,
    /// The points asked for.
    pub points: Points,
    /// By which road it came.
    pub origin: Origin,
    /// Where it stands.
    pub state: RedemptionState,
    /// Why it failed.
    pub reason: Option<FailureReason>,
    /// What the partner has finally said.
    pub verdict: Option<PartnerVerdict>,
    /// The partner's confirmation id or reason, as it gave it.
    pub partner_detail: Option<String>,
    /// Whether the client took it back.
    pub cancel_requested: bool,
    /// The id under which the partner calls back.
    pub callback_id: Option<String>,
    /// When the hold's time is up.
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// Points deducted.
    pub points_deducted: Points,
    /// The available balance when it ended.
    pub balance_after: Option<Points>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// The trace in which it was accepted, as W3C's `traceparent`.
    pub traceparent: Option<String>,
    /// Whether it was the step that returned this that ended it.
    pub ended_now: bool,
}

impl Redemption {
    fn ended_now(self) -> Self {
        Self {
            ended_now: true,
            ..self
        }
    }
}

/// The columns of [`Row`] by name: a version that runs while a migration adds another one goes on.
macro_rules! columns {
    () => {
        "redeem_request_id, customer_id, merchant_id, order_id, points, origin, state, reason,
         partner_verdict, partner_detail, cancel_requested_at, callback_id, hold_expires_at,
         points_deducted, balance_after, created_at, updated_at, traceparent"
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    redeem_request_id: String,
    customer_id: String,
    merchant_id: String,
    order_id: String,
    points: i64,
    origin: String,
    state: String,
    reason: Option<String>,
    partner_verdict: Option<String>,
    partner_detail: Option<String>,
    cancel_requested_at: Option<DateTime<Utc>>,
    callback_id: Option<String>,
    hold_expires_at: Option<DateTime<Utc>>,
    points_deducted: i64,
    balance_after: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    traceparent: Option<String>,
}

impl TryFrom<Row> for Redemption {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable = |what: &str| {
            Error::Inconsistent(format!("redemption {}: {what}", row.redeem_request_id))
        };
        Ok(Self {
            customer_id: CustomerId::new(row.customer_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
            merchant_id: MerchantId::new(row.merchant_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
            order_id: OrderId::new(row.order_id.clone()).map_err(|e| unreadable(&e.to_string()))?,
            points: points(row.points)?,
            origin: Origin::ALL
                .into_iter()
                .find(|origin| origin.as_str() == row.origin)
                .ok_or_else(|| unreadable(&row.origin))?,
            state: RedemptionState::parse(&row.state).ok_or_else(|| unreadable(&row.state))?,
            reason: row
                .reason
                .as_deref()
                .map(|name| FailureReason::parse(name).ok_or_else(|| unreadable(name)))
                .transpose()?,
            verdict: row
                .partner_verdict
                .as_deref()
                .map(|name| PartnerVerdict::parse(name).ok_or_else(|| unreadable(name)))
                .transpose()?,
            partner_detail: row.partner_detail.clone(),
            cancel_requested: row.cancel_requested_at.is_some(),
            callback_id: row.callback_id.clone(),
            hold_expires_at: row.hold_expires_at,
            points_deducted: points(row.points_deducted)?,
            balance_after: row.balance_after.map(points).transpose()?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            traceparent: row.traceparent,
            ended_now: false,
            redeem_request_id: RedeemRequestId::new(row.redeem_request_id.clone())
                .map_err(|e| unreadable(&e.to_string()))?,
        })
    }
}

/// What became of a request to redeem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A new redemption, QUEUED.
    New,
    /// The same request had been accepted before.
    Same,
    /// The id had been used with another body.
    Conflict,
}

/// Writes the rows of new redemptions, QUEUED. One answer for each request, in order.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.accept", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn accept(
    conn: &mut PgConnection,
    requests: &[RedeemRequest],
    origin: Origin,
) -> Result<Vec<Accepted>, Error> {
    let ids: Vec<&str> = requests
        .iter()
        .map(|r| r.redeem_request_id.as_str())
        .collect();
    let hashes: Vec<Vec<u8>> = requests.iter().map(|r| r.body_hash().to_vec()).collect();
    // The first of several with one id wins, in input order; whoever holds the id already wins
    // over all of them.
    let inserted: Vec<(String,)> = sqlx::query_as(
        "INSERT INTO redemptions (redeem_request_id, body_hash, customer_id, merchant_id, order_id,
                points, origin, requested_at, traceparent)
         SELECT DISTINCT ON (id) id, hash, customer, merchant, order_id, points, $8, requested_at, $9
         FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                     $7::timestamptz[]) WITH ORDINALITY
              AS r (id, hash, customer, merchant, order_id, points, requested_at, position)
         ORDER BY id, position
         ON CONFLICT DO NOTHING
         RETURNING redeem_request_id",
    )
    .bind(&ids)
    .bind(&hashes)
    .bind(
        requests
            .iter()
            .map(|r| r.customer_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        requests
            .iter()
            .map(|r| r.merchant_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        requests
            .iter()
            .map(|r| r.order_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(requests.iter().map(|r| r.points.get()).collect::<Vec<_>>())
    .bind(requests.iter().map(|r| r.requested_at).collect::<Vec<_>>())
    .bind(origin.as_str())
    .bind(trace::current())
    .fetch_all(&mut *conn)
    .await?;
    if inserted.len() == requests.len() {
        return Ok(vec![Accepted::New; requests.len()]);
    }
    let stored: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT redeem_request_id, body_hash FROM redemptions WHERE redeem_request_id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(conn)
    .await?;
    let stored: std::collections::HashMap<String, Vec<u8>> = stored.into_iter().collect();
    let mut new: std::collections::HashSet<String> = inserted.into_iter().map(|(id,)| id).collect();
    ids.iter()
        .zip(&hashes)
        .map(|(id, hash)| match stored.get(*id) {
            Some(held) if held != hash => Ok(Accepted::Conflict),
            Some(_) if new.remove(*id) => Ok(Accepted::New),
            Some(_) => Ok(Accepted::Same),
            None => Err(Error::Raced),
        })
        .collect()
}

/// Reads a redemption.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.find", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn find(
    conn: &mut PgConnection,
    id: &RedeemRequestId,
) -> Result<Option<Redemption>, Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM redemptions WHERE redeem_request_id = $1"
    ))
    .bind(id.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(Redemption::try_from).transpose()
}

async fn lock(conn: &mut PgConnection, id: &RedeemRequestId) -> Result<Redemption, Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM redemptions WHERE redeem_request_id = $1 FOR UPDATE"
    ))
    .bind(id.as_str())
    .fetch_optional(conn)
    .await?;
    row.ok_or_else(|| Error::not_found("redemption", id.as_str()))?
        .try_into()
}

async fn current(conn: &mut PgConnection, id: &RedeemRequestId) -> Result<Redemption, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("redemption", id.as_str()))
}

/// Holds the points: QUEUED becomes RESERVED, or FAILED when there are too few, the merchant is
/// unknown, or the client has taken it back. In any other state it changes nothing. The callback
/// id is minted here, in the transaction before anybody can be told of it.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.reserve", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn reserve(
    pool: &PgPool,
    id: &RedeemRequestId,
    hold_ttl: Duration,
    is_known: impl Fn(&MerchantId) -> bool + Send,
) -> Result<Redemption, Error> {
    let mut tx = transaction::begin(pool).await?;
    let row = lock(&mut tx, id).await?;
    if row.state != RedemptionState::Queued {
        return Ok(row);
    }
    let account = lock_customer(&mut tx, &row.customer_id).await?;
    // The built-in merchant is there for `POST /loyalty` alone: for others there is no such one.
    let merchant_is_known = is_known(&row.merchant_id)
        && (row.origin == Origin::Loyalty || row.merchant_id.as_str() != BUILT_IN_MERCHANT);
    let refusal = if row.cancel_requested {
        Some(FailureReason::Cancelled)
    } else if !merchant_is_known {
        Some(FailureReason::UnknownMerchant)
    } else if account.available < row.points {
        Some(FailureReason::InsufficientPoints)
    } else {
        None
    };
    if let Some(reason) = refusal {
        fail(&mut tx, &row, reason, account.available, account.version).await?;
        let row = current(&mut tx, id).await?;
        transaction::commit(tx, "reserve").await?;
        return Ok(row.ended_now());
    }
    move_points(&mut tx, &row, Leg::Hold).await?;
    let expires_at = Utc::now()
        + chrono::Duration::from_std(hold_ttl)
            .map_err(|e| Error::Inconsistent(format!("hold time limit: {e}")))?;
    let callback_id = callbacks::mint();
    callbacks::write(
        &mut tx,
        &callbacks::NewCallback {
            callback_id: &callback_id,
            workflow_id: id.as_str(),
            subject: id.as_str(),
            merchant_id: Some(&row.merchant_id),
            expires_at,
        },
    )
    .await?;
    let row: Row = sqlx::query_as(concat!(
        "UPDATE redemptions SET state = 'RESERVED', hold_expires_at = $2, callback_id = $3,
                updated_at = clock_timestamp()
         WHERE redeem_request_id = $1
         RETURNING ",
        columns!()
    ))
    .bind(id.as_str())
    .bind(expires_at)
    .bind(&callback_id)
    .fetch_one(&mut *tx)
    .await?;
    transaction::commit(tx, "reserve").await?;
    row.try_into()
}

/// Records that the partner is about to be asked: RESERVED becomes CONFIRMING, unless the client
/// has taken it back. Committed before any call, because from here on only the partner's word
/// frees the points.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.begin_confirm", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn begin_confirm(pool: &PgPool, id: &RedeemRequestId) -> Result<Redemption, Error> {
    faultpoint::reach("confirming", "before-commit");
    let row = change(
        pool,
        id,
        concat!(
            "UPDATE redemptions SET state = 'CONFIRMING', confirming_at = clock_timestamp(),
                updated_at = clock_timestamp()
         WHERE redeem_request_id = $1 AND state = 'RESERVED' AND cancel_requested_at IS NULL
         RETURNING ",
            columns!()
        ),
    )
    .await?;
    faultpoint::reach("confirming", "after-commit");
    Ok(row)
}

/// Records that the partner will call back: CONFIRMING becomes AWAITING_CALLBACK.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.await_callback", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn await_callback(pool: &PgPool, id: &RedeemRequestId) -> Result<Redemption, Error> {
    change(
        pool,
        id,
        concat!(
            "UPDATE redemptions SET state = 'AWAITING_CALLBACK',
                awaiting_callback_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE redeem_request_id = $1 AND state = 'CONFIRMING'
         RETURNING ",
            columns!()
        ),
    )
    .await
}

/// Carries out an update that returns the row; the row as it stands where nothing was updated.
async fn change(
    pool: &PgPool,
    id: &RedeemRequestId,
    update: &'static str,
) -> Result<Redemption, Error> {
    let mut conn = pool.acquire().await?;
    let changed: Option<Row> = sqlx::query_as(update)
        .bind(id.as_str())
        .fetch_optional(&mut *conn)
        .await?;
    match changed {
        Some(row) => row.try_into(),
        None => current(&mut conn, id).await,
    }
}

/// Records the client's wish to take it back, unless it has ended. Runs in the caller's
/// transaction, beside the audit record.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.request_cancel", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn request_cancel(
    conn: &mut PgConnection,
    id: &RedeemRequestId,
) -> Result<Redemption, Error> {
    sqlx::query(
        "UPDATE redemptions
         SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
             updated_at = clock_timestamp()
         WHERE redeem_request_id = $1 AND state NOT IN ('SUCCESS', 'FAILED')",
    )
    .bind(id.as_str())
    .execute(&mut *conn)
    .await?;
    current(conn, id).await
}

/// Records what the partner finally said, as long as the redemption has not ended. VOIDED is
/// stronger than anything before it, since the partner will never confirm after it; nothing else
/// replaces a verdict.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.record_verdict", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn record_verdict(
    conn: &mut PgConnection,
    id: &RedeemRequestId,
    verdict: PartnerVerdict,
    detail: Option<&str>,
) -> Result<Redemption, Error> {
    sqlx::query(
        "UPDATE redemptions SET partner_verdict = $2, partner_detail = $3,
                partner_said_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE redeem_request_id = $1 AND state NOT IN ('SUCCESS', 'FAILED')
           AND (partner_verdict IS NULL OR ($2 = 'VOIDED' AND partner_verdict <> 'VOIDED'))",
    )
    .bind(id.as_str())
    .bind(verdict.as_str())
    .bind(detail)
    .execute(&mut *conn)
    .await?;
    current(conn, id).await
}

/// Deducts the held points: CONFIRMING or AWAITING_CALLBACK becomes SUCCESS. Changes nothing when
/// the row has ended, when the partner is recorded not to deliver, or when the client has taken
/// it back, unless `beyond_cancel` says that the partner cannot undo it.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.settle", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn settle(
    pool: &PgPool,
    id: &RedeemRequestId,
    confirmation_id: Option<&str>,
    beyond_cancel: bool,
) -> Result<Redemption, Error> {
    let mut tx = transaction::begin(pool).await?;
    let row = lock(&mut tx, id).await?;
    let declined = row.verdict.is_some_and(PartnerVerdict::frees_points);
    let changes_nothing =
        !row.state.partner_may_know() || declined || (row.cancel_requested && !beyond_cancel);
    if changes_nothing && !faultpoint::planted(bug::HOLD_GUARD) {
        return Ok(row);
    }
    lock_customer(&mut tx, &row.customer_id).await?;
    let after = move_points(&mut tx, &row, Leg::Settle).await?;
    let now = Utc::now();
    let settled: Row = sqlx::query_as(concat!(
        "UPDATE redemptions
         SET state = 'SUCCESS', partner_verdict = 'CONFIRMED',
             partner_detail = coalesce($2, partner_detail),
             partner_said_at = coalesce(partner_said_at, statement_timestamp()),
             points_deducted = points, balance_after = $3, updated_at = clock_timestamp()
         WHERE redeem_request_id = $1
         RETURNING ",
        columns!()
    ))
    .bind(id.as_str())
    .bind(confirmation_id)
    .bind(after.available.get())
    .fetch_one(&mut *tx)
    .await?;
    let answer = RedeemConfirmed {
        redeem_request_id: id.to_string(),
        customer_id: row.customer_id.clone(),
        points_deducted: row.points,
        balance_after: after.available,
        status: RedemptionState::Success,
        reason: None,
        timestamp: now,
    };
    let change = PointsAdded {
        user_id: row.customer_id.clone(),
        total_points: after.available.saturating_add(after.held),
        difference: -row.points.get(),
    };
    let messages = [
        OutboxMessage::redeem_confirmed(&answer, after.version)?,
        OutboxMessage::points_added(&change, after.version, now)?,
    ];
    outbox::write(&mut tx, &messages).await?;
    transaction::commit(tx, "settle").await?;
    Ok(Redemption::try_from(settled)?.ended_now())
}

/// Gives the held points back: RESERVED becomes FAILED, and CONFIRMING or AWAITING_CALLBACK only
/// once the partner is recorded not to deliver. Otherwise it changes nothing: asked to release a
/// SUCCESS, the answer is SUCCESS.
///
/// # Errors
/// [`Error::NotFound`] without a row; otherwise what the database reports.
#[tracing::instrument(
    level = "debug", name = "redemptions.release", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn release(
    pool: &PgPool,
    id: &RedeemRequestId,
    reason: FailureReason,
) -> Result<Redemption, Error> {
    let mut tx = transaction::begin(pool).await?;
    let row = lock(&mut tx, id).await?;
    if !may_release(row.state, row.verdict) && !faultpoint::planted(bug::HOLD_GUARD) {
        return Ok(row);
    }
    lock_customer(&mut tx, &row.customer_id).await?;
    let after = move_points(&mut tx, &row, Leg::Release).await?;
    fail(&mut tx, &row, reason, after.available, after.version).await?;
    let row = current(&mut tx, id).await?;
    transaction::commit(tx, "release").await?;
    Ok(row.ended_now())
}

async fn fail(
    conn: &mut PgConnection,
    row: &Redemption,
    reason: FailureReason,
    available: Points,
    version: i64,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE redemptions SET state = 'FAILED', reason = $2, balance_after = $3,
                updated_at = clock_timestamp()
         WHERE redeem_request_id = $1",
    )
    .bind(row.redeem_request_id.as_str())
    .bind(reason.as_str())
    .bind(available.get())
    .execute(&mut *conn)
    .await?;
    let answer = RedeemConfirmed {
        redeem_request_id: row.redeem_request_id.to_string(),
        customer_id: row.customer_id.clone(),
        points_deducted: Points::ZERO,
        balance_after: available,
        status: RedemptionState::Failed,
        reason: Some(reason),
        timestamp: Utc::now(),
    };
    outbox::write(conn, &[OutboxMessage::redeem_confirmed(&answer, version)?]).await
}

struct Account {
    available: Points,
    held: Points,
    version: i64,
}

/// Locks the customer's row; a customer without an account has nothing.
async fn lock_customer(conn: &mut PgConnection, customer: &CustomerId) -> Result<Account, Error> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT available, held, version FROM customers WHERE customer_id = $1 FOR UPDATE",
    )
    .bind(customer.as_str())
    .fetch_optional(conn)
    .await?;
    let (available, held, version) = row.unwrap_or_default();
    Ok(Account {
        available: points(available)?,
        held: points(held)?,
        version,
    })
}

#[derive(Clone, Copy)]
enum Leg {
    Hold,
    Settle,
    Release,
}

/// One transfer of the redemption's points, and the customer's balance after it.
async fn move_points(
    conn: &mut PgConnection,
    row: &Redemption,
    leg: Leg,
) -> Result<Account, Error> {
    let amount = row.points.get();
    let (name, debit, credit, available_change, held_change) = match leg {
        Leg::Hold => ("hold", "AVAILABLE", "HELD", -amount, amount),
        Leg::Settle => ("settle", "HELD", "SETTLEMENT", 0, -amount),
        Leg::Release => ("release", "HELD", "AVAILABLE", amount, -amount),
    };
    let merchant = matches!(leg, Leg::Settle).then_some(row.merchant_id.as_str());
    let (available, held, version): (i64, i64, i64) = sqlx::query_as(
        "WITH account AS (
             UPDATE customers SET available = available + $4, held = held + $5,
                    version = version + 1, updated_at = clock_timestamp()
             WHERE customer_id = $1
             RETURNING available, held, version
         ), transfer AS (
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                    customer_id, merchant_id, amount, reason, workflow_id, customer_version,
                    available_after, held_after, occurred_at)
             SELECT $6, $2, $3, $7::account_kind, $8::account_kind, $1, $9, $10, 'REDEMPTION', $2,
                    version, available, held, clock_timestamp()
             FROM account
         )
         SELECT available, held, version FROM account",
    )
    .bind(row.customer_id.as_str())
    .bind(row.redeem_request_id.as_str())
    .bind(name)
    .bind(available_change)
    .bind(held_change)
    .bind(SOURCE)
    .bind(debit)
    .bind(credit)
    .bind(merchant)
    .bind(amount)
    .fetch_one(conn)
    .await?;
    Ok(Account {
        available: points(available)?,
        held: points(held)?,
        version,
    })
}

/// Records that the flow of a redemption that has not ended has been started, or was found open: it is
/// looked at again after all others.
///
/// # Errors
/// What the database reports.
pub async fn mark_started(pool: &PgPool, id: &RedeemRequestId) -> Result<(), Error> {
    sqlx::query(
        "UPDATE redemptions SET started_at = clock_timestamp()
         WHERE redeem_request_id = $1 AND state NOT IN ('SUCCESS', 'FAILED')",
    )
    .bind(id.as_str())
    .execute(pool)
    .await?;
    Ok(())
}

/// Redemptions whose flow may need to be started: QUEUED, untouched for `queued_for` and not known
/// to have been started, or not ended and neither touched nor looked at for `stale_for`. Those first
/// for which that is longest, at most `limit`.
///
/// # Errors
/// What the database reports.
pub async fn to_start(
    pool: &PgPool,
    queued_for: Duration,
    stale_for: Duration,
    limit: i64,
) -> Result<Vec<Redemption>, Error> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM redemptions
         WHERE state NOT IN ('SUCCESS', 'FAILED')
           AND CASE WHEN state = 'QUEUED' AND started_at IS NULL
               THEN updated_at < clock_timestamp() - $1 * interval '1 second'
               ELSE greatest(updated_at, started_at) < clock_timestamp() - $2 * interval '1 second'
               END
         ORDER BY greatest(updated_at, started_at) LIMIT $3"
    ))
    .bind(queued_for.as_secs_f64())
    .bind(stale_for.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Redemption::try_from).collect()
}

/// Whether the customer has that many points now, or the request has been accepted before. A look,
/// not a lock: the reserve decides.
///
/// # Errors
/// What the database reports.
pub async fn could_be_accepted(
    conn: &mut PgConnection,
    request: &RedeemRequest,
) -> Result<bool, Error> {
    let (could_be,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM customers WHERE customer_id = $2 AND available >= $3)
             OR EXISTS (SELECT FROM redemptions WHERE redeem_request_id = $1)",
    )
    .bind(request.redeem_request_id.as_str())
    .bind(request.customer_id.as_str())
    .bind(request.points.get())
    .fetch_one(conn)
    .await?;
    Ok(could_be)
}

/// Redemptions that the client took back at least `age` ago and that have not ended. Oldest wish
/// first, at most `limit`.
///
/// # Errors
/// What the database reports.
pub async fn cancelled_and_open(
    pool: &PgPool,
    age: Duration,
    limit: i64,
) -> Result<Vec<RedeemRequestId>, Error> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT redeem_request_id FROM redemptions
         WHERE state NOT IN ('SUCCESS', 'FAILED')
           AND cancel_requested_at <= clock_timestamp() - $1 * interval '1 second'
         ORDER BY cancel_requested_at LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(id,)| {
            RedeemRequestId::new(id).map_err(|e| Error::Inconsistent(format!("redemption: {e}")))
        })
        .collect()
}

/// How many holds have outlived their limit: their flows are voiding at a merchant that does not
/// answer, or have been cut off.
///
/// # Errors
/// What the database reports.
pub async fn holds_over_limit(pool: &PgPool) -> Result<i64, Error> {
    let (count,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM redemptions
         WHERE state NOT IN ('SUCCESS', 'FAILED') AND hold_expires_at < clock_timestamp()",
    )
    .fetch_one(pool)
    .await?;
    Ok(count)
}

/// Redemptions of one state that have not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Open {
    /// Where they stand.
    pub state: RedemptionState,
    /// How many there are.
    pub count: i64,
    /// How long ago the oldest of them was accepted, in seconds.
    pub oldest_age_seconds: f64,
}

/// What has not ended, for the metrics: one entry for each state before the end.
///
/// # Errors
/// What the database reports.
pub async fn open(pool: &PgPool) -> Result<Vec<Open>, Error> {
    let rows: Vec<(String, i64, f64)> = sqlx::query_as(
        "SELECT state, count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float8
         FROM redemptions WHERE state NOT IN ('SUCCESS', 'FAILED') GROUP BY state",
    )
    .fetch_all(pool)
    .await?;
    let of = |state: &RedemptionState| {
        let row = rows.iter().find(|(name, ..)| name == state.as_str());
        Open {
            state: *state,
            count: row.map_or(0, |(_, count, _)| *count),
            oldest_age_seconds: row.map_or(0.0, |(.., age)| *age),
        }
    };
    let open = RedemptionState::ALL
        .iter()
        .filter(|state| !state.is_final());
    Ok(open.map(of).collect())
}
