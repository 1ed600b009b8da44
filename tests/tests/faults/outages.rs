//! What Meed is built on goes away for a while and comes back, under a small steady load: nothing
//! accepted is lost, and what cannot be accepted is refused in a way that a client can work with.
//!
//! Each outage lasts ten seconds, or a minute when `MEED_TEST_FULL` is 1.

mod cut_off;
mod paused;
mod started;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use temporalio_client::{
    Client, NamespacedClient,
    tonic::{Code, IntoRequest},
};
use temporalio_common::protos::temporal::api::workflowservice::v1::CountWorkflowExecutionsRequest;
use tests::{
    breakable::{Blow, breakable},
    components::temporal_of,
    steady::{Answer, Steady, redemption},
    system::{System, patiently, unique},
};

fn outage() -> Duration {
    let full = std::env::var("MEED_TEST_FULL").is_ok_and(|full| full == "1");
    Duration::from_secs(if full { 60 } else { 10 })
}

/// Waits until both processes, which live throughout, say this of themselves. A machine under
/// load may make a component seem away for a moment.
async fn await_health(system: &System, api: &[(&str, bool)], worker: &[(&str, Value)]) {
    let says = |ready: &Value, parts: &[(&str, Value)]| {
        parts.iter().all(|(part, word)| ready[part] == *word)
    };
    let api: Vec<(&str, Value)> = api.iter().map(|(part, is)| (*part, json!(is))).collect();
    let status = |parts: &[(&str, Value)]| {
        let all = parts
            .iter()
            .all(|(_, w)| *w == json!(true) || *w == json!("ready"));
        if all { 200 } else { 503 }
    };
    for (name, parts) in [("api", &api[..]), ("worker", worker)] {
        if parts.is_empty() {
            continue;
        }
        system
            .until(&format!("the {name} says {parts:?}"), async || {
                let Some((live, ready, body)) = system.health(name).await else {
                    return false;
                };
                assert_eq!(live, 200);
                says(&body, parts) && ready == status(parts)
            })
            .await;
    }
}

/// What the worker says of itself when this part of it is missing, or none.
fn worker_without(missing: Option<&str>) -> [(&'static str, Value); 3] {
    ["database", "kafka", "temporal"].map(|part| {
        let is_missing = missing == Some(part);
        (part, json!(if is_missing { "not ready" } else { "ready" }))
    })
}

/// Clients are served throughout. A machine under load may refuse a few; what was asked while it stood
/// still does not count.
async fn assert_served(system: &System, load: &Steady, since: Instant) {
    let calm = || {
        let mut answers = load.answers_since(since);
        answers.retain(|answer| !answer.is_of_a_stall());
        answers
    };
    system
        .until("enough is answered", async || calm().len() > 20)
        .await;
    let answers = calm();
    // Who answers after that long served nobody.
    let late = Duration::from_secs(10);
    let refused = answers
        .iter()
        .filter(|a| a.status == Some(503) || a.took > late)
        .count();
    assert!(
        refused * 10 < answers.len(),
        "{refused} of {}",
        answers.len()
    );
}

/// The worker says that this part of it is not ready.
async fn worker_misses(system: &System, part: &str) -> bool {
    let health = system.health("worker").await;
    health.is_some_and(|(_, _, ready)| ready[part] == "not ready")
}

fn of<'a>(answers: &'a [Answer], what: &str) -> Vec<&'a Answer> {
    answers
        .iter()
        .filter(|answer| answer.what == what)
        .collect()
}

/// How many were answered with this status.
fn with_status(answers: &[&Answer], status: u16) -> usize {
    let with = answers.iter().filter(|a| a.status == Some(status));
    with.count()
}

/// How many runs the flows with these ids have had, in all.
async fn runs(client: &Client, ids: &[String]) -> i64 {
    let list: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    let request = CountWorkflowExecutionsRequest {
        namespace: client.namespace(),
        query: format!("WorkflowId IN ({})", list.join(", ")),
    };
    let mut service = client.connection().workflow_service();
    loop {
        let counted = service.count_workflow_executions(request.clone().into_request());
        match counted.await {
            Ok(counted) => return counted.into_inner().count,
            // Other tests ask it too.
            Err(status) if status.code() == Code::ResourceExhausted => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(status) => panic!("Temporal counts: {status:?}"),
        }
    }
}

#[tokio::test]
async fn while_kafka_is_down_redemptions_go_on_and_what_there_is_to_tell_waits() {
    let system = breakable().await;
    let load = Steady::begin(&system, outage()).await;
    system.blow("kafka", Blow::Kill).await;
    let began = Instant::now();
    system
        .until("the worker misses Kafka", async || {
            worker_misses(&system, "kafka").await
        })
        .await;
    tokio::time::sleep(outage()).await;
    let worker = worker_without(Some("kafka"));
    await_health(&system, &[("database", true), ("temporal", true)], &worker).await;
    assert_served(&system, &load, began).await;

    system.blow("kafka", Blow::Restart).await;
    system.blow("worker", Blow::Await).await;
    load.end(&system).await;
}

