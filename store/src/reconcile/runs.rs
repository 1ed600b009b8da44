//! Which runs there were, for people and alerts.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::Error;

/// A run that has ended.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Its workflow.
    pub workflow_id: &'a str,
    /// Its run.
    pub run_id: &'a str,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Whether it put right what is safe.
    pub repairs: bool,
    /// Whether every comparison came to its end.
    pub complete: bool,
    /// What each comparison found.
    pub report: serde_json::Value,
}

/// Records a run, once.
///
/// # Errors
/// What the database reports.
pub async fn record(pool: &PgPool, run: &Run<'_>) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO reconciliation_runs (workflow_id, run_id, started_at, repairs, complete, report)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(run.workflow_id)
    .bind(run.run_id)
    .bind(run.started_at)
    .bind(run.repairs)
    .bind(run.complete)
    .bind(&run.report)
    .execute(pool)
    .await?;
    Ok(())
}

/// When the last run ended in which every comparison came to its end.
///
/// # Errors
/// What the database reports.
pub async fn last_complete(pool: &PgPool) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(
        sqlx::query_scalar("SELECT max(ended_at) FROM reconciliation_runs WHERE complete")
            .fetch_one(pool)
            .await?,
    )
}
