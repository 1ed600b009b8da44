//! Where the next comparison begins.

use chrono::{DateTime, Utc};
use domain::Comparison;
use sqlx::PgPool;

use crate::Error;

/// The subject of a mark that stands for everything.
pub const EVERYTHING: &str = "";

/// How far a subject has been compared, as a position (excluded).
///
/// # Errors
/// What the database reports.
pub async fn position(
    pool: &PgPool,
    comparison: Comparison,
    subject: &str,
) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT position FROM reconciliation_marks WHERE comparison = $1 AND subject = $2",
    )
    .bind(comparison.as_str())
    .bind(subject)
    .fetch_optional(pool)
    .await?
    .flatten())
}

/// How far a subject has been compared, as an instant (excluded).
///
/// # Errors
/// What the database reports.
pub async fn reached(
    pool: &PgPool,
    comparison: Comparison,
    subject: &str,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT reached FROM reconciliation_marks WHERE comparison = $1 AND subject = $2",
    )
    .bind(comparison.as_str())
    .bind(subject)
    .fetch_optional(pool)
    .await?
    .flatten())
}

/// Moves a mark to a position. It may go back: a topic that was made anew begins again.
///
/// # Errors
/// What the database reports.
pub async fn set_position(
    pool: &PgPool,
    comparison: Comparison,
    subject: &str,
    position: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO reconciliation_marks (comparison, subject, position) VALUES ($1, $2, $3)
         ON CONFLICT (comparison, subject) DO UPDATE
         SET position = $3, reached = NULL, updated_at = clock_timestamp()",
    )
    .bind(comparison.as_str())
    .bind(subject)
    .bind(position)
    .execute(pool)
    .await?;
    Ok(())
}

/// Moves a mark to an instant, never back.
///
/// # Errors
/// What the database reports.
pub async fn set_reached(
    pool: &PgPool,
    comparison: Comparison,
    subject: &str,
    reached: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO reconciliation_marks (comparison, subject, reached) VALUES ($1, $2, $3)
         ON CONFLICT (comparison, subject) DO UPDATE
         SET reached = greatest(reconciliation_marks.reached, $3), position = NULL,
             updated_at = clock_timestamp()",
    )
    .bind(comparison.as_str())
    .bind(subject)
    .bind(reached)
    .execute(pool)
    .await?;
    Ok(())
}
