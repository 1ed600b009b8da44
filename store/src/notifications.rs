//! What players are told. A player's notifications are numbered from 1, under the lock of the
//! player's inbox, so that they become visible in the order of their numbers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{CustomerId, Notification as New};
use sqlx::{
    PgConnection, PgPool,
    postgres::{PgListener, PgPoolOptions},
};

use crate::Error;

/// Where PostgreSQL tells who has got notifications.
const CHANNEL: &str = "meed_notifications";
/// The most bytes in one message of PostgreSQL's: it takes fewer than 8,000.
const TOLD_MAX_BYTES: usize = 7_900;

/// A notification as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Notification {
    /// Its number among the player's own.
    pub notification_id: i64,
    /// What it is about.
    pub kind: String,
    /// What it says: a JSON object, as its sender wrote it.
    pub content: String,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// Whether the player has marked it as read.
    pub read: bool,
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is new, and stored.
    New,
    /// The same one had been stored before.
    Same,
    /// Another one with the same identity had been stored before.
    Conflict,
}

/// Stores those that are new, and tells the replicas of the api whose they are once the transaction
/// is committed. One answer for each notification, in order.
///
/// # Errors
/// [`Error::Raced`] when another transaction has just stored one with the same identity for another
/// player; otherwise what the database reports.
pub async fn write(conn: &mut PgConnection, notifications: &[New]) -> Result<Vec<Stored>, Error> {
    let mut last_ids = lock_inboxes(conn, notifications).await?;
    let mut known = hashes(conn, notifications).await?;
    let mut answers = Vec::with_capacity(notifications.len());
    let mut new: Vec<(&New, i64, Vec<u8>)> = Vec::new();
    for notification in notifications {
        let hash = notification.body_hash().to_vec();
        answers.push(match known.get(&notification.identity) {
            Some(held) if *held == hash => Stored::Same,
            Some(_) => Stored::Conflict,
            None => {
                let last_id = last_ids
                    .get_mut(notification.user_id.as_str())
                    .ok_or(Error::Raced)?;
                *last_id += 1;
                known.insert(notification.identity.clone(), hash.clone());
                new.push((notification, *last_id, hash));
                Stored::New
            }
        });
    }
    if new.is_empty() {
        return Ok(answers);
    }
    let users = |(notification, ..): &(&New, i64, Vec<u8>)| notification.user_id.to_string();
    let inserted = sqlx::query(
        "INSERT INTO notifications (user_id, notification_id, identity, body_hash, kind, content)
         SELECT user_id, notification_id, identity, body_hash, kind, content::json
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::text[])
              AS n (user_id, notification_id, identity, body_hash, kind, content)
         ON CONFLICT ON CONSTRAINT notifications_once DO NOTHING",
    )
    .bind(new.iter().map(users).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, id, _)| *id).collect::<Vec<_>>())
    .bind(
        new.iter()
            .map(|(notification, ..)| notification.identity.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        new.iter()
            .map(|(_, _, hash)| hash.as_slice())
            .collect::<Vec<_>>(),
    )
    .bind(
        new.iter()
            .map(|(notification, ..)| notification.kind.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        new.iter()
            .map(|(notification, ..)| notification.content.as_str())
            .collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() != new.len() as u64 {
        return Err(Error::Raced);
    }
    let mut told: Vec<String> = new.iter().map(users).collect();
    told.sort_unstable();
    told.dedup();
    let new_last_ids: Vec<i64> = told.iter().map(|user| last_ids[user]).collect();
    sqlx::query(
        "UPDATE notification_inboxes AS i SET last_id = n.last_id
         FROM unnest($1::text[], $2::bigint[]) AS n (user_id, last_id)
         WHERE i.user_id = n.user_id",
    )
    .bind(&told)
    .bind(new_last_ids)
    .execute(&mut *conn)
    .await?;
    sqlx::query("SELECT pg_notify($1, users) FROM unnest($2::text[]) AS users")
        .bind(CHANNEL)
        .bind(in_messages(&told))
        .execute(conn)
        .await?;
    Ok(answers)
}

/// Locks the inboxes of the players, and answers with the numbers of their newest notifications.
async fn lock_inboxes(
    conn: &mut PgConnection,
    notifications: &[New],
) -> Result<HashMap<String, i64>, Error> {
    let users: Vec<&str> = notifications.iter().map(|n| n.user_id.as_str()).collect();
    sqlx::query(
        "INSERT INTO notification_inboxes (user_id)
         SELECT DISTINCT user_id FROM unnest($1::text[]) AS user_id ORDER BY user_id
         ON CONFLICT DO NOTHING",
    )
    .bind(&users)
    .execute(&mut *conn)
    .await?;
    let last_ids: Vec<(String, i64)> = sqlx::query_as(
        "SELECT user_id, last_id FROM notification_inboxes WHERE user_id = ANY($1)
         ORDER BY user_id FOR UPDATE",
    )
    .bind(&users)
    .fetch_all(conn)
    .await?;
    Ok(last_ids.into_iter().collect())
}

/// The hashes of those that are stored already, by identity.
async fn hashes(
    conn: &mut PgConnection,
    notifications: &[New],
) -> Result<HashMap<String, Vec<u8>>, Error> {
    let identities: Vec<&str> = notifications.iter().map(|n| n.identity.as_str()).collect();
    let stored: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT identity, body_hash FROM notifications WHERE identity = ANY($1)")
            .bind(identities)
            .fetch_all(conn)
            .await?;
    Ok(stored.into_iter().collect())
}

/// The players, a line each, in as few messages as they fit into. No id has a line break.
fn in_messages(users: &[String]) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for user in users {
        match messages.last_mut() {
            Some(message) if message.len() + 1 + user.len() <= TOLD_MAX_BYTES => {
                message.push('\n');
                message.push_str(user);
            }
            _ => messages.push(user.clone()),
        }
    }
    messages
}

/// Who has got notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// These players.
    For(Vec<String>),
    /// Perhaps anybody: the connection was lost for a moment.
    Unknown,
}

