//! Whether the database can be worked with.

use sqlx::PgPool;

use crate::Error;

/// Asks the database for something that only one with the schema has.
///
/// # Errors
/// What the database reports.
pub async fn check(pool: &PgPool) -> Result<(), Error> {
    sqlx::query("SELECT 1 FROM audit_records LIMIT 1")
        .execute(pool)
        .await?;
    Ok(())
}
