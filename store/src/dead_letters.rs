//! Dead letters: written once for each refused message, and remembered when they are sent again.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    outbox::{self, OutboxMessage},
};

/// A refused message on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its identity: the same each time the same message is refused at the same place. At most 64
    /// characters.
    pub id: String,
    /// The topic it was read from.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The class it was refused with.
    pub class: &'static str,
    /// The dead letter that was replayed, when the message is a replay.
    pub replay_of: Option<String>,
    /// What is published.
    pub message: OutboxMessage,
}

/// One dead letter that was sent again and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The letter's identity.
    pub letter_id: String,
    /// Where the letter stands in the topic of dead letters.
    pub letter_place: String,
    /// The topic it was sent to.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset it got there.
    pub offset: i64,
}

/// What is remembered of a letter's replays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// How often it was sent again.
    pub times: i64,
    /// When it was last.
    pub at: DateTime<Utc>,
    /// By whom it was last.
    pub by: String,
    /// The class with which that last replay was refused, if it was.
    pub refused_again: Option<String>,
}

/// Writes the dead letters that have not been written yet.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "dead_letters.write", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn write(conn: &mut PgConnection, letters: &[DeadLetter]) -> Result<(), Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = letters.iter().map(|l| l.id.as_str()).collect();
    let topics: Vec<&str> = letters.iter().map(|l| l.topic.as_str()).collect();
    let partitions: Vec<i32> = letters.iter().map(|l| l.partition).collect();
    let offsets: Vec<i64> = letters.iter().map(|l| l.offset).collect();
    let classes: Vec<&str> = letters.iter().map(|l| l.class).collect();
    let replays: Vec<Option<&str>> = letters.iter().map(|l| l.replay_of.as_deref()).collect();
    let rows: Vec<(String,)> = sqlx::query_as(
        "INSERT INTO dead_letters
             (letter_id, source_topic, source_partition, source_offset, error_class, replay_of)
         SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[],
                              $6::text[])
         ON CONFLICT (letter_id) DO NOTHING
         RETURNING letter_id",
    )
    .bind(ids)
    .bind(topics)
    .bind(partitions)
    .bind(offsets)
    .bind(classes)
    .bind(replays)
    .fetch_all(&mut *conn)
    .await?;
    let mut new: HashSet<String> = rows.into_iter().map(|(id,)| id).collect();
    let messages: Vec<OutboxMessage> = letters
        .iter()
        .filter(|letter| new.remove(&letter.id))
        .map(|letter| letter.message.clone())
        .collect();
    outbox::write(conn, &messages).await
}

/// Remembers what was sent again.
///
/// # Errors
/// What the database reports.
pub async fn record_replays(
    conn: &mut PgConnection,
    by: &str,
    replays: &[Replay],
) -> Result<(), Error> {
    let ids: Vec<&str> = replays.iter().map(|r| r.letter_id.as_str()).collect();
    let places: Vec<&str> = replays.iter().map(|r| r.letter_place.as_str()).collect();
    let topics: Vec<&str> = replays.iter().map(|r| r.topic.as_str()).collect();
    let partitions: Vec<i32> = replays.iter().map(|r| r.partition).collect();
    let offsets: Vec<i64> = replays.iter().map(|r| r.offset).collect();
    sqlx::query(
        "INSERT INTO dead_letter_replays
             (letter_id, letter_place, sent_topic, sent_partition, sent_offset, replayed_by)
         SELECT letter_id, place, topic, partition, log_offset, $6
         FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[])
              WITH ORDINALITY AS r (letter_id, place, topic, partition, log_offset, position)
         ORDER BY position",
    )
    .bind(ids)
    .bind(places)
    .bind(topics)
    .bind(partitions)
    .bind(offsets)
    .bind(by)
    .execute(conn)
    .await?;
    Ok(())
}

/// What is remembered of the replays of these letters; nothing of those that had none.
///
/// # Errors
/// What the database reports.
pub async fn replayed(pool: &PgPool, ids: &[String]) -> Result<HashMap<String, Replayed>, Error> {
    type Row = (String, i64, DateTime<Utc>, String, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT r.letter_id, r.times, r.replayed_at, r.replayed_by,
                (SELECT d.error_class FROM dead_letters AS d
                 WHERE d.replay_of = r.letter_id AND d.source_topic = r.sent_topic
                   AND d.source_partition = r.sent_partition AND d.source_offset = r.sent_offset
                 LIMIT 1)
         FROM (SELECT DISTINCT ON (letter_id) *, count(*) OVER (PARTITION BY letter_id) AS times
               FROM dead_letter_replays WHERE letter_id = ANY($1)
               ORDER BY letter_id, replay_id DESC) AS r",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, times, at, by, refused_again)| {
            let replayed = Replayed {
                times,
                at,
                by,
                refused_again,
            };
            (id, replayed)
        })
        .collect())
}

