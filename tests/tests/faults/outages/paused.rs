//! Processes that stand still while others go on with what they had begun, and then wake.

use std::time::Duration;

use serde_json::json;
use tests::{
    breakable::{Blow, breakable, second_name},
    steady::redemption,
    system::{System, unique},
};

/// How often the worker at this address has met an event that another had posted.
async fn duplicates(system: &System, worker: &str) -> u64 {
    let metrics = system.http.get(format!("{worker}/metrics")).send().await;
    let text = metrics.expect("it answers").text().await.expect("text");
    text.lines()
        .filter(|line| {
            line.starts_with("meed_events_processed_total")
                && line.contains("reward-events")
                && line.contains("duplicate")
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[tokio::test]
async fn a_worker_that_wakes_after_its_batch_was_posted_elsewhere_changes_nothing() {
    let system = breakable().await;
    let customer = system.customer_with(1).await;
    // Its next batch cannot be posted while somebody else has the customer.
    let mut held = system.pool.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM customers WHERE customer_id = $1 FOR UPDATE")
        .bind(&customer)
        .execute(&mut *held)
        .await
        .expect("the customer is locked");
    let event = system.stay(&customer, 1).await;
    system
        .until("the worker waits for the customer", async || {
            sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE application_name = 'meed-worker' AND wait_event_type = 'Lock'
                   AND query LIKE '%customers%'",
            )
            .fetch_one(&system.pool)
            .await
            .expect("the database answers")
                > 0
        })
        .await;
    system.blow("worker", Blow::Pause).await;
    // The wait for the lock ends in the database; then it is free for the one that takes over.
    tokio::time::sleep(Duration::from_secs(6)).await;
    held.rollback().await.expect("the customer is free");
    system.start_second("worker").await;
    system
        .until("the second worker posts it", async || {
            system.available(&customer).await == Some(200)
        })
        .await;

    system.blow("worker", Blow::Resume).await;
    let first = format!("http://{}", system.components.env["MEED_WORKER_LISTEN"]);
    system
        .until("the first worker tries to post it", async || {
            duplicates(&system, &first).await > 0
        })
        .await;
    let posted: i64 =
        sqlx::query_scalar("SELECT count(*) FROM transfers WHERE source_event_id = $1")
            .bind(&event)
            .fetch_one(&system.pool)
            .await
            .expect("the ledger answers");
    assert_eq!(posted, 1);
    // Both go on to work, beside each other.
    let after = system.customer_with(2).await;
    assert_eq!(system.available(&after).await, Some(200));
    assert_eq!(system.available(&customer).await, Some(200));
    system.blow(second_name("worker"), Blow::Kill).await;
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn an_api_that_wakes_after_its_word_with_the_merchant_was_taken_over_changes_nothing() {
    let system = breakable().await;
    let customer = system.customer_with(1).await;
    // The merchant takes its time: the quick attempt is over, the patient one is under way.
    let slow = json!({ "mode": "slow", "delayMs": 4_500 });
    system.tell_merchant("M1", &slow).await;
    let (kept, taken_back) = (unique("R"), unique("R"));
    for id in [&kept, &taken_back] {
        let body = redemption(id, &customer, 10, "M1");
        assert_eq!(system.redeem(id, &body).await.status(), 202);
    }
    let token = system.token("paused", "rewards.redeem").await;
    for id in [&kept, &taken_back] {
        system
            .until("the merchant is asked", async || {
                let (_, view) = system.get(&format!("/api/v1/redeem/{id}")).await;
                view["status"] == "CONFIRMING"
            })
            .await;
    }
    // Longer than the quick attempt.
    tokio::time::sleep(Duration::from_millis(500)).await;
    system.blow("api", Blow::Pause).await;
    let second = system.start_second("api").await;
    let cancel = system
        .http
        .post(format!("{second}/api/v1/redeem/{taken_back}/cancel"))
        .bearer_auth(&token)
        .header("idempotency-key", unique("k"))
        .send()
        .await;
    assert_eq!(cancel.expect("the second api answers").status(), 202);
    let confirm = json!({ "mode": "confirm" });
    system.tell_merchant("M1", &confirm).await;
    let ended = async |id: &str| {
        let url = format!("{second}/api/v1/redeem/{id}");
        let answer = system.http.get(url).bearer_auth(&token).send().await;
        let view: serde_json::Value = answer.expect("an answer").json().await.expect("JSON");
        view["status"] == "SUCCESS" || view["status"] == "FAILED"
    };
    for id in [&kept, &taken_back] {
        system
            .until("the second api ends it", async || ended(id).await)
            .await;
    }

    // It wakes with the merchant's confirmations of both at hand.
    system.blow("api", Blow::Resume).await;
    system.blow("api", Blow::Await).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    system.blow(second_name("api"), Blow::Kill).await;
    let view = system.ended(&kept).await;
    assert_eq!(view["status"], "SUCCESS", "{view}");
    let view = system.ended(&taken_back).await;
    assert_eq!(view["reason"], "CANCELLED", "{view}");
    assert_eq!(system.available(&customer).await, Some(90));
    let book = system.merchant_book("M1").await;
    for (id, status) in [(&kept, "CONFIRMED"), (&taken_back, "VOIDED")] {
        let entry = book.iter().find(|entry| entry["redeemRequestId"] == **id);
        assert_eq!(entry.expect("it is booked")["status"], status);
    }
    // Redemptions go on here.
    let after = unique("R");
    let body = redemption(&after, &customer, 10, "M1");
    assert_eq!(system.redeem(&after, &body).await.status(), 202);
    assert_eq!(system.ended(&after).await["status"], "SUCCESS");
    system.assert_ledger_agrees().await;
}
