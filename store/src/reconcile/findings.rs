//! What did not agree. The same disagreement is one row for as long as it lasts, so that it is
//! news once.

use chrono::{DateTime, Utc};
use domain::Comparison;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use crate::{Error, audit, transaction};

/// The action of audit records about findings that were accepted.
const ACCEPT: &str = "reconcile.accept";

/// A disagreement, as a comparison meets it. Comparison, kind and subject make it the same one.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Which comparison met it.
    pub comparison: Comparison,
    /// What kind it is, such as `EVENT_MISSING`.
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// What does not agree, in words.
    pub detail: String,
    /// The command that would put it right.
    pub fix: String,
    /// When the thing that it is about happened, where that is known.
    pub happened_at: Option<DateTime<Utc>>,
    /// What is needed to look at it again.
    pub evidence: serde_json::Value,
}

/// A disagreement that lasts.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its number, by which it can be accepted.
    pub finding_id: i64,
    /// Which comparison met it.
    pub comparison: String,
    /// What kind it is.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What does not agree, in words.
    pub detail: String,
    /// The command that would put it right.
    pub fix: String,
    /// When the thing that it is about happened, where that is known.
    pub happened_at: Option<DateTime<Utc>>,
    /// What is needed to look at it again.
    pub evidence: serde_json::Value,
    /// When it was first met.
    pub first_seen: DateTime<Utc>,
    /// When it was last met.
    pub last_seen: DateTime<Utc>,
}

/// What became of a disagreement that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It was not known before.
    New,
    /// It had been met before and lasts.
    Known,
    /// Somebody has accepted it.
    Accepted,
}

/// Notes a disagreement that stays.
///
/// # Errors
/// What the database reports.
pub async fn note(pool: &PgPool, found: &Found, seen_at: DateTime<Utc>) -> Result<Noted, Error> {
    let accepted: Option<(i64,)> = sqlx::query_as(
        "SELECT finding_id FROM reconciliation_findings
         WHERE comparison = $1 AND kind = $2 AND subject = $3 AND resolution = 'ACCEPTED' LIMIT 1",
    )
    .bind(found.comparison.as_str())
    .bind(found.kind)
    .bind(&found.subject)
    .fetch_optional(pool)
    .await?;
    if accepted.is_some() {
        return Ok(Noted::Accepted);
    }
    let (new,): (bool,) = sqlx::query_as(
        "INSERT INTO reconciliation_findings (comparison, kind, subject, detail, fix, happened_at,
                evidence, first_seen, last_seen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         ON CONFLICT (comparison, kind, subject) WHERE resolved_at IS NULL DO UPDATE
         SET detail = $4, fix = $5, happened_at = $6, evidence = $7,
             last_seen = greatest(reconciliation_findings.last_seen, $8)
         RETURNING xmax = 0",
    )
    .bind(found.comparison.as_str())
    .bind(found.kind)
    .bind(&found.subject)
    .bind(&found.detail)
    .bind(&found.fix)
    .bind(found.happened_at)
    .bind(&found.evidence)
    .bind(seen_at)
    .fetch_one(pool)
    .await?;
    Ok(if new { Noted::New } else { Noted::Known })
}

/// Notes a disagreement that was met and put right at once, or puts an end to the one that was
/// open.
///
/// # Errors
/// What the database reports.
pub async fn note_repaired(
    pool: &PgPool,
    found: &Found,
    seen_at: DateTime<Utc>,
) -> Result<(), Error> {
    let mut tx = transaction::begin(pool).await?;
    let ended = sqlx::query(
        "UPDATE reconciliation_findings
         SET resolved_at = clock_timestamp(), resolution = 'REPAIRED',
             last_seen = greatest(last_seen, $4)
         WHERE comparison = $1 AND kind = $2 AND subject = $3 AND resolved_at IS NULL",
    )
    .bind(found.comparison.as_str())
    .bind(found.kind)
    .bind(&found.subject)
    .bind(seen_at)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if ended == 0 {
        sqlx::query(
            "INSERT INTO reconciliation_findings (comparison, kind, subject, detail, fix,
                    happened_at, evidence, first_seen, last_seen, resolved_at, resolution)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, clock_timestamp(), 'REPAIRED')",
        )
        .bind(found.comparison.as_str())
        .bind(found.kind)
        .bind(&found.subject)
        .bind(&found.detail)
        .bind(&found.fix)
        .bind(found.happened_at)
        .bind(&found.evidence)
        .bind(seen_at)
        .execute(&mut *tx)
        .await?;
    }
    Ok(tx.commit().await?)
}

