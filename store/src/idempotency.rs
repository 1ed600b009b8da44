//! Idempotency keys: one effect and one answer for a request that is sent several times.
//!
//! The key is written in the transaction of the effect. Its answer follows when it is known; a
//! request that died in between is taken over by its repetition once the lock has run out.

use std::time::Duration;

use sqlx::PgConnection;

use crate::Error;

/// Whose key of which route.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The client.
    pub client: &'a str,
    /// The route, without the values in it.
    pub route: &'a str,
    /// The key that the client chose.
    pub key: &'a str,
}

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: serde_json::Value,
    /// Headers that belong to the answer, by name.
    pub headers: serde_json::Value,
}

/// What a key means for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The request is the first one.
    New,
    /// It takes over from one that died, which may have had its effect.
    TakenOver,
    /// The same request has been answered.
    Answered(Answer),
    /// The same request is under way.
    Running,
    /// Another request came under this key.
    OtherBody,
}

#[derive(sqlx::FromRow)]
struct Row {
    body_hash: Vec<u8>,
    response_status: Option<i16>,
    response_body: Option<serde_json::Value>,
    response_headers: Option<serde_json::Value>,
}

/// Takes the key for a request whose body has this hash, or says who has it. `locked_for` is how
/// long the request may be under way, `ttl` how long the key is kept.
///
/// # Errors
/// [`Error::Raced`] when the key vanished while it was looked at; otherwise what the database
/// reports.
#[tracing::instrument(
    level = "debug", name = "idempotency.begin", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn begin(
    conn: &mut PgConnection,
    key: Key<'_>,
    body_hash: &[u8; 32],
    locked_for: Duration,
    ttl: Duration,
) -> Result<Begun, Error> {
    let took_over: Option<(bool,)> = sqlx::query_as(
        "INSERT INTO idempotency_keys AS held (client, route, key, body_hash, locked_until, expires_at)
         VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 second',
                 clock_timestamp() + $6 * interval '1 second')
         ON CONFLICT (client, route, key) DO UPDATE
         SET body_hash = excluded.body_hash, response_status = NULL, response_body = NULL,
             response_headers = NULL, locked_until = excluded.locked_until,
             created_at = CASE WHEN held.expires_at <= clock_timestamp() THEN excluded.created_at
                               ELSE held.created_at END,
             expires_at = excluded.expires_at
         WHERE held.expires_at <= clock_timestamp()
            OR (held.response_status IS NULL AND held.locked_until <= clock_timestamp()
                AND held.body_hash = excluded.body_hash)
         RETURNING created_at < transaction_timestamp()",
    )
    .bind(key.client)
    .bind(key.route)
    .bind(key.key)
    .bind(body_hash.as_slice())
    .bind(locked_for.as_secs_f64())
    .bind(ttl.as_secs_f64())
    .fetch_optional(&mut *conn)
    .await?;
    if let Some((took_over,)) = took_over {
        return Ok(if took_over {
            Begun::TakenOver
        } else {
            Begun::New
        });
    }
    find(conn, key, body_hash).await?.ok_or(Error::Raced)
}

/// What is known of a key, without taking it; nothing where nobody has it.
///
/// # Errors
/// What the database reports.
pub async fn find(
    conn: &mut PgConnection,
    key: Key<'_>,
    body_hash: &[u8; 32],
) -> Result<Option<Begun>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT body_hash, response_status, response_body, response_headers
         FROM idempotency_keys
         WHERE client = $1 AND route = $2 AND key = $3 AND expires_at > clock_timestamp()",
    )
    .bind(key.client)
    .bind(key.route)
    .bind(key.key)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    if row.body_hash != body_hash {
        return Ok(Some(Begun::OtherBody));
    }
    Ok(Some(match (row.response_status, row.response_body) {
        (Some(status), Some(body)) => Begun::Answered(Answer {
            status: u16::try_from(status)
                .map_err(|_| Error::Inconsistent(format!("{status} is not an HTTP status")))?,
            body,
            headers: row.response_headers.unwrap_or_default(),
        }),
        _ => Begun::Running,
    }))
}

/// Keeps the answer to the request that holds the key. The first answer stays.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "idempotency.finish", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn finish(conn: &mut PgConnection, key: Key<'_>, answer: &Answer) -> Result<(), Error> {
    let status = i16::try_from(answer.status)
        .map_err(|_| Error::Inconsistent(format!("{} is not an HTTP status", answer.status)))?;
    sqlx::query(
        "UPDATE idempotency_keys
         SET response_status = $4, response_body = $5, response_headers = $6
         WHERE client = $1 AND route = $2 AND key = $3 AND response_status IS NULL",
    )
    .bind(key.client)
    .bind(key.route)
    .bind(key.key)
    .bind(status)
    .bind(&answer.body)
    .bind(&answer.headers)
    .execute(conn)
    .await?;
    Ok(())
}
