//! What the ranking is fed from: everybody who has earned points, and who has earned some since the
//! last look. Beside that, who asked for it to be made anew, and what its indexes tell of themselves.
//!
//! Changes are found by following the ids of transfers, which costs those who post nothing. An id is
//! taken before its transaction commits, so what is not there yet is remembered and looked for
//! again until nobody can bring it any more (`writers`). Of a customer whose transfer appears, the
//! balance row says what they have earned; that never falls, so reading a change twice is the same
//! as reading it once, and the order makes no difference.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::{Error, Transaction, transaction, writers};

/// How many customers are read at a time when all are.
const PAGE: i64 = 20_000;
/// An index that has not been heard of for so long is not kept any more, in seconds.
pub const GONE_AFTER_SECONDS: i32 = 15;
/// Its row is removed after so long, in seconds.
const FORGOTTEN_AFTER_SECONDS: i32 = 3_600;
/// How long writers that are under way are waited for: longer than a transaction may stand still.
const WAIT_FOR_WRITERS: Duration = Duration::from_secs(60);

/// What a customer has earned, ever.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Earned {
    /// The customer.
    pub customer_id: String,
    /// Points ever earned.
    pub points: i64,
}

// ------------------------------------------------------------------------------- following transfers

/// How far the transfers have been followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The highest transfer that was read.
    pub read_to: i64,
    /// Lower ones that were not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// Transfers that were not there when higher ones were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them.
    pub first: i64,
    /// The last of them.
    pub last: i64,
    /// The transactions that may still bring them. Once there are none they are looked for once
    /// more; what is not there then was rolled back.
    pub writers: BTreeSet<String>,
}

/// How the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Look {
    /// When it was looked at, by its own clock. What had been committed before is seen by whoever
    /// asks from now on.
    pub at: DateTime<Utc>,
    /// The highest transfer that is committed; 0 for none.
    pub last_transfer: i64,
    /// The last rebuild that was asked for; 0 for none.
    pub wanted: i64,
}

/// How the ledger stands: two ends of indexes.
pub const LOOK: &str = "SELECT statement_timestamp() AS at,
        coalesce((SELECT max(transfer_id) FROM transfers), 0) AS last_transfer,
        coalesce((SELECT max(rebuild_id) FROM ranking_rebuilds), 0) AS wanted";
/// Transfers after one, so many of them.
pub const FRESH: &str = "SELECT transfer_id, customer_id FROM transfers WHERE transfer_id > $1
     ORDER BY transfer_id LIMIT $2";
/// Transfers of some ranges, [`LATE_MAX`] of each. Without this number the planner would expect so
/// many that it would compile the statement each time.
pub const LATE: &str = "SELECT t.transfer_id, t.customer_id
     FROM unnest($1::bigint[], $2::bigint[]) AS missing (first, last)
     CROSS JOIN LATERAL (
         SELECT transfer_id, customer_id FROM transfers
         WHERE transfer_id BETWEEN missing.first AND missing.last
         ORDER BY transfer_id LIMIT 500) t";
/// How many transfers of a range are read at a time.
const LATE_MAX: usize = 500;

/// Looks how the ledger stands.
///
/// # Errors
/// What the database reports.
pub async fn look(pool: &PgPool) -> Result<Look, Error> {
    Ok(sqlx::query_as(LOOK).fetch_one(pool).await?)
}

/// What has changed since a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Who has had transfers, and what they have earned by now; nobody who never earned anything.
    pub earned: Vec<Earned>,
    /// How far this goes.
    pub position: Position,
    /// Everything that had been committed by then is in it; nothing while there is more to read.
    pub as_of: Option<DateTime<Utc>>,
}

/// Reads what has changed since `position`, up to `limit` transfers. `look` is a look at the ledger
/// before this.
///
/// # Errors
/// What the database reports.
pub async fn changes(
    pool: &PgPool,
    look: &Look,
    position: &Position,
    limit: u32,
) -> Result<Changes, Error> {
    if look.last_transfer <= position.read_to && position.missing.is_empty() {
        return Ok(Changes {
            earned: Vec::new(),
            position: position.clone(),
            as_of: Some(look.at),
        });
    }
    let fresh: Vec<(i64, String)> = sqlx::query_as(FRESH)
        .bind(position.read_to)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    let late: Vec<(i64, String)> = if position.missing.is_empty() {
        Vec::new()
    } else {
        sqlx::query_as(LATE)
            .bind(position.missing.iter().map(|m| m.first).collect::<Vec<_>>())
            .bind(position.missing.iter().map(|m| m.last).collect::<Vec<_>>())
            .fetch_all(pool)
            .await?
    };
    let all_late = late.len() < LATE_MAX;
    let is_all = fresh.len() < limit as usize && all_late;
    let (ids, customers): (BTreeSet<i64>, BTreeSet<String>) = fresh.into_iter().chain(late).unzip();
    let gaps = position.gaps_after(&ids, all_late);
    let now = if gaps.is_empty() {
        BTreeSet::new()
    } else {
        // Only after it was read that they are missing.
        writers::now(pool).await?
    };
    let missing = gaps.into_iter().map(|(first, last, known)| Missing {
        first,
        last,
        writers: known.map_or_else(|| now.clone(), |known| known & &now),
    });
    let position = Position {
        missing: missing.collect(),
        read_to: ids
            .last()
            .map_or(position.read_to, |last| position.read_to.max(*last)),
    };
    let customers: Vec<String> = customers.into_iter().collect();
    let mut earned = earned(pool, &customers).await?;
    earned.retain(|earned| earned.points > 0);
    Ok(Changes {
        earned,
        position,
        as_of: is_all.then_some(look.at),
    })
}

