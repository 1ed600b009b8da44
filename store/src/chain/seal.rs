//! Adding to the chain, up to where no transfer can appear any more.
//!
//! The id of a transfer is taken before its transaction commits, so a transaction that commits
//! later may bring a lower id. What is sealed must therefore end below everything that is still
//! under way:
//!
//! 1. `up_to` is read: the highest id that is committed. Ids are handed out one by one in
//!    ascending order (the sequence has no cache), so every lower id had been taken before.
//! 2. Who takes an id holds the lock of an INSERT on `transfers` (ROW EXCLUSIVE): PostgreSQL takes
//!    it before it evaluates the row, and keeps it until the transaction has ended. So everybody
//!    who took a lower id holds that lock now, or has ended. Who holds it now is written down.
//! 3. Once none of these holds it any more, all of them have ended, and what they committed is seen
//!    by every statement that begins afterwards: a commit becomes visible before its locks go.
//! 4. Then the chain is continued up to `up_to`. Ids that are missing were rolled back.
//!
//! Waiting for locks rather than for `pg_snapshot_xmin` has two reasons: a transaction may take an
//! id before it is given its transaction number, so numbers do not cover it; and only those count
//! that write transfers, not whatever else is long under way in any database of the server.
//!
//! Two that seal at the same time compute the same hashes from the same rows, so one of them
//! writes and the other changes nothing.

use std::{collections::HashSet, time::Duration};

use sqlx::PgPool;
use tokio::time::Instant;

use super::{BEGINNING, Head, Values, link};
use crate::Error;

/// How long writers that are under way are waited for; after it the next turn begins anew.
const WAIT_FOR_WRITERS: Duration = Duration::from_secs(10);
/// How soon they are looked for again, at first and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// What one turn has sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// How many transfers.
    pub transfers: usize,
    /// The end of the chain now; nothing when this turn added nothing.
    pub head: Option<Head>,
    /// Whether it ended for having reached its limit, so that more can be sealed at once.
    pub more: bool,
}

/// Seals up to `limit` transfers; those that are not certain yet wait for the next turn.
///
/// # Errors
/// What the database reports.
pub async fn seal(pool: &PgPool, limit: u32) -> Result<Sealed, Error> {
    let Some(up_to) = horizon(pool).await? else {
        return Ok(Sealed::default());
    };
    let mut tx = pool.begin().await?;
    let head: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT transfer_id, hash FROM transfer_hashes ORDER BY transfer_id DESC LIMIT 1",
    )
    .fetch_optional(&mut *tx)
    .await?;
    let (sealed, mut previous) = head.unwrap_or_else(|| (i64::MIN, BEGINNING.to_vec()));
    let rows: Vec<(i64, Values)> = sqlx::query_as(concat!(
        "SELECT transfer_id, ",
        super::values!(),
        " FROM transfers t WHERE transfer_id > $1 AND transfer_id <= $2
          ORDER BY transfer_id LIMIT $3"
    ))
    .bind(sealed)
    .bind(up_to)
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    let mut ids = Vec::with_capacity(rows.len());
    let mut hashes = Vec::with_capacity(rows.len());
    let mut head = None;
    for (transfer_id, values) in &rows {
        let hash = link(&previous, values);
        previous = hash.to_vec();
        ids.push(*transfer_id);
        hashes.push(previous.clone());
        head = Some(Head {
            transfer_id: *transfer_id,
            hash,
        });
    }
    if ids.is_empty() {
        return Ok(Sealed::default());
    }
    sqlx::query(
        "INSERT INTO transfer_hashes (transfer_id, hash)
         SELECT * FROM unnest($1::bigint[], $2::bytea[]) ON CONFLICT DO NOTHING",
    )
    .bind(&ids)
    .bind(&hashes)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Sealed {
        transfers: ids.len(),
        head,
        more: ids.len() >= limit as usize,
    })
}

/// The highest id below which no transfer can appear any more; nothing when there is nothing to
/// seal, or when writers that were under way did not end in time.
async fn horizon(pool: &PgPool) -> Result<Option<i64>, Error> {
    let (posted, sealed): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT max(transfer_id) FROM transfers),
                (SELECT max(transfer_id) FROM transfer_hashes)",
    )
    .fetch_one(pool)
    .await?;
    let Some(up_to) = posted.filter(|posted| Some(*posted) > sealed) else {
        return Ok(None);
    };
    // Only after `up_to` was read, and not in the same statement.
    let mut under_way = writers(pool).await?;
    let deadline = Instant::now() + WAIT_FOR_WRITERS;
    let mut pause = LOOK_AGAIN.0;
    while !under_way.is_empty() {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_AGAIN.1);
        let now = writers(pool).await?;
        under_way.retain(|writer| now.contains(writer));
    }
    Ok(Some(up_to))
}

/// The transactions that may have taken the id of a transfer and not ended.
async fn writers(pool: &PgPool) -> Result<HashSet<String>, Error> {
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
