//! Removing what nobody needs any more, in small transactions, so that nobody waits for it.

use std::time::Duration;

use domain::Prunable;
use sqlx::PgPool;

use crate::{Error, relay};

/// How many rows are removed in one transaction.
const AT_A_TIME: u32 = 1_000;

/// How long each kind of records is kept. Idempotency keys know for themselves when they expire.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Messages after they were published, and ids of events after they were accepted: as long as
    /// Kafka keeps events.
    pub published: Duration,
    /// Ids of dead letters after their messages were refused: longer than Kafka keeps any of them.
    pub dead_letters: Duration,
    /// Findings after they have ended, and runs.
    pub settled_findings: Duration,
    /// Notifications after they were read.
    pub read_notifications: Duration,
}

/// Removes what of a kind is older than it is kept: how many rows.
///
/// # Errors
/// What the database reports. What was removed until then stays removed.
pub async fn prune(pool: &PgPool, what: Prunable, keep: Keep) -> Result<u64, Error> {
    match what {
        Prunable::IdempotencyKeys => {
            let sql = "DELETE FROM idempotency_keys WHERE (client, route, key) IN (
                           SELECT client, route, key FROM idempotency_keys
                           WHERE expires_at < clock_timestamp() - $1 * interval '1 second'
                           ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
            in_slices(pool, sql, Duration::ZERO).await
        }
        Prunable::PublishedMessages => relay::prune(pool, keep.published, AT_A_TIME).await,
        Prunable::AcceptedEvents => {
            let sql = "DELETE FROM accepted_events WHERE (source, event_id) IN (
                           SELECT source, event_id FROM accepted_events
                           WHERE accepted_at < clock_timestamp() - $1 * interval '1 second'
                           LIMIT $2)";
            in_slices(pool, sql, keep.published).await
        }
        Prunable::DeadLetters => {
            let sql = "DELETE FROM dead_letters WHERE letter_id IN (
                           SELECT letter_id FROM dead_letters
                           WHERE refused_at < clock_timestamp() - $1 * interval '1 second'
                           LIMIT $2)";
            in_slices(pool, sql, keep.dead_letters).await
        }
        Prunable::SettledFindings => {
            // What somebody has accepted stays, or it would be reported again.
            let findings = "DELETE FROM reconciliation_findings WHERE finding_id IN (
                                SELECT finding_id FROM reconciliation_findings
                                WHERE resolution IN ('REPAIRED', 'GONE')
                                  AND resolved_at < clock_timestamp() - $1 * interval '1 second'
                                LIMIT $2)";
            // The last one that came to its end says when that was.
            let runs = "DELETE FROM reconciliation_runs WHERE (workflow_id, run_id) IN (
                            SELECT workflow_id, run_id FROM reconciliation_runs
                            WHERE ended_at < clock_timestamp() - $1 * interval '1 second'
                              AND ended_at < (SELECT max(ended_at) FROM reconciliation_runs
                                              WHERE complete)
                            LIMIT $2)";
            let removed = in_slices(pool, findings, keep.settled_findings).await?;
            Ok(removed + in_slices(pool, runs, keep.settled_findings).await?)
        }
        Prunable::ReadNotifications => {
            let sql = "DELETE FROM notifications WHERE (user_id, notification_id) IN (
                           SELECT user_id, notification_id FROM notifications
                           WHERE read_at < clock_timestamp() - $1 * interval '1 second'
                           ORDER BY read_at LIMIT $2)";
            in_slices(pool, sql, keep.read_notifications).await
        }
    }
}

/// Runs a statement that removes at most so many rows older than so long until it finds no more.
async fn in_slices(pool: &PgPool, sql: &'static str, keep: Duration) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let slice = sqlx::query(sql)
            .bind(keep.as_secs_f64())
            .bind(i64::from(AT_A_TIME))
            .execute(pool)
            .await?
            .rows_affected();
        removed += slice;
        if slice < u64::from(AT_A_TIME) {
            return Ok(removed);
        }
    }
}
