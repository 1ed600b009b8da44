//! Meed's own users. A player's id is their customer id.

use chrono::{DateTime, Utc};
use domain::{CustomerId, Username, message::PlayerRegistered};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    Error,
    outbox::{self, OutboxMessage},
};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// The id.
    pub user_id: Uuid,
    /// The hash of the password.
    pub password_hash: String,
    /// `player`, `staff` or `admin`.
    pub role: String,
    /// Since when the user is refused.
    pub deactivated_at: Option<DateTime<Utc>>,
}

/// Somebody who registers.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// The id.
    pub user_id: Uuid,
    /// The name to log in with.
    pub username: &'a Username,
    /// The hash of the password.
    pub password_hash: &'a str,
    /// `player`, `staff` or `admin`.
    pub role: &'a str,
}

/// Adds a user, unless somebody has the name; answers whether. That a player has registered is told
/// on the topic `players` by the same transaction, so that the account is opened.
///
/// # Errors
/// What the database reports.
pub async fn register(conn: &mut PgConnection, user: &NewUser<'_>) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO users (user_id, username, password_hash, role) VALUES ($1, $2, $3, $4)
         ON CONFLICT ((lower(username))) DO NOTHING",
    )
    .bind(user.user_id)
    .bind(user.username.as_str())
    .bind(user.password_hash)
    .bind(user.role)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    if user.role == "player" {
        let customer = CustomerId::new(user.user_id.to_string())
            .map_err(|error| Error::Inconsistent(error.to_string()))?;
        let message = OutboxMessage::player_registered(&PlayerRegistered::new(customer))?;
        outbox::write(conn, &[message]).await?;
    }
    Ok(true)
}

/// The user with this name, however it is spelt.
///
/// # Errors
/// What the database reports.
pub async fn by_name(pool: &PgPool, username: &Username) -> Result<Option<User>, Error> {
    Ok(sqlx::query_as(
        "SELECT user_id, password_hash, role, deactivated_at
         FROM users WHERE lower(username) = $1",
    )
    .bind(username.key())
    .fetch_optional(pool)
    .await?)
}

/// Whether the user has logged in from this address before.
///
/// # Errors
/// What the database reports.
pub async fn has_come_from(pool: &PgPool, user: Uuid, address_hash: &[u8]) -> Result<bool, Error> {
    let (known,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM user_addresses WHERE user_id = $1 AND address_hash = $2)",
    )
    .bind(user)
    .bind(address_hash)
    .fetch_one(pool)
    .await?;
    Ok(known)
}

/// Keeps a hash with other costs of the same password.
///
/// # Errors
/// What the database reports.
pub async fn rehash(
    conn: &mut PgConnection,
    user: Uuid,
    old_hash: &str,
    new_hash: &str,
) -> Result<(), Error> {
    sqlx::query("UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2")
        .bind(user)
        .bind(old_hash)
        .bind(new_hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// What became of a deactivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deactivated {
    /// It is done; these sessions have ended with it.
    Now {
        /// Since when.
        at: DateTime<Utc>,
        /// The sessions.
        sessions: Vec<Uuid>,
    },
    /// It had been done.
    Before {
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Without this one there is no admin.
    LastAdmin,
    /// There is no such user.
    Unknown,
}

/// Refuses a user from now on, and ends their sessions.
///
/// # Errors
/// What the database reports.
pub async fn deactivate(conn: &mut PgConnection, user: Uuid) -> Result<Deactivated, Error> {
    // Two admins who deactivate each other do so one after the other.
    sqlx::query(
        "SELECT FROM users WHERE role = 'admin' AND deactivated_at IS NULL
         ORDER BY user_id FOR UPDATE",
    )
    .execute(&mut *conn)
    .await?;
    let row: Option<(String, Option<DateTime<Utc>>)> =
        sqlx::query_as("SELECT role, deactivated_at FROM users WHERE user_id = $1 FOR UPDATE")
            .bind(user)
            .fetch_optional(&mut *conn)
            .await?;
    let role = match row {
        None => return Ok(Deactivated::Unknown),
        Some((_, Some(at))) => return Ok(Deactivated::Before { at }),
        Some((role, None)) => role,
    };
    if role == "admin" {
        let (others,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM users
             WHERE role = 'admin' AND deactivated_at IS NULL AND user_id <> $1)",
        )
        .bind(user)
        .fetch_one(&mut *conn)
        .await?;
        if !others {
            return Ok(Deactivated::LastAdmin);
        }
    }
    let (at,): (DateTime<Utc>,) = sqlx::query_as(
        "UPDATE users SET deactivated_at = clock_timestamp() WHERE user_id = $1
         RETURNING deactivated_at",
    )
    .bind(user)
    .fetch_one(&mut *conn)
    .await?;
    let sessions: Vec<(Uuid,)> = sqlx::query_as(
        "UPDATE user_sessions SET ended_at = clock_timestamp(), end_reason = 'DEACTIVATED'
         WHERE user_id = $1 AND ended_at IS NULL RETURNING session_id",
    )
    .bind(user)
    .fetch_all(conn)
    .await?;
    let sessions = sessions.into_iter().map(|(session,)| session).collect();
    Ok(Deactivated::Now { at, sessions })
}
