//! Clients that prove themselves with a secret, of which only the hash is here.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::Error;

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Client {
    /// Its id.
    pub client_id: String,
    /// The hash of its secret.
    pub secret_hash: String,
    /// What its tokens may allow.
    pub scopes: Vec<String>,
    /// The merchants it may act for; nothing for all of them.
    pub merchants: Option<Vec<String>>,
    /// Since when there is this client.
    pub created_at: DateTime<Utc>,
    /// Since when it has this secret.
    pub secret_changed_at: DateTime<Utc>,
    /// Since when it gets no tokens any more.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// Adds a client. Answers whether the id was free.
///
/// # Errors
/// What the database reports.
pub async fn add(
    conn: &mut PgConnection,
    client_id: &str,
    secret_hash: &str,
    scopes: &[String],
    merchants: Option<&[String]>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO clients (client_id, secret_hash, scopes, merchants) VALUES ($1, $2, $3, $4)
         ON CONFLICT (client_id) DO NOTHING",
    )
    .bind(client_id)
    .bind(secret_hash)
    .bind(scopes)
    .bind(merchants)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Reads a client.
///
/// # Errors
/// What the database reports.
pub async fn find(pool: &PgPool, client_id: &str) -> Result<Option<Client>, Error> {
    Ok(sqlx::query_as(
        "SELECT client_id, secret_hash, scopes, merchants, created_at, secret_changed_at,
                disabled_at
         FROM clients WHERE client_id = $1",
    )
    .bind(client_id)
    .fetch_optional(pool)
    .await?)
}

/// All clients, by id.
///
/// # Errors
/// What the database reports.
pub async fn list(pool: &PgPool) -> Result<Vec<Client>, Error> {
    Ok(sqlx::query_as(
        "SELECT client_id, secret_hash, scopes, merchants, created_at, secret_changed_at,
                disabled_at
         FROM clients ORDER BY client_id",
    )
    .fetch_all(pool)
    .await?)
}

/// From now on the client gets no tokens. Answers whether there is such a client.
///
/// # Errors
/// What the database reports.
pub async fn disable(conn: &mut PgConnection, client_id: &str) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE clients SET disabled_at = coalesce(disabled_at, clock_timestamp())
         WHERE client_id = $1",
    )
    .bind(client_id)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives the client another secret; the old one does not count any more. Answers whether there is
/// such a client.
///
/// # Errors
/// What the database reports.
pub async fn rotate_secret(
    conn: &mut PgConnection,
    client_id: &str,
    secret_hash: &str,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE clients SET secret_hash = $2, secret_changed_at = clock_timestamp()
         WHERE client_id = $1",
    )
    .bind(client_id)
    .bind(secret_hash)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
