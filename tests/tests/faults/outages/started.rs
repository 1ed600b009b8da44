//! Processes that are started while what they need is away: they wait for it, and say so.

use serde_json::json;
use tests::{
    breakable::{Blow, breakable},
    components::temporal_of,
    steady::redemption,
    system::unique,
};

use super::{await_health, runs, worker_without};

#[tokio::test]
async fn an_api_that_starts_without_temporal_takes_redemptions_that_are_started_later_once() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let customer = system.customer_with(1).await;
    for name in ["temporal", "api", "worker"] {
        system.blow(name, Blow::Kill).await;
    }
    system.begin("api").await;
    system.begin("worker").await;
    system
        .until("both serve their health", async || {
            system.health("api").await.is_some() && system.health("worker").await.is_some()
        })
        .await;
    let api = [("database", true), ("temporal", false), ("worker", false)];
    let worker = [("temporal", json!("not ready"))];
    await_health(&system, &api, &worker).await;
    let id = unique("R");
    let accepted = system
        .redeem(&id, &redemption(&id, &customer, 10, "M1"))
        .await;
    assert_eq!(accepted.status(), 202);
    let accepted: serde_json::Value = accepted.json().await.expect("JSON");
    assert_eq!(accepted["status"], "QUEUED", "{accepted}");

    system.blow("temporal", Blow::Restart).await;
    system.blow("worker", Blow::Await).await;
    system.blow("api", Blow::Await).await;
    assert_eq!(system.ended(&id).await["status"], "SUCCESS");
    assert_eq!(system.available(&customer).await, Some(90));
    system
        .until("its run is listed", async || {
            runs(&client, std::slice::from_ref(&id)).await >= 1
        })
        .await;
    assert_eq!(runs(&client, &[id]).await, 1);
}

#[tokio::test]
async fn processes_that_start_without_postgresql_wait_for_it() {
    let system = breakable().await;
    let customer = system.customer_with(1).await;
    for name in ["postgres", "api", "worker"] {
        system.blow(name, Blow::Kill).await;
    }
    system.begin("api").await;
    system.begin("worker").await;
    system
        .until("both serve their health", async || {
            system.health("api").await.is_some() && system.health("worker").await.is_some()
        })
        .await;
    let worker = [("database", json!("not ready"))];
    await_health(&system, &[("database", false)], &worker).await;
    let id = unique("R");
    let body = redemption(&id, &customer, 10, "M1");
    let request = system.request("POST", "/api/v1/redeem").await;
    let request = request.header("idempotency-key", &id).json(&body);
    let refused = request.send().await.expect("the api answers");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));

    system.blow("postgres", Blow::Restart).await;
    for name in ["temporal", "worker", "api"] {
        system.blow(name, Blow::Await).await;
    }
    let accepted = system.redeem(&id, &body).await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(system.ended(&id).await["status"], "SUCCESS");
}

#[tokio::test]
async fn a_worker_that_starts_without_kafka_waits_for_it() {
    let system = breakable().await;
    for name in ["kafka", "worker"] {
        system.blow(name, Blow::Kill).await;
    }
    system.begin("worker").await;
    system
        .until("it serves its health", async || {
            system.health("worker").await.is_some()
        })
        .await;
    await_health(&system, &[], &worker_without(Some("kafka"))).await;
    system.blow("kafka", Blow::Restart).await;
    system.blow("worker", Blow::Await).await;
    let customer = system.customer_with(1).await;
    assert_eq!(system.available(&customer).await, Some(100));
}