/// What is open, of one comparison or of all, oldest first.
///
/// # Errors
/// What the database reports.
pub async fn open(pool: &PgPool, of: Option<Comparison>) -> Result<Vec<Finding>, Error> {
    Ok(sqlx::query_as(
        "SELECT finding_id, comparison, kind, subject, detail, fix, happened_at, evidence,
                first_seen, last_seen
         FROM reconciliation_findings
         WHERE resolved_at IS NULL AND ($1::text IS NULL OR comparison = $1)
         ORDER BY finding_id",
    )
    .bind(of.map(Comparison::as_str))
    .fetch_all(pool)
    .await?)
}

/// Says that an open finding lasts although it could not be looked at.
///
/// # Errors
/// What the database reports.
pub async fn keep(pool: &PgPool, finding_id: i64, seen_at: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query(
        "UPDATE reconciliation_findings SET last_seen = greatest(last_seen, $2)
         WHERE finding_id = $1",
    )
    .bind(finding_id)
    .bind(seen_at)
    .execute(pool)
    .await?;
    Ok(())
}

/// Ends what was open and was not met by the run that began at `seen_at`: of these kinds, and,
/// where the run looked at a window only, no older than `from`.
///
/// # Errors
/// What the database reports.
pub async fn end_unseen(
    pool: &PgPool,
    comparison: Comparison,
    kinds: &[&str],
    seen_at: DateTime<Utc>,
    from: Option<DateTime<Utc>>,
) -> Result<u64, Error> {
    Ok(sqlx::query(
        "UPDATE reconciliation_findings SET resolved_at = clock_timestamp(), resolution = 'GONE'
         WHERE comparison = $1 AND kind = ANY($2) AND resolved_at IS NULL AND last_seen < $3
           AND ($4::timestamptz IS NULL OR happened_at IS NULL OR happened_at >= $4)",
    )
    .bind(comparison.as_str())
    .bind(kinds)
    .bind(seen_at)
    .bind(from)
    .execute(pool)
    .await?
    .rows_affected())
}

/// How many findings are open, by comparison.
///
/// # Errors
/// What the database reports.
pub async fn open_counts(pool: &PgPool) -> Result<Vec<(Comparison, i64)>, Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT comparison, count(*) FROM reconciliation_findings
         WHERE resolved_at IS NULL GROUP BY comparison",
    )
    .fetch_all(pool)
    .await?;
    Ok(Comparison::ALL
        .into_iter()
        .map(|comparison| {
            let of = |(name, _): &&(String, i64)| name == comparison.as_str();
            (
                comparison,
                rows.iter().find(of).map_or(0, |(_, count)| *count),
            )
        })
        .collect())
}

/// Accepts an open finding: it is not reported again. With an audit record.
///
/// # Errors
/// [`Error::NotFound`] when no finding of this number is open; otherwise what the database
/// reports.
pub async fn accept(
    pool: &PgPool,
    finding_id: i64,
    actor: &str,
    reason: &str,
) -> Result<Finding, Error> {
    let mut tx = transaction::begin(pool).await?;
    let finding: Option<Finding> = sqlx::query_as(
        "UPDATE reconciliation_findings
         SET resolved_at = clock_timestamp(), resolution = 'ACCEPTED', note = $2
         WHERE finding_id = $1 AND resolved_at IS NULL
         RETURNING finding_id, comparison, kind, subject, detail, fix, happened_at, evidence,
                   first_seen, last_seen",
    )
    .bind(finding_id)
    .bind(reason)
    .fetch_optional(&mut *tx)
    .await?;
    let finding =
        finding.ok_or_else(|| Error::not_found("open finding", finding_id.to_string()))?;
    let change = audit::Change {
        actor,
        action: ACCEPT,
        subject: &finding.subject,
        request_id: &format!("finding-{finding_id}"),
        address: None,
        detail: record(&finding, reason),
    };
    audit::write(&mut tx, &change).await?;
    tx.commit().await?;
    Ok(finding)
}

/// Which open findings are accepted together: those of a kind that happened before an instant. One
/// of which it is not known when it happened is never among them.
#[derive(Debug, Clone, Copy)]
pub struct Together<'a> {
    /// The kind.
    pub kind: &'a str,
    /// The first instant; from the beginning when it is left out.
    pub since: Option<DateTime<Utc>>,
    /// The instant before which they happened.
    pub until: DateTime<Utc>,
    /// Whether also those are meant that may be points lost or given twice.
    pub including_points: bool,
}

/// Who accepts, and why.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance<'a> {
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
    /// What the audit records of one acceptance have in common.
    pub request_id: &'a str,
}

