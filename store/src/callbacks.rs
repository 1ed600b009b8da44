//! Callbacks: unguessable ids that are answered once and expire.
//!
//! The answer is stored here first and signalled afterwards; the flow reads it from here.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{MerchantId, RedeemRequestId, redemption::PartnerVerdict};
use rand::Rng;
use sqlx::{PgConnection, PgPool};

use crate::{Error, redemptions};

/// Whom a callback wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A merchant's late answer to a redemption.
    Partner,
    /// The acknowledgement of a tier upgrade's notification.
    TierUpgrade,
}

/// A callback that was promised to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Its id.
    pub callback_id: String,
    /// Whom it wakes.
    pub kind: Kind,
    /// The workflow to signal.
    pub workflow_id: String,
    /// The redeem request id or the tier order id.
    pub subject: String,
    /// The merchant whose signature it needs.
    pub merchant_id: Option<String>,
    /// Until when it may be answered.
    pub expires_at: DateTime<Utc>,
    /// The answer it was given.
    pub answer: Option<String>,
}

type Row = (
    String,
    String,
    String,
    String,
    Option<String>,
    DateTime<Utc>,
    Option<String>,
);

fn callback(row: Row) -> Callback {
    let (callback_id, kind, workflow_id, subject, merchant_id, expires_at, answer) = row;
    let kind = if kind == "PARTNER" {
        Kind::Partner
    } else {
        Kind::TierUpgrade
    };
    Callback {
        callback_id,
        kind,
        workflow_id,
        subject,
        merchant_id,
        expires_at,
        answer,
    }
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// Stored now; the workflow with this id is to be signalled.
    First {
        /// The workflow.
        workflow_id: String,
    },
    /// The same answer had been given before.
    Again {
        /// The workflow.
        workflow_id: String,
    },
    /// Another answer had been given before.
    Different,
    /// Its time is up.
    Expired,
    /// There is no such callback.
    Unknown,
}

pub(crate) struct NewCallback<'a> {
    pub callback_id: &'a str,
    pub workflow_id: &'a str,
    pub subject: &'a str,
    pub merchant_id: Option<&'a MerchantId>,
    pub expires_at: DateTime<Utc>,
}

/// A new callback id: 192 random bits from the operating system's generator, in hexadecimal.
pub(crate) fn mint() -> String {
    let mut bytes = [0_u8; 24];
    rand::rng().fill_bytes(&mut bytes);
    bytes
        .iter()
        .fold(String::with_capacity(48), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
}

pub(crate) async fn write(
    conn: &mut PgConnection,
    callback: &NewCallback<'_>,
) -> Result<(), Error> {
    let kind = if callback.merchant_id.is_some() {
        "PARTNER"
    } else {
        "TIER_UPGRADE"
    };
    sqlx::query(
        "INSERT INTO callbacks (callback_id, kind, workflow_id, subject, merchant_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(callback.callback_id)
    .bind(kind)
    .bind(callback.workflow_id)
    .bind(callback.subject)
    .bind(callback.merchant_id.map(MerchantId::as_str))
    .bind(callback.expires_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Reads a callback, such as to learn whose signature it needs.
///
/// # Errors
/// What the database reports.
pub async fn find(conn: &mut PgConnection, callback_id: &str) -> Result<Option<Callback>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT callback_id, kind, workflow_id, subject, merchant_id, expires_at, answer
         FROM callbacks WHERE callback_id = $1",
    )
    .bind(callback_id)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(callback))
}

/// Stores the acknowledger's answer to a tier upgrade's notification.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "callbacks.answer_tier_upgrade", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn answer_tier_upgrade(
    conn: &mut PgConnection,
    callback_id: &str,
    success: bool,
) -> Result<Answered, Error> {
    let answer = if success { "SUCCESS" } else { "FAILURE" };
    store(conn, callback_id, Kind::TierUpgrade, answer, None)
        .await
        .map(|(answered, _)| answered)
}