/// Hears of notifications as they are committed, on a connection of its own. What is heard is only
/// that there is something to read.
pub struct Arrivals(PgListener);

impl Arrivals {
    /// Begins to listen, on the database of the pool.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn listen(pool: &PgPool) -> Result<Self, Error> {
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// Waits for the next arrival.
    ///
    /// # Errors
    /// What the database reports; then it is to be begun anew.
    pub async fn next(&mut self) -> Result<Arrival, Error> {
        Ok(match self.0.try_recv().await? {
            Some(told) => Arrival::For(told.payload().lines().map(str::to_owned).collect()),
            None => Arrival::Unknown,
        })
    }
}

/// The number of the player's newest notification; 0 when there has never been one.
///
/// # Errors
/// What the database reports.
pub async fn last_id(pool: &PgPool, user: &CustomerId) -> Result<i64, Error> {
    let last_id: Option<(i64,)> =
        sqlx::query_as("SELECT last_id FROM notification_inboxes WHERE user_id = $1")
            .bind(user.as_str())
            .fetch_optional(pool)
            .await?;
    Ok(last_id.map_or(0, |(last_id,)| last_id))
}

/// The same of several players; nothing of those who were never told anything.
///
/// # Errors
/// What the database reports.
pub async fn last_ids(pool: &PgPool, users: &[&str]) -> Result<Vec<(String, i64)>, Error> {
    Ok(
        sqlx::query_as("SELECT user_id, last_id FROM notification_inboxes WHERE user_id = ANY($1)")
            .bind(users)
            .fetch_all(pool)
            .await?,
    )
}