/// Where a letter that was replayed stood when it was last.
///
/// # Errors
/// What the database reports.
pub async fn place_of(pool: &PgPool, letter_id: &str) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT letter_place FROM dead_letter_replays WHERE letter_id = $1
         ORDER BY replay_id DESC LIMIT 1",
    )
    .bind(letter_id)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(place,)| place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing, transaction};

    fn letter(id: &str, offset: i64, replay_of: Option<&str>) -> DeadLetter {
        DeadLetter {
            id: id.to_owned(),
            topic: "orders".to_owned(),
            partition: 1,
            offset,
            class: "DATA_ERROR",
            replay_of: replay_of.map(str::to_owned),
            message: OutboxMessage {
                topic: "dead-letter".to_owned(),
                key: None,
                headers: Vec::new(),
                body: id.as_bytes().to_vec(),
            },
        }
    }

    fn replay(letter_id: &str, offset: i64) -> Replay {
        Replay {
            letter_id: letter_id.to_owned(),
            letter_place: format!("0-{offset}"),
            topic: "orders".to_owned(),
            partition: 1,
            offset,
        }
    }

    async fn in_outbox(pool: &PgPool) -> Vec<Vec<u8>> {
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM outbox ORDER BY outbox_id")
            .fetch_all(pool)
            .await
            .expect("the outbox");
        rows.into_iter().map(|(body,)| body).collect()
    }

    #[tokio::test]
    async fn each_letter_is_written_once_and_new_ones_beside_it_in_order() {
        let database = testing::database().await;
        let mut conn = database.pool.acquire().await.expect("a connection");
        let (a, b, c) = (
            letter("a", 1, None),
            letter("b", 2, None),
            letter("c", 3, None),
        );
        write(&mut conn, std::slice::from_ref(&b))
            .await
            .expect("written");
        write(&mut conn, &[c.clone(), b.clone(), a.clone(), a.clone()])
            .await
            .expect("written");
        write(&mut conn, &[a, b, c]).await.expect("nothing is new");
        write(&mut conn, &[]).await.expect("nothing to write");
        let bodies = in_outbox(&database.pool).await;
        assert_eq!(bodies, [b"b".to_vec(), b"c".to_vec(), b"a".to_vec()]);
    }

    #[tokio::test]
    async fn a_letter_of_a_transaction_that_did_not_commit_is_written_the_next_time() {
        let database = testing::database().await;
        let letters = [letter("a", 1, None)];
        let mut lost = transaction::begin(&database.pool).await.expect("begun");
        write(&mut lost, &letters).await.expect("written");
        lost.rollback().await.expect("rolled back");
        assert!(in_outbox(&database.pool).await.is_empty());
        let mut conn = database.pool.acquire().await.expect("a connection");
        write(&mut conn, &letters).await.expect("written");
        assert_eq!(in_outbox(&database.pool).await.len(), 1);
    }

    #[tokio::test]
    async fn replays_are_remembered_with_what_became_of_the_last_one() {
        let database = testing::database().await;
        let mut conn = database.pool.acquire().await.expect("a connection");
        let ids = ["a", "b", "c"].map(str::to_owned);
        let known = replayed(&database.pool, &ids).await.expect("read");
        assert!(known.is_empty());

        record_replays(&mut conn, "me", &[replay("a", 10), replay("b", 11)])
            .await
            .expect("written");
        write(&mut conn, &[letter("a2", 10, Some("a"))])
            .await
            .expect("written");
        let known = replayed(&database.pool, &ids).await.expect("read");
        assert_eq!(known.len(), 2);
        assert_eq!(known["a"].refused_again.as_deref(), Some("DATA_ERROR"));
        assert_eq!((known["b"].times, known["b"].by.as_str()), (1, "me"));
        assert_eq!(known["b"].refused_again, None);

        record_replays(&mut conn, "you", &[replay("a", 12)])
            .await
            .expect("written");
        let known = replayed(&database.pool, &ids).await.expect("read");
        assert_eq!((known["a"].times, known["a"].by.as_str()), (2, "you"));
        assert_eq!(known["a"].refused_again, None, "the last one was not");
        let place = place_of(&database.pool, "a").await.expect("read");
        assert_eq!(place.as_deref(), Some("0-12"));
        let changed = sqlx::query("DELETE FROM dead_letter_replays")
            .execute(&database.pool)
            .await;
        assert!(changed.is_err(), "it is append-only");
    }
}