/// What became of findings that were to be accepted together.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Those that are not reported again.
    pub accepted: Vec<Finding>,
    /// Those that stay open, because they may be points lost or given twice.
    pub left_open: Vec<Finding>,
}

#[derive(sqlx::FromRow)]
struct Chosen {
    #[sqlx(flatten)]
    finding: Finding,
    is_posted_since: bool,
}

async fn choose(conn: &mut PgConnection, together: Together<'_>) -> Result<Accepted, Error> {
    let chosen: Vec<Chosen> = sqlx::query_as(
        "WITH chosen AS MATERIALIZED (
             SELECT * FROM reconciliation_findings
             WHERE resolved_at IS NULL AND kind = $1 AND happened_at < $2
               AND ($3::timestamptz IS NULL OR happened_at >= $3)
             FOR UPDATE),
         told AS (
             SELECT evidence ->> 'customer' AS customer, evidence -> 'difference' AS difference,
                    count(DISTINCT (evidence -> 'version', evidence -> 'total')) AS times,
                    min(happened_at) AS since
             FROM chosen WHERE evidence ->> 'says' = 'changed' GROUP BY 1, 2),
         posted_since AS (
             SELECT customer, difference FROM told
             WHERE times <= (
                 SELECT count(*) FROM transfers t
                 WHERE t.customer_id = told.customer AND t.posted_at > told.since
                   AND told.difference = to_jsonb(
                       CASE WHEN credit_account IN ('AVAILABLE', 'HELD') THEN amount ELSE 0 END
                       - CASE WHEN debit_account IN ('AVAILABLE', 'HELD') THEN amount ELSE 0 END)))
         SELECT finding_id, comparison, kind, subject, detail, fix, happened_at, evidence,
                first_seen, last_seen,
                coalesce(evidence ->> 'says' = 'changed'
                         AND (evidence ->> 'customer', evidence -> 'difference')
                             IN (TABLE posted_since), false) AS is_posted_since
         FROM chosen ORDER BY finding_id",
    )
    .bind(together.kind)
    .bind(together.until)
    .bind(together.since)
    .fetch_all(conn)
    .await?;
    let (accepted, left_open): (Vec<Chosen>, Vec<Chosen>) = chosen
        .into_iter()
        .partition(|chosen| chosen.is_posted_since || together.including_points);
    let findings = |chosen: Vec<Chosen>| chosen.into_iter().map(|c| c.finding).collect();
    Ok(Accepted {
        accepted: findings(accepted),
        left_open: findings(left_open),
    })
}

/// What [`accept_together`] would do; nothing is changed.
///
/// # Errors
/// What the database reports.
pub async fn would_accept(pool: &PgPool, together: Together<'_>) -> Result<Accepted, Error> {
    choose(&mut *transaction::begin(pool).await?, together).await
}

/// Accepts open findings together: they are not reported again. With an audit record for each.
///
/// Unless it is asked for, only such findings are accepted of which the ledger itself shows that no
/// point is missing and none too many. That can be so for one kind of claim: that a customer's
/// total changed, where the ledger has since posted as many changes of this size for this customer
/// as were told. A ledger that was restored posts the same events again in another order, so what
/// was told before names totals that it never has.
///
/// # Errors
/// What the database reports.
pub async fn accept_together(
    pool: &PgPool,
    together: Together<'_>,
    acceptance: Acceptance<'_>,
) -> Result<Accepted, Error> {
    let mut tx = transaction::begin(pool).await?;
    let chosen = choose(&mut tx, together).await?;
    let ids: Vec<i64> = chosen.accepted.iter().map(|f| f.finding_id).collect();
    sqlx::query(
        "UPDATE reconciliation_findings
         SET resolved_at = clock_timestamp(), resolution = 'ACCEPTED', note = $2
         WHERE finding_id = ANY ($1)",
    )
    .bind(ids)
    .bind(acceptance.reason)
    .execute(&mut *tx)
    .await?;
    let changes: Vec<audit::Change<'_>> = chosen
        .accepted
        .iter()
        .map(|finding| audit::Change {
            actor: acceptance.actor,
            action: ACCEPT,
            subject: &finding.subject,
            request_id: acceptance.request_id,
            address: None,
            detail: record(finding, acceptance.reason),
        })
        .collect();
    audit::write_all(&mut tx, &changes).await?;
    tx.commit().await?;
    Ok(chosen)
}

/// What the audit record keeps of a finding that was accepted.
fn record(finding: &Finding, reason: &str) -> serde_json::Value {
    serde_json::json!({
        "finding": finding.finding_id, "kind": finding.kind, "detail": finding.detail,
        "reason": reason
    })
}