#[tokio::test]
async fn while_postgresql_hangs_and_is_down_clients_are_asked_to_come_again() {
    let system = breakable().await;
    let load = Steady::begin(&system, outage()).await;
    for blow in [Blow::Pause, Blow::Kill] {
        system.blow("postgres", blow).await;
        let began = Instant::now();
        tokio::time::sleep(outage()).await;
        let worker = [("database", json!("not ready"))];
        await_health(&system, &[("database", false)], &worker).await;
        for what in [
            "redeem",
            "status",
            "balance",
            "acknowledgement",
            "partner callback",
        ] {
            system
                .until(&format!("{what} is refused, {blow:?}"), async || {
                    with_status(&of(&load.answers_since(began), what), 503) > 0
                })
                .await;
        }
    }
    system.blow("postgres", Blow::Restart).await;
    for name in ["temporal", "worker", "api"] {
        system.blow(name, Blow::Await).await;
    }
    load.end(&system).await;
}

#[tokio::test]
async fn while_temporal_is_down_redemptions_are_queued_and_started_later_once() {
    let system = breakable().await;
    let client = temporal_of(system.components).await;
    let load = Steady::begin(&system, outage()).await;
    // One that waits for its merchant will be taken back while its flow cannot be told.
    let customer = system.customer_with(1).await;
    let taken_back = unique("R");
    let body = redemption(&taken_back, &customer, 10, "M6");
    assert_eq!(system.redeem(&taken_back, &body).await.status(), 202);
    let path = format!("/api/v1/redeem/{taken_back}");
    system
        .until("it waits for its merchant", async || {
            system.get(&path).await.1["status"] == "AWAITING_CALLBACK"
        })
        .await;

    system.blow("temporal", Blow::Kill).await;
    let began = Instant::now();
    let cancel = system.request("POST", &format!("{path}/cancel")).await;
    let cancel = cancel.header("idempotency-key", unique("k"));
    assert_eq!(patiently(cancel).await.status(), 202);
    tokio::time::sleep(outage()).await;
    let worker = worker_without(Some("temporal"));
    await_health(&system, &[("database", true), ("temporal", false)], &worker).await;
    assert_served(&system, &load, began).await;
    let answers = load.answers_since(began);
    let ended = Instant::now();
    let redeemed = of(&answers, "redeem");
    assert!(!redeemed.is_empty());
    let mut queued = Vec::new();
    for answer in redeemed {
        if answer.status == Some(202) && answer.asked + answer.took < ended {
            assert_eq!(answer.body["status"], "QUEUED", "{answer:?}");
            let id = answer.body["redeemRequestId"].as_str().expect("an id");
            queued.push(id.to_owned());
        }
    }

    system.blow("temporal", Blow::Restart).await;
    for name in ["worker", "api"] {
        system.blow(name, Blow::Await).await;
    }
    load.end(&system).await;
    let view = system.ended(&taken_back).await;
    assert_eq!(view["reason"], "CANCELLED", "{view}");
    assert_eq!(system.available(&customer).await, Some(100));
    let expected = i64::try_from(queued.len()).expect("few");
    system
        .until("each flow has had its run", async || {
            runs(&client, &queued).await >= expected
        })
        .await;
    assert_eq!(runs(&client, &queued).await, expected, "{queued:?}");
}

#[tokio::test]
async fn while_the_worker_is_gone_redemptions_go_on_and_events_wait() {
    let system = breakable().await;
    let load = Steady::begin(&system, outage()).await;
    system.blow("worker", Blow::Kill).await;
    let began = Instant::now();
    tokio::time::sleep(outage()).await;
    assert_eq!(system.health("worker").await, None);
    await_health(&system, &[("database", true), ("temporal", true)], &[]).await;
    assert_served(&system, &load, began).await;
    system.blow("worker", Blow::Restart).await;
    load.end(&system).await;
}

#[tokio::test]
async fn while_the_merchants_are_down_redemptions_wait_for_them() {
    let system = breakable().await;
    let load = Steady::begin(&system, outage()).await;
    system.blow("partners", Blow::Kill).await;
    let began = Instant::now();
    tokio::time::sleep(outage()).await;
    // Nobody's else: the api goes on to take requests.
    let worker = worker_without(None);
    await_health(&system, &[("database", true), ("temporal", true)], &worker).await;
    assert_served(&system, &load, began).await;
    system.blow("partners", Blow::Restart).await;
    load.end(&system).await;
}

#[tokio::test]
async fn while_redis_hangs_and_is_gone_everything_goes_on() {
    let system = breakable().await;
    let load = Steady::begin(&system, outage()).await;
    for blow in [Blow::Pause, Blow::Kill] {
        system.blow("redis", blow).await;
        let began = Instant::now();
        tokio::time::sleep(outage()).await;
        let worker = worker_without(None);
        await_health(&system, &[("database", true), ("temporal", true)], &worker).await;
        assert_served(&system, &load, began).await;
        let (status, problem) = system.get_once("/top-customers").await;
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (503, &json!("UNAVAILABLE"))
        );
    }
    // The api has noticed, or this has shown nothing.
    let metrics = system
        .http
        .get(format!("{}/metrics", system.components.env["MEED_API_URL"]));
    let metrics = metrics.send().await.expect("the api answers");
    let metrics = metrics.text().await.expect("metrics");
    assert!(metrics.contains("meed_redis_failures_total"), "{metrics}");
    system.blow("redis", Blow::Restart).await;
    system
        .until("the ranking is made anew", async || {
            system.get("/top-customers").await.0 == 200
        })
        .await;
    load.end(&system).await;
}
