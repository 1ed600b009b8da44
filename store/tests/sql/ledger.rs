use domain::refusal::RefusalClass;
use store::{ledger, ledger::Posting, testing, transaction};

use crate::support::*;

#[tokio::test]
async fn a_batch_posts_in_order_with_running_balances() {
    let db = testing::database().await;
    let postings = post(
        &db.pool,
        &[stay("e1", "A", 1), stay("e2", "B", 2), stay("e3", "A", 3)],
    )
    .await;
    assert_eq!(
        postings,
        [100, 200, 300].map(|n| Posting::Posted(points(n))),
    );
    let a = balance(&db.pool, "A").await;
    assert_eq!(
        (a.available, a.held, a.lifetime_earned, a.version),
        (points(400), points(0), points(400), 2)
    );
    let confirmed: Vec<(String, i64)> = outbox(&db.pool, "reward-confirmed")
        .await
        .iter()
        .map(|m| {
            (
                m["customerId"].as_str().unwrap().into(),
                m["balanceAfter"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        confirmed,
        [("A".into(), 100), ("B".into(), 200), ("A".into(), 400)]
    );
    let added = outbox(&db.pool, "loyalty.pointsAdded.v2").await;
    assert_eq!(added[2]["totalPoints"], 400);
    assert_eq!(added[2]["difference"], 300);
    assert_ledger_agrees(&db.pool).await;
}

#[tokio::test]
async fn posting_again_changes_nothing() {
    let db = testing::database().await;
    let batch = [stay("e1", "A", 1), spend("e2", "A", 100)];
    post(&db.pool, &batch).await;
    let before = balance(&db.pool, "A").await;
    assert_eq!(
        post(&db.pool, &batch).await,
        [Posting::Duplicate, Posting::Duplicate]
    );
    assert_eq!(balance(&db.pool, "A").await, before);
    assert_eq!(outbox(&db.pool, "reward-confirmed").await.len(), 2);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused_and_the_rest_posts() {
    let db = testing::database().await;
    let postings = post(
        &db.pool,
        &[stay("e1", "A", 1), stay("e1", "A", 2), stay("e2", "A", 1)],
    )
    .await;
    assert_eq!(postings[0], Posting::Posted(points(100)));
    assert!(matches!(&postings[1], Posting::Refused(r) if r.class == RefusalClass::BodyConflict));
    assert_eq!(postings[2], Posting::Posted(points(100)));
    assert_eq!(balance(&db.pool, "A").await.available, points(200));
}

#[tokio::test]
async fn a_refused_event_opens_no_account_and_a_posted_one_stays_a_duplicate() {
    let db = testing::database().await;
    let mut foreign = spend("e1", "A", 100);
    foreign.facts.currency = domain::money::Currency::parse("XTS");
    let postings = post(&db.pool, &[foreign.clone()]).await;
    assert!(
        matches!(&postings[0], Posting::Refused(r) if r.class == RefusalClass::UnknownCurrency)
    );
    let mut conn = db.pool.acquire().await.unwrap();
    assert_eq!(
        ledger::balance(&mut conn, &customer("A")).await.unwrap(),
        None
    );
    // As if it had been posted while the programme still knew the currency.
    sqlx::query("INSERT INTO processed_events VALUES ('reward-event', 'e1', $1, 'A', 0)")
        .bind(foreign.body_hash().to_vec())
        .execute(&db.pool)
        .await
        .unwrap();
    assert_eq!(post(&db.pool, &[foreign]).await, [Posting::Duplicate]);
}

#[tokio::test]
async fn a_daily_cap_holds_within_a_batch_and_over_batches() {
    let db = testing::database().await;
    let first = post(
        &db.pool,
        &[spend("e1", "A", 8_000), spend("e2", "A", 4_000)],
    )
    .await;
    assert_eq!(
        first,
        [Posting::Posted(points(400)), Posting::Posted(points(100))]
    );
    let second = post(&db.pool, &[spend("e3", "A", 4_000)]).await;
    assert_eq!(second, [Posting::Posted(points(0))]);
    assert_eq!(balance(&db.pool, "A").await.available, points(500));
    assert_eq!(
        outbox(&db.pool, "reward-confirmed").await.len(),
        2,
        "no points, no confirmation"
    );
}

#[tokio::test]
async fn crossing_a_threshold_orders_one_look_at_the_tier() {
    let db = testing::database().await;
    post(&db.pool, &[stay("e1", "A", 4)]).await;
    let orders = || async {
        sqlx::query_as::<_, (i64,)>("SELECT count(*) FROM tier_orders WHERE closed_at IS NULL")
            .fetch_one(&db.pool)
            .await
            .unwrap()
            .0
    };
    assert_eq!(orders().await, 0);
    post(&db.pool, &[stay("e2", "A", 1), stay("e3", "A", 20)]).await;
    post(&db.pool, &[stay("e4", "A", 1)]).await;
    assert_eq!(orders().await, 1);
}

#[tokio::test]
async fn two_deliveries_of_one_batch_at_once_post_it_once() {
    let db = testing::database().await;
    let batch: Vec<_> = (0..50)
        .map(|n| stay(&format!("e{n}"), &format!("C{}", n % 7), 1))
        .collect();
    let mut reversed = batch.clone();
    reversed.reverse();
    let one = |awards: Vec<domain::command::Award>| {
        let pool = db.pool.clone();
        async move {
            loop {
                let mut tx = transaction::begin(&pool).await.unwrap();
                match ledger::post_awards(&mut tx, &programme(), "w", &awards).await {
                    Ok(_) => match transaction::commit(tx, "test").await {
                        Ok(()) => return,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    },
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        }
    };
    tokio::join!(one(batch.clone()), one(reversed), one(batch.clone()));
    let (total,): (i64,) = sqlx::query_as("SELECT sum(available)::bigint FROM customers")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(total, 5_000);
    assert_eq!(outbox(&db.pool, "reward-confirmed").await.len(), 50);
    assert_ledger_agrees(&db.pool).await;
}

#[tokio::test]
async fn the_database_itself_refuses_a_changed_transfer_and_a_negative_balance() {
    let db = testing::database().await;
    post(&db.pool, &[stay("e1", "A", 1)]).await;
    for statement in [
        "UPDATE transfers SET amount = 1",
        "DELETE FROM transfers",
        "TRUNCATE transfers",
        "INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account, customer_id,
                amount, reason, workflow_id, customer_version, available_after, held_after, occurred_at)
         SELECT source, source_event_id, leg, debit_account, credit_account, customer_id, amount, reason,
                workflow_id, 2, available_after, held_after, occurred_at FROM transfers",
        "UPDATE customers SET available = -1",
        "UPDATE customers SET held = -1",
    ] {
        assert!(
            sqlx::query(statement).execute(&db.pool).await.is_err(),
            "{statement}"
        );
    }
}

#[tokio::test]
async fn the_balance_at_a_past_instant_and_the_breakdown_follow_the_transfers() {
    let db = testing::database().await;
    post(&db.pool, &[stay("e1", "A", 1)]).await;
    let between = chrono::Utc::now();
    post(&db.pool, &[stay("e2", "A", 1), spend("e3", "A", 40)]).await;
    let mut conn = db.pool.acquire().await.unwrap();
    let at = ledger::balance_at(&mut conn, &customer("A"), between)
        .await
        .unwrap();
    assert_eq!(at, Some((points(100), points(0))));
    let lines = ledger::breakdown(&mut conn, &customer("A"), Some(between), None)
        .await
        .unwrap();
    let lines: Vec<(&str, i64)> = lines
        .iter()
        .map(|l| (l.reason.as_str(), l.points))
        .collect();
    assert_eq!(lines, [("CASINO_SPEND", 2), ("HOTEL_STAY", 100)]);
}

#[tokio::test]
async fn verify_names_who_was_tampered_with() {
    let db = testing::database().await;
    post(&db.pool, &[stay("e1", "A", 1), stay("e2", "B", 1)]).await;
    assert_ledger_agrees(&db.pool).await;
    for statement in [
        "UPDATE customers SET available = available + 1 WHERE customer_id = 'B'",
        "UPDATE processed_events SET points = 7 WHERE event_id = 'e1'",
    ] {
        sqlx::query(statement).execute(&db.pool).await.unwrap();
    }
    let broken: Vec<String> = store::verify::verify(&db.pool)
        .await
        .unwrap()
        .into_iter()
        .flat_map(|check| check.examples)
        .collect();
    assert_eq!(broken.len(), 3, "{broken:?}");
    assert!(broken[0].contains("customer B"), "{broken:?}");
    assert!(broken[1].contains("e1"), "{broken:?}");
    assert!(broken[2].contains("together they are 1"), "{broken:?}");
}

#[tokio::test]
async fn the_most_that_one_customer_was_awarded_lately_is_known() {
    let db = testing::database().await;
    let most = async |seconds| {
        let within = std::time::Duration::from_secs(seconds);
        ledger::most_awarded_to_one(&db.pool, within).await.unwrap()
    };
    assert_eq!(most(600).await, points(0));
    post(
        &db.pool,
        &[stay("e1", "A", 1), stay("e2", "B", 2), stay("e3", "A", 3)],
    )
    .await;
    assert_eq!(most(600).await, points(400));
    assert_eq!(most(0).await, points(0), "what is older does not count");
}
