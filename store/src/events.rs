//! Events that come over HTTP. They are not counted here: they go through the outbox to the topic
//! that partners write to themselves, and are taken in from there like all others.

use domain::{command::Award, inbound::topic};
use sqlx::PgConnection;

use crate::{
    Error,
    outbox::{self, OutboxMessage},
};

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is new and on its way.
    New,
    /// The same event was accepted or counted before, by whichever road it came.
    Same,
    /// The id came before with another body.
    Conflict,
}

/// Accepts an event whose message is `body`, unless it is known. Runs in the caller's transaction,
/// beside the idempotency key and the audit record.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "events.accept", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn accept(
    conn: &mut PgConnection,
    award: &Award,
    body: &[u8],
) -> Result<Accepted, Error> {
    let hash = award.body_hash();
    let same = |known: Vec<u8>| {
        if known == hash {
            Accepted::Same
        } else {
            Accepted::Conflict
        }
    };
    let counted: Option<(Vec<u8>,)> = sqlx::query_as(
        "SELECT body_hash FROM processed_events WHERE source = $1 AND event_id = $2",
    )
    .bind(award.source.as_str())
    .bind(award.event_id.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    if let Some((known,)) = counted {
        return Ok(same(known));
    }
    // Of two at once, the second waits here until the first has been committed.
    let new = sqlx::query(
        "INSERT INTO accepted_events (source, event_id, body_hash) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(award.source.as_str())
    .bind(award.event_id.as_str())
    .bind(hash.as_slice())
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if new == 0 {
        let (known,): (Vec<u8>,) = sqlx::query_as(
            "SELECT body_hash FROM accepted_events WHERE source = $1 AND event_id = $2",
        )
        .bind(award.source.as_str())
        .bind(award.event_id.as_str())
        .fetch_one(conn)
        .await?;
        return Ok(same(known));
    }
    let message = OutboxMessage {
        topic: topic::REWARD_EVENTS.to_owned(),
        key: Some(award.customer_id.as_str().as_bytes().to_vec()),
        headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
        body: body.to_vec(),
    };
    outbox::write(conn, &[message]).await?;
    Ok(Accepted::New)
}
