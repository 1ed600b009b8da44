//! Emptying the outbox, shard by shard, in the order in which it was written.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use crate::{Error, outbox::OutboxMessage, transaction};

/// A message that waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the outbox.
    pub outbox_id: i64,
    /// What is to be published.
    pub message: OutboxMessage,
}

/// The front of one shard's queue. The shard is locked until this is dropped or marked, so that
/// nobody else publishes from it meanwhile.
pub struct ShardFront {
    transaction: Transaction<'static, Postgres>,
    /// The messages, in the order in which they must be published.
    pub messages: Vec<Waiting>,
}

type Row = (i64, String, Option<Vec<u8>>, serde_json::Value, Vec<u8>);

/// How much waits in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// How many messages wait.
    pub messages: i64,
    /// How long the oldest has waited, in seconds.
    pub oldest_age_seconds: f64,
}

/// The shards that have something to publish.
///
/// # Errors
/// What the database reports.
pub async fn waiting_shards(pool: &PgPool) -> Result<Vec<i16>, Error> {
    let rows: Vec<(i16,)> = sqlx::query_as(
        "SELECT shard FROM outbox_shards AS s
         WHERE EXISTS (SELECT 1 FROM outbox_state AS o
                       WHERE o.shard = s.shard AND o.published_at IS NULL)
         ORDER BY shard",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(shard,)| shard).collect())
}

/// Locks a shard and reads the front of its queue: at most `limit` messages and about `max_bytes`
/// of bodies, but at least one message. Nothing when somebody else holds the shard or it is empty.
///
/// # Errors
/// What the database reports.
pub async fn lock_front(
    pool: &PgPool,
    shard: i16,
    limit: i64,
    max_bytes: i64,
) -> Result<Option<ShardFront>, Error> {
    let mut transaction = transaction::begin(pool).await?;
    let held: Option<(i16,)> =
        sqlx::query_as("SELECT shard FROM outbox_shards WHERE shard = $1 FOR UPDATE SKIP LOCKED")
            .bind(shard)
            .fetch_optional(&mut *transaction)
            .await?;
    if held.is_none() {
        return Ok(None);
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT outbox_id, topic, message_key, headers, body
         FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY outbox_id) - octet_length(body)
                         AS bytes_before
               FROM (SELECT outbox_id FROM outbox_state
                     WHERE shard = $1 AND published_at IS NULL
                     ORDER BY outbox_id LIMIT $2) AS front
               JOIN outbox_messages USING (outbox_id)) AS front
         WHERE bytes_before < $3
         ORDER BY outbox_id",
    )
    .bind(shard)
    .bind(limit)
    .bind(max_bytes)
    .fetch_all(&mut *transaction)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let messages = rows
        .into_iter()
        .map(|(outbox_id, topic, key, headers, body)| {
            let headers = read_headers(headers)
                .map_err(|reason| Error::Inconsistent(format!("outbox {outbox_id}: {reason}")))?;
            Ok(Waiting {
                outbox_id,
                message: OutboxMessage {
                    topic,
                    key,
                    headers,
                    body,
                },
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(Some(ShardFront {
        transaction,
        messages,
    }))
}

impl ShardFront {
    /// Marks the first `count` messages as published and lets go of the shard.
    ///
    /// # Errors
    /// What the database reports. They are then published again.
    #[tracing::instrument(
        level = "debug", name = "relay.mark_published", skip_all,
        fields(otel.kind = "client", db.system.name = "postgresql")
    )]
    pub async fn mark_published(mut self, count: usize) -> Result<(), Error> {
        let ids: Vec<i64> = self
            .messages
            .iter()
            .take(count)
            .map(|m| m.outbox_id)
            .collect();
        if !ids.is_empty() {
            sqlx::query(
                "UPDATE outbox_state SET published_at = clock_timestamp()
                 WHERE outbox_id = ANY($1)",
            )
            .bind(&ids)
            .execute(&mut *self.transaction)
            .await?;
        }
        Ok(self.transaction.commit().await?)
    }
}

/// Marks what has not been published: the bug that [`faultpoint::bug::OUTBOX_MARK`] plants.
///
/// # Errors
/// What the database reports.
pub async fn mark_unpublished(pool: &PgPool, front: &ShardFront) -> Result<(), Error> {
    let ids: Vec<i64> = front.messages.iter().map(|m| m.outbox_id).collect();
    sqlx::query(
        "UPDATE outbox_state SET published_at = clock_timestamp() WHERE outbox_id = ANY($1)",
    )
    .bind(&ids)
    .execute(pool)
    .await?;
    Ok(())
}

/// Removes the messages that were published longer ago than `keep`, a bounded number at a time: how
/// many. What has not been published stays, however old.
///
/// Messages are looked at in the order in which they were written, which needs no index of its own;
/// it ends at the first that is younger than `keep`, since it cannot have been published before it
/// was written.
///
/// # Errors
/// What the database reports. What was removed until then stays removed.
pub async fn prune(pool: &PgPool, keep: Duration, at_a_time: u32) -> Result<u64, Error> {
    let (before,): (DateTime<Utc>,) =
        sqlx::query_as("SELECT clock_timestamp() - make_interval(secs => $1)")
            .bind(keep.as_secs_f64())
            .fetch_one(pool)
            .await?;
    let (mut after, mut removed) = (i64::MIN, 0);
    loop {
        let mut tx = transaction::begin(pool).await?;
        let (last, old_enough, gone): (Option<i64>, Option<bool>, i64) = sqlx::query_as(
            "WITH front AS (
                 SELECT outbox_id, created_at FROM outbox_messages WHERE outbox_id > $1
                 ORDER BY outbox_id LIMIT $2),
             gone AS (
                 DELETE FROM outbox_state AS s USING front
                 WHERE s.outbox_id = front.outbox_id AND s.published_at < $3
                 RETURNING s.outbox_id),
             messages AS (
                 DELETE FROM outbox_messages AS m USING gone WHERE m.outbox_id = gone.outbox_id)
             SELECT max(outbox_id), bool_and(created_at < $3), (SELECT count(*) FROM gone)
             FROM front",
        )
        .bind(after)
        .bind(i64::from(at_a_time))
        .bind(before)
        .fetch_one(&mut *tx)
        .await?;
        if gone > 0 {
            // Those who compare the ledger with the outbox look no further back than this.
            sqlx::query("UPDATE outbox_pruned SET pruned_before = $1 WHERE pruned_before < $1")
                .bind(before)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        removed += u64::try_from(gone).unwrap_or_default();
        match (last, old_enough) {
            (Some(last), Some(true)) => after = last,
            _ => return Ok(removed),
        }
    }
}

/// How much waits, for the metrics.
///
/// # Errors
/// What the database reports.
pub async fn backlog(pool: &PgPool) -> Result<Backlog, Error> {
    let (messages, oldest_age_seconds): (i64, f64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox_state WHERE published_at IS NULL),
                coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
         FROM outbox_shards AS s
         CROSS JOIN LATERAL (SELECT outbox_id FROM outbox_state AS o
                             WHERE o.shard = s.shard AND o.published_at IS NULL
                             ORDER BY outbox_id LIMIT 1) AS front
         JOIN outbox_messages USING (outbox_id)",
    )
    .fetch_one(pool)
    .await?;
    Ok(Backlog {
        messages,
        oldest_age_seconds,
    })
}

