//! The audit record: who changed what, when, from where. Written in the transaction of the change.

use sqlx::PgConnection;

use crate::Error;

/// One change.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Who.
    pub actor: &'a str,
    /// What was done, such as `redeem.request`.
    pub action: &'a str,
    /// To what: the id of the thing.
    pub subject: &'a str,
    /// In which request.
    pub request_id: &'a str,
    /// From which address.
    pub address: Option<&'a str>,
    /// What else there is to know.
    pub detail: serde_json::Value,
}

/// Writes the record.
///
/// # Errors
/// What the database reports.
pub async fn write(conn: &mut PgConnection, change: &Change<'_>) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO audit_records (actor, action, subject, request_id, address, detail)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(change.actor)
    .bind(change.action)
    .bind(change.subject)
    .bind(change.request_id)
    .bind(change.address)
    .bind(&change.detail)
    .execute(conn)
    .await?;
    Ok(())
}