/// Stores a merchant's late answer, and the verdict in the redemption's row with it. The answer
/// is CONFIRMED or REFUSED.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "callbacks.answer_partner", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn answer_partner(
    conn: &mut PgConnection,
    callback_id: &str,
    verdict: PartnerVerdict,
    detail: Option<&str>,
) -> Result<Answered, Error> {
    if contradicts(conn, callback_id, verdict).await? {
        sqlx::query("UPDATE callbacks SET late_answer = $2 WHERE callback_id = $1")
            .bind(callback_id)
            .bind(verdict.as_str())
            .execute(conn)
            .await?;
        return Ok(Answered::Expired);
    }
    let (answered, subject) =
        store(conn, callback_id, Kind::Partner, verdict.as_str(), detail).await?;
    if let (Answered::First { .. }, Some(subject)) = (&answered, subject) {
        let id = RedeemRequestId::new(subject).map_err(|e| Error::Inconsistent(e.to_string()))?;
        redemptions::record_verdict(conn, &id, verdict, detail).await?;
    }
    Ok(answered)
}

/// Whether the redemption has come to an end, or been voided, that the answer speaks against.
async fn contradicts(
    conn: &mut PgConnection,
    callback_id: &str,
    verdict: PartnerVerdict,
) -> Result<bool, Error> {
    let row: Option<(String, Option<String>)> = sqlx::query_as(
        "SELECT state, partner_verdict FROM redemptions WHERE callback_id = $1 FOR UPDATE",
    )
    .bind(callback_id)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some_and(|(state, recorded)| {
        let voided = recorded.as_deref() == Some(PartnerVerdict::Voided.as_str());
        match verdict {
            PartnerVerdict::Confirmed => state == "FAILED" || voided,
            PartnerVerdict::Refused | PartnerVerdict::Voided => state == "SUCCESS",
        }
    }))
}

async fn store(
    conn: &mut PgConnection,
    callback_id: &str,
    kind: Kind,
    answer: &str,
    detail: Option<&str>,
) -> Result<(Answered, Option<String>), Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT callback_id, kind, workflow_id, subject, merchant_id, expires_at, answer
         FROM callbacks WHERE callback_id = $1 FOR UPDATE",
    )
    .bind(callback_id)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(found) = row.map(callback).filter(|found| found.kind == kind) else {
        return Ok((Answered::Unknown, None));
    };
    let workflow_id = found.workflow_id;
    match found.answer.as_deref() {
        Some(given) if given == answer => return Ok((Answered::Again { workflow_id }, None)),
        Some(_) => return Ok((Answered::Different, None)),
        None if found.expires_at <= Utc::now() => return Ok((Answered::Expired, None)),
        None => {}
    }
    sqlx::query(
        "UPDATE callbacks SET answer = $2, answer_body = $3, answered_at = clock_timestamp()
         WHERE callback_id = $1",
    )
    .bind(callback_id)
    .bind(answer)
    .bind(detail.map(|detail| serde_json::json!({ "detail": detail })))
    .execute(conn)
    .await?;
    Ok((Answered::First { workflow_id }, Some(found.subject)))
}

/// Callbacks that were answered at least `age` ago and whose workflow has not been signalled.
///
/// # Errors
/// What the database reports.
pub async fn unsignalled(pool: &PgPool, age: Duration, limit: i64) -> Result<Vec<Callback>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT callback_id, kind, workflow_id, subject, merchant_id, expires_at, answer
         FROM callbacks
         WHERE answered_at IS NOT NULL AND signalled_at IS NULL
           AND answered_at < clock_timestamp() - $1 * interval '1 second'
         ORDER BY answered_at LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(callback).collect())
}

/// Records that the workflow has been signalled, or has no need of it any more.
///
/// # Errors
/// What the database reports.
pub async fn mark_signalled(pool: &PgPool, callback_id: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE callbacks SET signalled_at = clock_timestamp()
         WHERE callback_id = $1 AND signalled_at IS NULL",
    )
    .bind(callback_id)
    .execute(pool)
    .await?;
    Ok(())
}