pub(crate) fn read_headers(headers: serde_json::Value) -> Result<Vec<(String, Vec<u8>)>, String> {
    let headers: Vec<(String, String)> =
        serde_json::from_value(headers).map_err(|e| format!("headers: {e}"))?;
    headers
        .into_iter()
        .map(|(name, value)| match BASE64_STANDARD.decode(value) {
            Ok(value) => Ok((name, value)),
            Err(e) => Err(format!("header {name}: {e}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outbox, testing};

    fn message(key: &str, body: &[u8]) -> OutboxMessage {
        OutboxMessage {
            topic: "t".to_owned(),
            key: Some(key.as_bytes().to_vec()),
            headers: vec![("h".to_owned(), vec![0, 255])],
            body: body.to_vec(),
        }
    }

    async fn wrote(messages: &[OutboxMessage]) -> testing::TestDatabase {
        let database = testing::database().await;
        let mut conn = database.pool.acquire().await.expect("a connection");
        outbox::write(&mut conn, messages).await.expect("written");
        database
    }

    #[tokio::test]
    async fn only_the_acknowledged_front_is_marked_and_the_rest_comes_again() {
        let messages = [message("c", b"1"), message("c", b"2"), message("c", b"3")];
        let database = wrote(&messages).await;
        let shards = waiting_shards(&database.pool).await.expect("shards");
        let [shard] = shards[..] else {
            panic!("one key is one shard: {shards:?}")
        };

        let front = lock_front(&database.pool, shard, 10, 1_000)
            .await
            .expect("read")
            .expect("some");
        let read: Vec<_> = front.messages.iter().map(|m| m.message.clone()).collect();
        assert_eq!(read, messages, "in order, with headers and key");
        let other = lock_front(&database.pool, shard, 10, 1_000)
            .await
            .expect("read");
        assert!(other.is_none(), "the shard is locked");
        front.mark_published(2).await.expect("marked");

        let front = lock_front(&database.pool, shard, 10, 1_000)
            .await
            .expect("read")
            .expect("some");
        assert_eq!(front.messages.len(), 1);
        assert_eq!(front.messages[0].message.body, b"3");
        front.mark_published(1).await.expect("marked");
        assert_eq!(
            waiting_shards(&database.pool).await.expect("shards"),
            Vec::<i16>::new()
        );
        assert_eq!(backlog(&database.pool).await.expect("backlog").messages, 0);
    }

    #[tokio::test]
    async fn a_front_is_bounded_in_messages_and_bytes_but_never_empty() {
        let messages = [
            message("c", &[1; 100]),
            message("c", &[2; 100]),
            message("c", &[3; 100]),
        ];
        let database = wrote(&messages).await;
        let shard = waiting_shards(&database.pool).await.expect("shards")[0];
        for (limit, max_bytes, expected) in [(2, 1_000, 2), (10, 1, 1), (10, 101, 2), (10, 300, 3)]
        {
            let front = lock_front(&database.pool, shard, limit, max_bytes)
                .await
                .expect("read")
                .expect("the shard is free");
            assert_eq!(front.messages.len(), expected, "{limit}, {max_bytes}");
            // Gives the lock back now; dropping it would only soon.
            front.mark_published(0).await.expect("none is marked");
        }
        assert_eq!(
            backlog(&database.pool).await.expect("backlog").messages,
            3,
            "none was marked"
        );
    }
}
