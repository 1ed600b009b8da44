//! Processes that stand still while others go on with what they had begun, and then wake.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use temporalio_client::{Client, NamespacedClient, tonic::IntoRequest};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution, workflowservice::v1::DescribeWorkflowExecutionRequest,
};
use tests::{
    breakable::{Blow, breakable, second_name},
    components::temporal_of,
    steady::redemption,
    system::{PATIENCE, System, patiently, unique},
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
    let waits = async || {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'meed-worker' AND wait_event_type = 'Lock'
               AND query LIKE '%customers%'",
        )
        .fetch_one(&system.pool)
        .await
        .expect("the database answers")
            > 0
    };
    system
        .until("the worker waits for the customer", async || waits().await)
        .await;
    system.blow("worker", Blow::Pause).await;
    // The wait for the lock ends in the database; then it is free for the one that takes over.
    system
        .until("the wait is over", async || !waits().await)
        .await;
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

/// Whether this process has the patient attempt to ask a redemption's merchant, which follows the quick one.
async fn is_asking(client: &Client, pid: i32, id: &str) -> bool {
    let request = DescribeWorkflowExecutionRequest {
        namespace: client.namespace(),
        execution: Some(WorkflowExecution {
            workflow_id: id.to_owned(),
            run_id: String::new(),
        }),
    };
    let mut service = client.connection().workflow_service();
    let described = service.describe_workflow_execution(request.into_request());
    let process = format!("@{pid}");
    described.await.is_ok_and(|described| {
        let steps = described.into_inner().pending_activities;
        let mut by = steps.iter().map(|step| &step.last_worker_identity);
        by.any(|worker| worker.ends_with(&process))
    })
}

/// Whether one of these redemptions has ended.
async fn one_is_over(system: &System, ids: &[String]) -> bool {
    let over: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM redemptions
         WHERE redeem_request_id = ANY($1) AND state IN ('SUCCESS', 'FAILED')",
    )
    .bind(ids)
    .fetch_one(&system.pool)
    .await
    .expect("the database answers");
    over > 0
}

/// Whether the merchant has confirmed all these, to the quick attempt and to the patient one.
async fn has_confirmed(system: &System, ids: &[String]) -> bool {
    let book = system.merchant_book("M1").await;
    ids.iter().all(|id| {
        let mut of_id = book.iter().filter(|entry| entry["redeemRequestId"] == **id);
        of_id.any(|entry| entry["status"] == "CONFIRMED" && entry["posts"].as_i64() >= Some(2))
    })
}

/// A customer's two redemptions, for which the merchant's confirmations are at hand at an api that is paused, and of
/// which the second one was taken back at the other api meanwhile. Nothing when this machine was too slow for that: an
/// attempt takes no longer than some seconds, and then the redemptions end.
async fn paused_and_taken_back(
    system: &System,
    client: &Client,
    second: &str,
    token: &str,
) -> Option<(String, String, String)> {
    let customer = system.customer_with(1).await;
    // The merchant takes its time: longer than the quick attempt, not too long for the patient one.
    let slow = json!({ "mode": "slow", "delayMs": 4_500 });
    system.tell_merchant("M1", &slow).await;
    let ids = [unique("R"), unique("R")];
    let bodies = ids.each_ref().map(|id| redemption(id, &customer, 10, "M1"));
    let (kept, taken_back) = tokio::join!(
        system.redeem(&ids[0], &bodies[0]),
        system.redeem(&ids[1], &bodies[1])
    );
    assert_eq!(
        (kept.status(), taken_back.status()),
        (StatusCode::ACCEPTED, StatusCode::ACCEPTED)
    );
    let pid = system.components.stack.pid("api").expect("it runs");
    system
        .until("the merchant is asked", async || {
            let asked =
                is_asking(client, pid, &ids[0]).await && is_asking(client, pid, &ids[1]).await;
            asked || one_is_over(system, &ids).await
        })
        .await;
    // By then it has sent the question.
    tokio::time::sleep(Duration::from_millis(500)).await;
    system.blow("api", Blow::Pause).await;
    system
        .until("the merchant confirms both", async || {
            has_confirmed(system, &ids).await || one_is_over(system, &ids).await
        })
        .await;
    if !one_is_over(system, &ids).await {
        let cancel = system
            .http
            .post(format!("{second}/api/v1/redeem/{}/cancel", ids[1]))
            .bearer_auth(token)
            .header("idempotency-key", unique("k"));
        let cancel = patiently(cancel).await.status();
        if cancel == StatusCode::ACCEPTED {
            let [kept, taken_back] = ids;
            return Some((customer, kept, taken_back));
        }
        assert_eq!(cancel, StatusCode::CONFLICT);
    }
    system.blow("api", Blow::Resume).await;
    system.blow("api", Blow::Await).await;
    for id in &ids {
        system.ended(id).await;
    }
    None
}

#[tokio::test]
async fn an_api_that_wakes_after_its_word_with_the_merchant_was_taken_over_changes_nothing() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let token = system.token("paused", "rewards.redeem").await;
    // It is there before, so that it can take over while the first one's attempts last.
    let second = system.start_second("api").await;
    let began = Instant::now();
    let (customer, kept, taken_back) = loop {
        let story = paused_and_taken_back(&system, &client, &second, &token);
        if let Some(story) = story.await {
            break story;
        }
        assert!(began.elapsed() < PATIENCE, "the redemptions end too soon");
    };
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
