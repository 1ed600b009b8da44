//! Adding to the chain, up to where no transfer can appear any more.
//!
//! The highest id that is committed is read, then everybody is waited for who may still bring a
//! lower one (`writers`). Then the chain is continued up to it; ids that are missing were rolled
//! back.
//!
//! Two that seal at the same time compute the same hashes from the same rows, so one of them
//! writes and the other changes nothing.

use std::time::Duration;

use sqlx::PgPool;

use super::{BEGINNING, Head, Values, link};
use crate::{Error, transaction, writers};

/// How long writers that are under way are waited for; after it the next turn begins anew.
const WAIT_FOR_WRITERS: Duration = Duration::from_secs(10);

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
    let mut tx = transaction::begin(pool).await?;
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
    // Only after `up_to` was read.
    let ended = writers::have_ended(pool, WAIT_FOR_WRITERS).await?;
    Ok(ended.then_some(up_to))
}
