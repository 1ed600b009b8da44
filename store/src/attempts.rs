//! Attempts at what may be guessed, counted over all replicas.
//!
//! A bucket is one instant: each attempt puts it off by the time in which one more is allowed, and
//! none is left when it would lie further ahead than the bucket holds (the generic cell rate
//! algorithm). Nobody is refused for good: the bucket fills again whatever happens.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::{Error, transaction};

/// How many rows that say nothing any more are removed with each attempt.
const REMOVED_AT_ONCE: i64 = 10;

/// Who tries what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// What is counted.
    pub kind: &'static str,
    /// A hash of who tries.
    pub name: [u8; 32],
    /// How many attempts it holds when it is full.
    pub holds: u32,
    /// After how long it has one more.
    pub refill: Duration,
}

/// Whether there was an attempt left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One was taken from each bucket.
    Yes,
    /// Nothing was taken; there is one again after this.
    After(Duration),
}

/// Takes an attempt from each bucket, or from none.
///
/// # Errors
/// What the database reports.
pub async fn take(pool: &PgPool, buckets: &[Bucket]) -> Result<Taken, Error> {
    let mut tx = transaction::begin(pool).await?;
    let mut sorted: Vec<&Bucket> = buckets.iter().collect();
    // In one order, so that two requests do not wait for each other.
    sorted.sort_by_key(|bucket| (bucket.kind, bucket.name));
    for bucket in sorted {
        if let Some(wait) = take_one(&mut tx, bucket).await? {
            return Ok(Taken::After(wait));
        }
    }
    sqlx::query(
        "DELETE FROM attempts WHERE (bucket, name) IN
             (SELECT bucket, name FROM attempts WHERE until < clock_timestamp()
              ORDER BY until LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(REMOVED_AT_ONCE)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Taken::Yes)
}

/// How long there is none, if there is none.
async fn take_one(conn: &mut PgConnection, bucket: &Bucket) -> Result<Option<Duration>, Error> {
    let refill = bucket.refill.as_secs_f64();
    let full = refill * f64::from(bucket.holds);
    let taken: Option<(bool,)> = sqlx::query_as(
        "INSERT INTO attempts AS held (bucket, name, until)
         VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')
         ON CONFLICT (bucket, name) DO UPDATE
         SET until = greatest(held.until, clock_timestamp()) + $3 * interval '1 second'
         WHERE greatest(held.until, clock_timestamp()) + $3 * interval '1 second'
               <= clock_timestamp() + $4 * interval '1 second'
         RETURNING true",
    )
    .bind(bucket.kind)
    .bind(bucket.name.as_slice())
    .bind(refill)
    .bind(full)
    .fetch_optional(&mut *conn)
    .await?;
    if taken.is_some() {
        return Ok(None);
    }
    let wait: Option<(f64,)> = sqlx::query_as(
        "SELECT extract(epoch FROM until - clock_timestamp())::float8 + $3 - $4
         FROM attempts WHERE bucket = $1 AND name = $2",
    )
    .bind(bucket.kind)
    .bind(bucket.name.as_slice())
    .bind(refill)
    .bind(full)
    .fetch_optional(conn)
    .await?;
    let seconds = wait.map_or(0.0, |(seconds,)| seconds).clamp(0.001, refill);
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// Puts an attempt back into each bucket.
///
/// # Errors
/// What the database reports.
pub async fn give_back(pool: &PgPool, buckets: &[Bucket]) -> Result<(), Error> {
    let kinds: Vec<&str> = buckets.iter().map(|bucket| bucket.kind).collect();
    let names: Vec<&[u8]> = buckets
        .iter()
        .map(|bucket| bucket.name.as_slice())
        .collect();
    let refills: Vec<f64> = buckets
        .iter()
        .map(|bucket| bucket.refill.as_secs_f64())
        .collect();
    // Locked in the order in which they are taken.
    sqlx::query(
        "WITH given AS MATERIALIZED (
             SELECT held.bucket, held.name, back.refill
             FROM attempts held
             JOIN unnest($1::text[], $2::bytea[], $3::float8[]) AS back (bucket, name, refill)
                  USING (bucket, name)
             ORDER BY held.bucket COLLATE \"C\", held.name
             FOR UPDATE OF held)
         UPDATE attempts SET until = until - given.refill * interval '1 second'
         FROM given WHERE attempts.bucket = given.bucket AND attempts.name = given.name",
    )
    .bind(kinds)
    .bind(names)
    .bind(refills)
    .execute(pool)
    .await?;
    Ok(())
}
