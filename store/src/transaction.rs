//! How transactions begin and end.

use sqlx::PgPool;
use tracing::Instrument;

use crate::{Error, Transaction};

/// Begins a transaction.
///
/// # Errors
/// What the database reports.
pub async fn begin(pool: &PgPool) -> Result<Transaction, Error> {
    let pool = pool.clone();
    to_its_end(async move { pool.begin().await }).await
}

/// Begins one that only reads, and reads everything as it is at the first statement.
///
/// # Errors
/// What the database reports.
pub async fn begin_snapshot(pool: &PgPool) -> Result<Transaction, Error> {
    let pool = pool.clone();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    to_its_end(async move { pool.begin_with(snapshot).await }).await
}

/// Sees BEGIN to its end, also for somebody who is given up meanwhile, such as a request whose client
/// has gone. A connection whose BEGIN nobody waits for goes back to the pool as if none had been
/// sent (sqlx 0.9 counts a transaction when it is answered), and what the next one writes there
/// would never be committed.
async fn to_its_end(
    begin: impl Future<Output = sqlx::Result<Transaction>> + Send + 'static,
) -> Result<Transaction, Error> {
    match tokio::spawn(begin.in_current_span()).await {
        Ok(answer) => Ok(answer?),
        // The runtime stops, or it panicked.
        Err(error) => Err(sqlx::Error::Io(error.into()).into()),
    }
}

/// Commits it. `step` is what it is called as a crash point.
///
/// # Errors
/// What the database reports. The commit may have happened all the same: repeat what was done,
/// which changes nothing if so.
#[tracing::instrument(
    level = "debug", name = "transaction.commit", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn commit(transaction: Transaction, step: &'static str) -> Result<(), Error> {
    faultpoint::reach(step, "before-commit");
    transaction.commit().await?;
    faultpoint::reach(step, "after-commit");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use sqlx::{Row, postgres::PgPoolOptions};

    use super::*;

    /// Gives `begin` up after each number of polls; how often it left a transaction open.
    async fn left_open<F: Future>(url: &str, begin: impl Fn(PgPool) -> F) -> usize {
        let one = PgPoolOptions::new().max_connections(1);
        let mut left_open = 0;
        for polls in 0..10 {
            let pool = one.clone().connect(url).await.expect("it answers");
            {
                let mut begin = pin!(begin(pool.clone()));
                for _ in 0..polls {
                    if futures::poll!(&mut begin).is_ready() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            // A transaction that was begun before is older than this statement.
            let row = sqlx::raw_sql("SELECT transaction_timestamp() = statement_timestamp()")
                .fetch_one(&pool)
                .await
                .expect("it answers");
            left_open += usize::from(!row.get::<bool, _>(0));
            pool.close().await;
        }
        left_open
    }

    #[tokio::test]
    async fn one_that_is_given_up_leaves_no_transaction_behind() {
        let database = crate::testing::database().await;
        let url = &database.url;
        let begun = left_open(url, |pool| async move { begin(&pool).await.map(drop) }).await;
        assert_eq!(begun, 0);
        let snapshots = left_open(
            url,
            |pool| async move { begin_snapshot(&pool).await.map(drop) },
        )
        .await;
        assert_eq!(snapshots, 0);
        // A server that is quick may answer within the poll that asks it, so more than once.
        let mut by_itself = 0;
        for _ in 0..30 {
            by_itself += left_open(url, |pool| async move { pool.begin().await.map(drop) }).await;
            if by_itself > 0 {
                break;
            }
        }
        assert!(
            by_itself > 0,
            "sqlx sees to it by now: delete this file's detour"
        );
    }
}
