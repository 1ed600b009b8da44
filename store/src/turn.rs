//! Work that several processes could do, and one at a time should.

use sqlx::{PgPool, Postgres, Transaction};

use crate::{Error, transaction};

/// A kind of work that is done in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Duty {
    /// Starting redemptions that wait.
    StartRedemptions = 1,
    /// Starting ordered tier upgrades.
    StartTierUpgrades = 2,
    /// Signalling callbacks that were answered.
    SignalCallbacks = 3,
    /// Adding to the hash chain over the transfers.
    SealTransfers = 4,
    /// Starting claims of promotions that were left lying.
    StartClaims = 6,
    /// Starting jobs that assign promotions.
    StartAssignments = 7,
    /// Feeding the ranking in Redis.
    FeedRanking = 8,
}

/// The space of this program's advisory locks: "meed" in ASCII.
const LOCK_SPACE: i32 = 0x6d65_6564;

/// A turn; it ends when this is dropped, also when its process dies.
pub struct Turn {
    _transaction: Transaction<'static, Postgres>,
}

/// Takes a turn, or nothing when another process has it. Holding it is only about not doing work
/// twice in vain: the work itself must bear being done twice.
///
/// # Errors
/// What the database reports.
pub async fn take(pool: &PgPool, duty: Duty) -> Result<Option<Turn>, Error> {
    let mut transaction = transaction::begin(pool).await?;
    let (taken,): (bool,) = sqlx::query_as("SELECT pg_try_advisory_xact_lock($1, $2)")
        .bind(LOCK_SPACE)
        .bind(duty as i32)
        .fetch_one(&mut *transaction)
        .await?;
    Ok(taken.then_some(Turn {
        _transaction: transaction,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time() {
        let database = crate::testing::database().await;
        let pool = &database.pool;
        let turn = take(pool, Duty::StartRedemptions).await.expect("asked");
        assert!(turn.is_some());
        assert!(
            take(pool, Duty::StartRedemptions)
                .await
                .expect("asked")
                .is_none()
        );
        assert!(
            take(pool, Duty::SignalCallbacks)
                .await
                .expect("asked")
                .is_some()
        );
        drop(turn);
        // The rollback is sent when the connection is next used, so the next turn may take a moment.
        let deadline = Instant::now() + Duration::from_secs(60);
        while take(pool, Duty::StartRedemptions)
            .await
            .expect("asked")
            .is_none()
        {
            assert!(Instant::now() < deadline, "the turn never ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