impl Position {
    /// What is not among the transfers that were read, with the writers of what was missing before.
    /// Of those whose writers had ended, this was the last look, unless there was too much to read.
    fn gaps_after(
        &self,
        ids: &BTreeSet<i64>,
        was_last_look: bool,
    ) -> Vec<(i64, i64, Option<&BTreeSet<String>>)> {
        let known = self.missing.iter();
        let known = known.filter(|missing| !(was_last_look && missing.writers.is_empty()));
        let known = known.flat_map(|missing| {
            let gaps = gaps(missing.first, missing.last, ids).into_iter();
            gaps.map(|(first, last)| (first, last, Some(&missing.writers)))
        });
        let new = ids
            .last()
            .map_or_else(Vec::new, |last| gaps(self.read_to + 1, *last, ids));
        known
            .chain(new.into_iter().map(|(first, last)| (first, last, None)))
            .collect()
    }
}

/// What of a range is not among some ids, as ranges.
fn gaps(first: i64, last: i64, ids: &BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut gaps = Vec::new();
    let mut next = first;
    if first <= last {
        for id in ids.range(first..=last) {
            if next < *id {
                gaps.push((next, *id - 1));
            }
            next = *id + 1;
        }
    }
    if next <= last {
        gaps.push((next, last));
    }
    gaps
}

/// What these customers have earned; those that have accounts, in no order.
///
/// # Errors
/// What the database reports.
pub async fn earned(pool: &PgPool, customers: &[String]) -> Result<Vec<Earned>, Error> {
    if customers.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(
        "SELECT customer_id, lifetime_earned AS points FROM customers WHERE customer_id = ANY($1)",
    )
    .bind(customers)
    .fetch_all(pool)
    .await?)
}

// ---------------------------------------------------------------------------------------- everybody

/// A position from which nothing is missed by whoever reads everybody after this: it waits until
/// nobody can bring a lower transfer any more.
///
/// # Errors
/// What the database reports; [`Error::Raced`] when somebody wrote for longer than a statement may
/// take.
pub async fn beginning(pool: &PgPool) -> Result<Position, Error> {
    let look = look(pool).await?;
    if !writers::have_ended(pool, WAIT_FOR_WRITERS).await? {
        return Err(Error::Raced);
    }
    Ok(Position {
        read_to: look.last_transfer,
        missing: Vec::new(),
    })
}

/// About how many have accounts, as the database's statistics have it.
///
/// # Errors
/// What the database reports.
pub async fn about_how_many(pool: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'customers'::regclass",
    )
    .fetch_one(pool)
    .await?)
}

/// Everybody who has earned points, on one snapshot, in pages.
pub struct Everybody {
    transaction: Transaction,
}

impl Everybody {
    /// Begins to read.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn begin(pool: &PgPool) -> Result<Self, Error> {
        let mut transaction = transaction::begin_snapshot(pool).await?;
        // Each page is a statement of its own, which none of the time limits is too short for.
        sqlx::query(
            "DECLARE everybody NO SCROLL CURSOR FOR
             SELECT customer_id, lifetime_earned AS points FROM customers WHERE lifetime_earned > 0",
        )
        .execute(&mut *transaction)
        .await?;
        Ok(Self { transaction })
    }

    /// The next page, in no order; empty at the end.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn next(&mut self) -> Result<Vec<Earned>, Error> {
        Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(format!("FETCH {PAGE} FROM everybody")))
                .fetch_all(&mut *self.transaction)
                .await?,
        )
    }
}

// ---------------------------------------------------------------------------- rebuilds and indexes

