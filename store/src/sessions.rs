//! Sessions of Meed's own users. A session is the family of the refresh tokens that follow from
//! one login, of which only hashes are here; at any time one of them can be used.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::Error;

/// How many sessions whose time is over are removed with each login.
const REMOVED_AT_ONCE: i64 = 20;
/// How long a session is kept after its time is over, in days.
const KEPT_DAYS: i32 = 7;

/// The SHA-256 of a refresh token.
pub type TokenHash = [u8; 32];

/// A login.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// Its id.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The first refresh token.
    pub token: &'a TokenHash,
    /// A hash of the address it comes from.
    pub address: &'a [u8],
    /// How long it may go on.
    pub session_ttl: Duration,
    /// How long a refresh token can be used.
    pub token_ttl: Duration,
}

/// Begins a session, unless the user has been deactivated; answers whether.
///
/// # Errors
/// What the database reports.
pub async fn begin(conn: &mut PgConnection, new: &NewSession<'_>) -> Result<bool, Error> {
    // Whoever deactivates the user waits for this, and then ends the session.
    let active: Option<(bool,)> =
        sqlx::query_as("SELECT deactivated_at IS NULL FROM users WHERE user_id = $1 FOR SHARE")
            .bind(new.user_id)
            .fetch_optional(&mut *conn)
            .await?;
    if active != Some((true,)) {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO user_sessions (session_id, user_id, expires_at)
         VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')",
    )
    .bind(new.session_id)
    .bind(new.user_id)
    .bind(new.session_ttl.as_secs_f64())
    .execute(&mut *conn)
    .await?;
    write_token(conn, new.session_id, new.token, new.token_ttl).await?;
    sqlx::query(
        "INSERT INTO user_addresses (user_id, address_hash) VALUES ($1, $2)
         ON CONFLICT (user_id, address_hash) DO UPDATE SET seen_at = clock_timestamp()",
    )
    .bind(new.user_id)
    .bind(new.address)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "DELETE FROM user_sessions WHERE session_id IN
             (SELECT session_id FROM user_sessions
              WHERE expires_at < clock_timestamp() - make_interval(days => $1)
              ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(KEPT_DAYS)
    .bind(REMOVED_AT_ONCE)
    .execute(conn)
    .await?;
    Ok(true)
}

async fn write_token(
    conn: &mut PgConnection,
    session: Uuid,
    token: &TokenHash,
    ttl: Duration,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, session_id, expires_at)
         SELECT $1, session_id,
                least(expires_at, clock_timestamp() + $3 * interval '1 second')
         FROM user_sessions WHERE session_id = $2",
    )
    .bind(token.as_slice())
    .bind(session)
    .bind(ttl.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(())
}

/// A session that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The user's role.
    pub role: String,
}

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// Its successor has taken its place.
    New(Session),
    /// That was so a moment ago, and the successor has not been used.
    Again(Session),
    /// It had been used: somebody has a copy of it. The session has ended, once the transaction is
    /// committed.
    Reused(Session),
    /// It does not count: unknown, over its time, or its session has ended.
    Refused,
}

/// Puts `successor` in the place of `token`. Within `grace` the same again is answered the same.
///
/// # Errors
/// What the database reports.
pub async fn rotate(
    conn: &mut PgConnection,
    token: &TokenHash,
    successor: &TokenHash,
    grace: Duration,
    token_ttl: Duration,
) -> Result<Rotated, Error> {
    let Some(session) = lock(conn, token).await? else {
        return Ok(Rotated::Refused);
    };
    // Read after the lock was had: another request with the same token has been waited for.
    let (usable, replaced, within_grace): (bool, bool, bool) = sqlx::query_as(
        "SELECT expires_at > clock_timestamp(), replaced_at IS NOT NULL,
                coalesce(replaced_at > clock_timestamp() - $2 * interval '1 second', false)
         FROM refresh_tokens WHERE token_hash = $1",
    )
    .bind(token.as_slice())
    .bind(grace.as_secs_f64())
    .fetch_one(&mut *conn)
    .await?;
    if !replaced {
        if !usable {
            return Ok(Rotated::Refused);
        }
        sqlx::query(
            "UPDATE refresh_tokens SET replaced_at = clock_timestamp() WHERE token_hash = $1",
        )
        .bind(token.as_slice())
        .execute(&mut *conn)
        .await?;
        write_token(conn, session.session_id, successor, token_ttl).await?;
        return Ok(Rotated::New(session));
    }
    let unused: Option<(bool,)> = sqlx::query_as(
        "SELECT replaced_at IS NULL FROM refresh_tokens WHERE token_hash = $1 AND session_id = $2",
    )
    .bind(successor.as_slice())
    .bind(session.session_id)
    .fetch_optional(&mut *conn)
    .await?;
    if within_grace && unused == Some((true,)) {
        return Ok(Rotated::Again(session));
    }
    end_session(conn, session.session_id, "REUSE").await?;
    Ok(Rotated::Reused(session))
}

/// The session of a refresh token, locked, if it goes on.
async fn lock(conn: &mut PgConnection, token: &TokenHash) -> Result<Option<Session>, Error> {
    let row: Option<(Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT s.session_id, s.user_id, u.role
         FROM refresh_tokens t
         JOIN user_sessions s USING (session_id)
         JOIN users u USING (user_id)
         WHERE t.token_hash = $1 AND s.ended_at IS NULL AND s.expires_at > clock_timestamp()
           AND u.deactivated_at IS NULL
         FOR UPDATE OF s",
    )
    .bind(token.as_slice())
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(session_id, user_id, role)| Session {
        session_id,
        user_id,
        role,
    }))
}

/// Ends the session that a refresh token belongs to. Answers which one that was, if it went on.
///
/// # Errors
/// What the database reports.
pub async fn end(conn: &mut PgConnection, token: &TokenHash) -> Result<Option<Session>, Error> {
    let Some(session) = lock(conn, token).await? else {
        return Ok(None);
    };
    end_session(conn, session.session_id, "LOGOUT").await?;
    Ok(Some(session))
}

async fn end_session(
    conn: &mut PgConnection,
    session: Uuid,
    reason: &'static str,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE user_sessions SET ended_at = clock_timestamp(), end_reason = $2
         WHERE session_id = $1 AND ended_at IS NULL",
    )
    .bind(session)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of the sessions that do not go on, or whose users may not.
///
/// # Errors
/// What the database reports.
pub async fn ended_among(pool: &PgPool, sessions: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    let ended: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT asked FROM unnest($1::uuid[]) AS asked
         WHERE NOT EXISTS (SELECT FROM user_sessions s JOIN users u USING (user_id)
             WHERE s.session_id = asked AND s.ended_at IS NULL
               AND s.expires_at > clock_timestamp() AND u.deactivated_at IS NULL)",
    )
    .bind(sessions)
    .fetch_all(pool)
    .await?;
    Ok(ended.into_iter().map(|(session,)| session).collect())
}

/// Whether a session goes on and its user may.
///
/// # Errors
/// What the database reports.
pub async fn is_open(pool: &PgPool, session: Uuid) -> Result<bool, Error> {
    let (open,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM user_sessions s JOIN users u USING (user_id)
         WHERE s.session_id = $1 AND s.ended_at IS NULL AND s.expires_at > clock_timestamp()
           AND u.deactivated_at IS NULL)",
    )
    .bind(session)
    .fetch_one(pool)
    .await?;
    Ok(open)
}
