//! What is removed after a while, and what is not.

use std::time::Duration;

use domain::Prunable;
use store::{
    PgPool,
    pruning::{self, Keep},
    testing,
};

const DAY: Duration = Duration::from_hours(24);
pub const KEEP: Keep = Keep {
    published: DAY.saturating_mul(35),
    dead_letters: DAY.saturating_mul(400),
    settled_findings: DAY.saturating_mul(90),
    read_notifications: DAY.saturating_mul(90),
};

async fn left(pool: &PgPool, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

#[tokio::test]
async fn each_kind_is_removed_when_it_is_older_than_it_is_kept() {
    let database = testing::database().await;
    let pool = &database.pool;
    // More than one transaction's worth of what has expired.
    execute(
        pool,
        "INSERT INTO idempotency_keys (client, route, key, body_hash, locked_until, expires_at)
         SELECT 'c', 'r', 'old-' || n, '', now(), now() - interval '1 second'
         FROM generate_series(1, 2001) AS n;
         INSERT INTO idempotency_keys (client, route, key, body_hash, locked_until, expires_at)
         VALUES ('c', 'r', 'valid', '', now(), now() + interval '1 hour');
         INSERT INTO accepted_events (source, event_id, body_hash, accepted_at)
         SELECT 's', 'age ' || age, sha256(''), now() - age * interval '1 day'
         FROM unnest(ARRAY[0, 34, 36]) AS age;
         INSERT INTO dead_letters (letter_id, source_topic, source_partition, source_offset,
                error_class, refused_at)
         SELECT 'age ' || age, 't', 0, age, 'MALFORMED_JSON', now() - age * interval '1 day'
         FROM unnest(ARRAY[0, 399, 401]) AS age;
         INSERT INTO reconciliation_findings (comparison, kind, subject, detail, fix, first_seen,
                last_seen, resolved_at, resolution)
         SELECT 'events', 'K', r || ' ' || age, '', '', now(), now(),
                now() - age * interval '1 day', r
         FROM unnest(ARRAY[89, 91]) AS age, unnest(ARRAY['REPAIRED', 'GONE', 'ACCEPTED']) AS r;
         INSERT INTO reconciliation_findings (comparison, kind, subject, detail, fix, first_seen,
                last_seen)
         VALUES ('events', 'K', 'open', '', '', now() - interval '1 year', now());
         INSERT INTO reconciliation_runs (workflow_id, run_id, started_at, ended_at, repairs,
                complete, report)
         SELECT 'w', 'age ' || age, now(), now() - age * interval '1 day', true, age > 91, '{}'
         FROM unnest(ARRAY[89, 91, 92, 93]) AS age;",
    )
    .await;
    let expected = [
        (Prunable::IdempotencyKeys, 2001),
        (Prunable::PublishedMessages, 0),
        (Prunable::AcceptedEvents, 1),
        (Prunable::DeadLetters, 1),
        // Two findings, and a run: 92 days ago was the last one that came to its end.
        (Prunable::SettledFindings, 3),
    ];
    for (what, removed) in expected {
        assert_eq!(
            pruning::prune(pool, what, KEEP).await.unwrap(),
            removed,
            "{what}"
        );
        let again = pruning::prune(pool, what, KEEP).await.unwrap();
        assert_eq!(again, 0, "{what}");
    }
    assert_eq!(
        left(pool, "SELECT key FROM idempotency_keys").await,
        ["valid"]
    );
    let events = "SELECT event_id FROM accepted_events ORDER BY 1";
    assert_eq!(left(pool, events).await, ["age 0", "age 34"]);
    let letters = "SELECT letter_id FROM dead_letters ORDER BY 1";
    assert_eq!(left(pool, letters).await, ["age 0", "age 399"]);
    let findings = "SELECT subject FROM reconciliation_findings ORDER BY 1";
    assert_eq!(
        left(pool, findings).await,
        [
            "ACCEPTED 89",
            "ACCEPTED 91",
            "GONE 89",
            "REPAIRED 89",
            "open"
        ]
    );
    let runs = "SELECT run_id FROM reconciliation_runs ORDER BY 1";
    assert_eq!(left(pool, runs).await, ["age 89", "age 91", "age 92"]);
}
