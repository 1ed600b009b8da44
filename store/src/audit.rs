//! The audit record: who changed what, when, from where. Written in the transaction of the change.

use chrono::{DateTime, Utc};
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

/// Writes the records of many changes.
///
/// # Errors
/// What the database reports.
pub async fn write_all(conn: &mut PgConnection, changes: &[Change<'_>]) -> Result<(), Error> {
    let actors: Vec<&str> = changes.iter().map(|c| c.actor).collect();
    let actions: Vec<&str> = changes.iter().map(|c| c.action).collect();
    let subjects: Vec<&str> = changes.iter().map(|c| c.subject).collect();
    let requests: Vec<&str> = changes.iter().map(|c| c.request_id).collect();
    let addresses: Vec<Option<&str>> = changes.iter().map(|c| c.address).collect();
    let details: Vec<&serde_json::Value> = changes.iter().map(|c| &c.detail).collect();
    sqlx::query(
        "INSERT INTO audit_records (actor, action, subject, request_id, address, detail)
         SELECT actor, action, subject, request_id, address, detail
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[])
              WITH ORDINALITY
              AS c (actor, action, subject, request_id, address, detail, position)
         ORDER BY position",
    )
    .bind(actors)
    .bind(actions)
    .bind(subjects)
    .bind(requests)
    .bind(addresses)
    .bind(details)
    .execute(conn)
    .await?;
    Ok(())
}

/// One change as it was recorded.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Record {
    /// The record's id.
    pub audit_id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// In which request.
    pub request_id: String,
    /// From which address.
    pub address: Option<String>,
    /// What else there is to know.
    pub detail: serde_json::Value,
}

/// Which records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// By whom.
    pub actor: Option<&'a str>,
    /// What was done.
    pub action: Option<&'a str>,
    /// To what.
    pub subject: Option<&'a str>,
    /// Not before this instant.
    pub from: Option<DateTime<Utc>>,
    /// Before this instant.
    pub to: Option<DateTime<Utc>>,
}

/// The newest `limit` records that pass the filter and lie before a place, newest first. A place is
/// the instant and id of a record.
///
/// # Errors
/// What the database reports.
pub async fn page(
    conn: &mut PgConnection,
    filter: Filter<'_>,
    before: Option<(DateTime<Utc>, i64)>,
    limit: i64,
) -> Result<Vec<Record>, Error> {
    let mut query = sqlx::QueryBuilder::new(
        "SELECT audit_id, at, actor, action, subject, request_id, address, detail
         FROM audit_records WHERE true",
    );
    for (column, wanted) in [
        (" AND actor = ", filter.actor),
        (" AND action = ", filter.action),
        (" AND subject = ", filter.subject),
    ] {
        if let Some(wanted) = wanted {
            query.push(column).push_bind(wanted);
        }
    }
    if let Some(from) = filter.from {
        query.push(" AND at >= ").push_bind(from);
    }
    if let Some(to) = filter.to {
        query.push(" AND at < ").push_bind(to);
    }
    if let Some((at, id)) = before {
        query.push(" AND (at, audit_id) < (").push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query
        .push(" ORDER BY at DESC, audit_id DESC LIMIT ")
        .push_bind(limit);
    Ok(query.build_query_as().fetch_all(conn).await?)
}