/// The player's notifications after this number, oldest first: at most `limit`, and no more once
/// their contents have `max_bytes`.
///
/// # Errors
/// What the database reports.
pub async fn after(
    pool: &PgPool,
    user: &CustomerId,
    number: i64,
    limit: u32,
    max_bytes: u32,
) -> Result<Vec<Notification>, Error> {
    Ok(sqlx::query_as(
        "SELECT notification_id, kind, content, created_at, read
         FROM (SELECT *, sum(octet_length(content)) OVER before_it AS bytes_before
               FROM (SELECT notification_id, kind, content::text, created_at,
                            read_at IS NOT NULL AS read
                     FROM notifications WHERE user_id = $1 AND notification_id > $2
                     ORDER BY notification_id LIMIT $3) AS front
               WINDOW before_it AS (ORDER BY notification_id
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS measured
         WHERE coalesce(bytes_before, 0) < $4
         ORDER BY notification_id",
    )
    .bind(user.as_str())
    .bind(number)
    .bind(i64::from(limit))
    .bind(i64::from(max_bytes))
    .fetch_all(pool)
    .await?)
}

/// The player's notifications before this number, newest first: at most `limit`, of all or of those
/// that are unread.
///
/// # Errors
/// What the database reports.
pub async fn page(
    pool: &PgPool,
    user: &CustomerId,
    unread: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Notification>, Error> {
    // The index of unread ones serves only where the statement says so.
    let query = if unread {
        "SELECT notification_id, kind, content::text, created_at, false AS read
         FROM notifications WHERE user_id = $1 AND notification_id < $2 AND read_at IS NULL
         ORDER BY notification_id DESC LIMIT $3"
    } else {
        "SELECT notification_id, kind, content::text, created_at, read_at IS NOT NULL AS read
         FROM notifications WHERE user_id = $1 AND notification_id < $2
         ORDER BY notification_id DESC LIMIT $3"
    };
    Ok(sqlx::query_as(query)
        .bind(user.as_str())
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(pool)
        .await?)
}

/// What became of marking a notification as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is done.
    Now,
    /// It had been done.
    Before,
    /// The player has no such notification.
    Unknown,
}

/// Marks a notification as read.
///
/// # Errors
/// What the database reports.
pub async fn mark_read(
    conn: &mut PgConnection,
    user: &CustomerId,
    number: i64,
) -> Result<Marked, Error> {
    let marked = sqlx::query(
        "UPDATE notifications SET read_at = clock_timestamp()
         WHERE user_id = $1 AND notification_id = $2 AND read_at IS NULL",
    )
    .bind(user.as_str())
    .bind(number)
    .execute(&mut *conn)
    .await?;
    if marked.rows_affected() > 0 {
        return Ok(Marked::Now);
    }
    let (known,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM notifications WHERE user_id = $1 AND notification_id = $2)",
    )
    .bind(user.as_str())
    .bind(number)
    .fetch_one(conn)
    .await?;
    Ok(if known {
        Marked::Before
    } else {
        Marked::Unknown
    })
}

/// Marks all of the player's notifications as read; answers how many were not.
///
/// # Errors
/// What the database reports.
pub async fn mark_all_read(conn: &mut PgConnection, user: &CustomerId) -> Result<u64, Error> {
    let marked = sqlx::query(
        "UPDATE notifications SET read_at = clock_timestamp()
         WHERE user_id = $1 AND read_at IS NULL",
    )
    .bind(user.as_str())
    .execute(conn)
    .await?;
    Ok(marked.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_told_of_in_as_few_messages_as_they_fit_into() {
        let users: Vec<String> = (0..500)
            .map(|n| format!("{n:03}{}", "ü".repeat(125)))
            .collect();
        let messages = in_messages(&users);
        assert!(
            messages
                .iter()
                .all(|message| message.len() <= TOLD_MAX_BYTES)
        );
        assert_eq!(messages.len(), users.len().div_ceil(7_900 / 254));
        let told: Vec<&str> = messages
            .iter()
            .flat_map(|message| message.lines())
            .collect();
        assert_eq!(told, users);
        assert_eq!(in_messages(&["a".to_owned(), "b".to_owned()]), ["a\nb"]);
    }
}
