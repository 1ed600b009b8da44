//! What is told to the world: confirmed once, and kept until it is old.

use std::time::Duration;

use sqlx::PgPool;
use store::{reconcile::confirmations, relay, testing, verify};

use crate::support::*;

async fn broken(pool: &PgPool) -> Vec<(&'static str, String)> {
    verify::verify(pool)
        .await
        .unwrap()
        .into_iter()
        .flat_map(|check| {
            let property = check.property;
            check.examples.into_iter().map(move |text| (property, text))
        })
        .collect()
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

async fn left(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("SELECT outbox_id FROM outbox ORDER BY 1")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// A ledger with two awards, a redemption that was settled and one that failed.
async fn ledger() -> testing::TestDatabase {
    let db = testing::database().await;
    let pool = &db.pool;
    post(pool, &[stay("e1", "A", 5), stay("e2", "B", 1)]).await;
    let ttl = Duration::from_secs(60);
    for (id, asked) in [("R1", 100), ("R2", 100_000)] {
        let request = request(id, "A", asked);
        accept(pool, &request).await;
        let id = request.redeem_request_id;
        store::redemptions::reserve(pool, &id, ttl, |_| true)
            .await
            .unwrap();
        store::redemptions::begin_confirm(pool, &id).await.unwrap();
        store::redemptions::settle(pool, &id, None, false)
            .await
            .unwrap();
    }
    assert_ledger_agrees(pool).await;
    db
}

#[tokio::test]
async fn a_confirmation_that_is_missing_doubled_or_wrong_is_named() {
    let double = "INSERT INTO outbox (shard, topic, message_key, headers, body)
                  SELECT shard, topic, message_key, headers, body FROM outbox";
    for (statement, expected) in [
        ("DELETE FROM outbox WHERE topic = 'reward-confirmed' AND message_key = 'B'", "customer B: 0 confirmations"),
        ("DELETE FROM outbox WHERE topic = 'redeem-confirmed'", "R1 is SUCCESS: 0 answers"),
        ("DELETE FROM outbox WHERE topic = 'loyalty.pointsAdded.v2'", "customer A: 0 messages"),
        (double, "customer A: 2 confirmations"),
        ("UPDATE outbox_messages SET body = convert_to(replace(convert_from(body, 'UTF8'), '500', '501'), 'UTF8')
          WHERE topic = 'reward-confirmed'", "was told of an award that is not in the ledger"),
        ("UPDATE outbox_messages SET body = convert_to(replace(convert_from(body, 'UTF8'), 'SUCCESS', 'FAILED'), 'UTF8')
          WHERE topic = 'redeem-confirmed'", "R1 did not end as was told: FAILED"),
    ] {
        let db = ledger().await;
        execute(&db.pool, statement).await;
        let broken = broken(&db.pool).await;
        assert!(
            broken.iter().any(|(_, text)| text.contains(expected)),
            "{statement}: {broken:?}"
        );
    }
}

#[tokio::test]
async fn a_tier_that_was_given_twice_is_named() {
    let db = ledger().await;
    execute(
        &db.pool,
        "INSERT INTO tier_orders (customer_id, closed_at, outcome, new_tier, upgraded_at)
         SELECT 'A', now(), 'DONE', 'SILVER', now() FROM generate_series(1, 2);
         UPDATE customers SET tier = 'SILVER', tier_version = 1 WHERE customer_id = 'A'",
    )
    .await;
    let broken = broken(&db.pool).await;
    for expected in [
        "was given SILVER by orders 2, 3",
        "2 upgrades, the tier has changed 1",
        "gave SILVER to customer A: 0 messages",
    ] {
        assert!(
            broken.iter().any(|(_, text)| text.contains(expected)),
            "{expected}: {broken:?}"
        );
    }
}

#[tokio::test]
async fn a_hold_without_its_redemption_and_an_account_below_zero_are_named() {
    let db = ledger().await;
    execute(
        &db.pool,
        "ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
         UPDATE transfers SET held_after = -1 WHERE leg = 'hold';
         DELETE FROM redemptions WHERE redeem_request_id = 'R1'",
    )
    .await;
    let broken = broken(&db.pool).await;
    for expected in ["held -1", "(hold of R1)"] {
        assert!(
            broken.iter().any(|(_, text)| text.contains(expected)),
            "{expected}: {broken:?}"
        );
    }
}

#[tokio::test]
async fn only_what_was_published_long_ago_is_removed() {
    let db = ledger().await;
    let pool = &db.pool;
    let all = left(pool).await;
    let keep = Duration::from_hours(35 * 24);
    assert!(all.len() >= 6, "{all:?}");
    assert_eq!(
        relay::prune(pool, keep, 2).await.unwrap(),
        0,
        "nothing is old"
    );
    // Everything was written long ago; the first was published yesterday, the second never, the
    // rest long ago, but for the last, which is young altogether.
    execute(
        pool,
        "UPDATE outbox_messages SET created_at = now() - interval '40 days';
         UPDATE outbox_state SET published_at = now() - interval '36 days';
         UPDATE outbox_state SET published_at = now() - interval '1 day' WHERE outbox_id = 1;
         UPDATE outbox_state SET published_at = NULL WHERE outbox_id = 2;
         UPDATE outbox_messages SET created_at = now()
         WHERE outbox_id = (SELECT max(outbox_id) FROM outbox);
         UPDATE outbox_state SET published_at = now()
         WHERE outbox_id = (SELECT max(outbox_id) FROM outbox);
         ALTER TABLE transfers DISABLE TRIGGER transfers_append_only;
         UPDATE transfers SET posted_at = now() - interval '40 days';
         UPDATE redemptions SET updated_at = now() - interval '40 days'",
    )
    .await;
    let removed = relay::prune(pool, keep, 2).await.unwrap();
    assert_eq!(removed, all.len() as u64 - 3);
    assert_eq!(left(pool).await, [1, 2, *all.last().unwrap()]);
    let states: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox_state")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(states, 3, "nothing is left of them");
    assert_eq!(
        relay::prune(pool, keep, 2).await.unwrap(),
        0,
        "once is enough"
    );
    // What is gone is not missed, and what came after it would be.
    assert_ledger_agrees(pool).await;
    post(pool, &[stay("e3", "C", 1)]).await;
    assert_ledger_agrees(pool).await;
    execute(pool, "DELETE FROM outbox WHERE message_key = 'C'").await;
    assert_eq!(broken(pool).await.len(), 2);
}

/// The version before writes to the outbox, marks it and removes from it by this name, while a
/// release is rolled out.
#[tokio::test]
async fn the_version_before_finds_the_outbox_as_it_knows_it() {
    let db = testing::database().await;
    let pool = &db.pool;
    execute(
        pool,
        "INSERT INTO outbox (shard, topic, message_key, headers, body)
         SELECT 3, 't', 'k', '[]', m::text::bytea FROM generate_series(1, 3) AS m ORDER BY m",
    )
    .await;
    let waiting = async || {
        let front = relay::lock_front(pool, 3, 10, 1_000).await.unwrap();
        let Some(front) = front else {
            return Vec::new();
        };
        let bodies = front.messages.iter().map(|m| m.message.body.clone());
        let bodies: Vec<Vec<u8>> = bodies.collect();
        front.mark_published(0).await.unwrap();
        bodies
    };
    assert_eq!(waiting().await, [b"1", b"2", b"3"], "in their order");
    let marked = sqlx::query(
        "UPDATE outbox SET published_at = clock_timestamp()
         WHERE outbox_id = ANY(SELECT outbox_id FROM outbox
                               WHERE shard = 3 AND published_at IS NULL
                               ORDER BY outbox_id LIMIT 2)",
    )
    .execute(pool)
    .await
    .unwrap();
    assert_eq!(marked.rows_affected(), 2);
    assert_eq!(waiting().await, [b"3"]);
    execute(pool, "DELETE FROM outbox WHERE published_at IS NOT NULL").await;
    assert_eq!(left(pool).await, [3]);
    assert_eq!(relay::backlog(pool).await.unwrap().messages, 1);
}

#[tokio::test]
async fn what_was_marked_is_listed_by_its_time_and_can_be_made_to_wait_again() {
    let db = ledger().await;
    let pool = &db.pool;
    let now = chrono::Utc::now;
    let hour = chrono::Duration::hours(1);
    let marked = async |from, until| {
        confirmations::published(pool, "redeem-confirmed", from, until, 0, 10)
            .await
            .unwrap()
    };
    assert!(marked(now() - hour, now() + hour).await.is_empty());
    execute(
        pool,
        "UPDATE outbox_state SET published_at = clock_timestamp()",
    )
    .await;
    let two = marked(now() - hour, now() + hour).await;
    let answers: Vec<_> = two.iter().map(|row| row.message.topic.as_str()).collect();
    assert_eq!(answers, ["redeem-confirmed"; 2], "of R1 and R2");
    assert!(marked(now() - hour, now() - hour / 2).await.is_empty());

    assert!(confirmations::publish_again(pool, &two[0]).await.unwrap());
    assert_eq!(relay::waiting_shards(pool).await.unwrap(), [two[0].shard]);
    assert_eq!(relay::backlog(pool).await.unwrap().messages, 1);
    assert!(
        !confirmations::publish_again(pool, &two[0]).await.unwrap(),
        "it waits already"
    );
}
