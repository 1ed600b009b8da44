//! Who may still bring a transfer with a lower id than those that are committed.
//!
//! The id of a transfer is taken before its transaction commits, so a transaction that commits
//! later may bring a lower id. Whoever follows the transfers has to know when that is over:
//!
//! 1. A transfer is read. Ids are handed out one by one in ascending order (the sequence has no
//!    cache), so every lower id had been taken before.
//! 2. Who takes an id holds the lock of an INSERT on `transfers` (ROW EXCLUSIVE): PostgreSQL takes
//!    it before it evaluates the row, and keeps it until the transaction has ended. So everybody
//!    who took a lower id holds that lock now, or has ended. Who holds it now is written down.
//! 3. Once none of these holds it any more, all of them have ended, and what they committed is seen
//!    by every statement that begins afterwards: a commit becomes visible before its locks go. Ids
//!    that are missing then were rolled back.
//!
//! Waiting for locks rather than for `pg_snapshot_xmin` has two reasons: a transaction may take an
//! id before it is given its transaction number, so numbers do not cover it; and only those count
//! that write transfers, not whatever else is long under way in any database of the server.

use std::{collections::BTreeSet, time::Duration};

use sqlx::PgPool;
use tokio::time::Instant;

use crate::Error;

/// How soon they are looked for again, at first and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The transactions that may have taken the id of a transfer and not ended. Asked after the transfer
/// was read, and not in the same statement.
pub(crate) async fn now(pool: &PgPool) -> Result<BTreeSet<String>, Error> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT virtualtransaction FROM pg_locks
         WHERE locktype = 'relation' AND relation = 'transfers'::regclass AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND mode = 'RowExclusiveLock'",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(writer,)| writer).collect())
}

/// Waits until everybody has ended who writes now; whether they did so in time.
pub(crate) async fn have_ended(pool: &PgPool, within: Duration) -> Result<bool, Error> {
    let mut under_way = now(pool).await?;
    let deadline = Instant::now() + within;
    let mut pause = LOOK_AGAIN.0;
    while !under_way.is_empty() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_AGAIN.1);
        let now = now(pool).await?;
        under_way.retain(|writer| now.contains(writer));
    }
    Ok(true)
}