/// Asks for every index to be made anew; the same request again is the same rebuild. Its number.
///
/// # Errors
/// What the database reports.
pub async fn request_rebuild(pool: &PgPool, request: &str, asked_by: &str) -> Result<i64, Error> {
    sqlx::query(
        "INSERT INTO ranking_rebuilds (request, asked_by) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(request)
    .bind(asked_by)
    .execute(pool)
    .await?;
    Ok(
        sqlx::query_scalar("SELECT rebuild_id FROM ranking_rebuilds WHERE request = $1")
            .bind(request)
            .fetch_one(pool)
            .await?,
    )
}

/// What an index tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct IndexState {
    /// Its name.
    pub index_name: String,
    /// The rebuild that it was made for, 0 when nobody had asked for one; nothing while it is not
    /// there.
    pub rebuild_id: Option<i64>,
    /// How many customers are in it; nothing while it is not there.
    pub customers: Option<i64>,
    /// Up to when it knows all that was committed.
    pub as_of: Option<DateTime<Utc>>,
    /// How many are in the one that is being made beside it.
    pub loaded: Option<i64>,
    /// About how many there will be.
    pub expected: Option<i64>,
    /// What keeps it from its work.
    pub trouble: Option<String>,
}

/// Tells how an index is, as a sign that it is kept.
///
/// # Errors
/// What the database reports.
pub async fn tell(pool: &PgPool, index: &IndexState) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO ranking_indexes AS known
             (index_name, rebuild_id, customers, as_of, loaded, expected, trouble)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (index_name) DO UPDATE
         SET rebuild_id = EXCLUDED.rebuild_id, customers = EXCLUDED.customers,
             as_of = EXCLUDED.as_of, loaded = EXCLUDED.loaded, expected = EXCLUDED.expected,
             trouble = EXCLUDED.trouble, seen_at = clock_timestamp()",
    )
    .bind(&index.index_name)
    .bind(index.rebuild_id)
    .bind(index.customers)
    .bind(index.as_of)
    .bind(index.loaded)
    .bind(index.expected)
    .bind(&index.trouble)
    .execute(pool)
    .await?;
    Ok(())
}

/// Says that an index is not kept any more.
///
/// # Errors
/// What the database reports.
pub async fn leave(pool: &PgPool, index_name: &str) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM ranking_indexes
         WHERE index_name = $1 OR seen_at < clock_timestamp() - make_interval(secs => $2)",
    )
    .bind(index_name)
    .bind(f64::from(FORGOTTEN_AFTER_SECONDS))
    .execute(pool)
    .await?;
    Ok(())
}

/// The indexes that are kept, by name.
///
/// # Errors
/// What the database reports.
pub async fn indexes(pool: &PgPool) -> Result<Vec<IndexState>, Error> {
    Ok(sqlx::query_as(
        "SELECT index_name, rebuild_id, customers, as_of, loaded, expected, trouble
         FROM ranking_indexes
         WHERE seen_at > clock_timestamp() - make_interval(secs => $1) ORDER BY index_name",
    )
    .bind(f64::from(GONE_AFTER_SECONDS))
    .fetch_all(pool)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[i64]) -> BTreeSet<i64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn gaps_are_what_is_not_there() {
        assert_eq!(gaps(1, 5, &set(&[])), [(1, 5)]);
        assert_eq!(gaps(1, 5, &set(&[1, 2, 3, 4, 5])), []);
        assert_eq!(gaps(1, 5, &set(&[0, 2, 4, 9])), [(1, 1), (3, 3), (5, 5)]);
        assert_eq!(gaps(4, 9, &set(&[5, 6])), [(4, 4), (7, 9)]);
        assert_eq!(gaps(6, 5, &set(&[5, 6])), []);
    }

    #[test]
    fn what_is_missing_is_looked_for_until_its_writers_have_ended_and_once_more() {
        let missing = |first, last, writers: &[&str]| Missing {
            first,
            last,
            writers: writers.iter().map(|w| (*w).to_owned()).collect(),
        };
        let position = Position {
            read_to: 20,
            missing: vec![missing(3, 5, &["3/7"]), missing(9, 9, &[])],
        };
        let written = BTreeSet::from(["3/7".to_owned()]);
        // 4 came late, 9 never came, 21 and 23 are not there yet.
        assert_eq!(
            position.gaps_after(&set(&[4, 22, 24]), true),
            [
                (3, 3, Some(&written)),
                (5, 5, Some(&written)),
                (21, 21, None),
                (23, 23, None)
            ]
        );
        assert_eq!(
            position.gaps_after(&set(&[]), true),
            [(3, 5, Some(&written))],
            "nothing new"
        );
        let ended = BTreeSet::new();
        assert_eq!(
            position.gaps_after(&set(&[]), false),
            [(3, 5, Some(&written)), (9, 9, Some(&ended))],
            "there was too much to read"
        );
    }
}
