//! Journeys over the whole stack, as its users take them.

use std::collections::HashMap;

use serde_json::{Value, json};
use temporalio_client::{WorkflowFetchHistoryOptions, WorkflowGetResultOptions};
use tests::system::{System, patiently, system, system_alone, unique};
use tests::{components::temporal, flows::result_of, history};
use workflows::{AwardBatch, Relay, id::RELAY_WORKFLOW_ID};

fn redemption(id: &str, customer: &str, points: i64, merchant: &str) -> Value {
    json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": points,
        "merchantContext": { "merchantId": merchant, "orderId": format!("O-{id}") },
        "timestamp": "2026-03-14T10:00:00Z"
    })
}

#[tokio::test]
async fn an_event_becomes_points_a_confirmation_and_a_change_of_the_total() {
    let system = system().await;
    let customer = system.customer_with(3).await;
    let mine = customer.clone();
    let confirmed = system
        .await_published("reward-confirmed", 1, move |m| m.key == mine)
        .await[0]
        .json();
    assert_eq!(confirmed["pointsAwarded"], 300);
    assert_eq!(confirmed["balanceAfter"], 300);
    let mine = customer.clone();
    let added = system
        .await_published("loyalty.pointsAdded.v2", 1, move |m| m.key == mine)
        .await;
    assert_eq!(
        added[0].json(),
        json!({ "userId": customer, "totalPoints": 300, "difference": 300 })
    );
    assert_eq!(added[0].headers["ce_type"], "loyalty.pointsAdded.v2");
    assert_eq!(added[0].headers["ce_specversion"], "1.0");
    let (_, view) = system.get(&format!("/api/v1/rewards/{customer}")).await;
    assert_eq!(view["totalPoints"], 300, "{view}");

    // The ledger leads to the flow that did it, and both flows can be replayed.
    let (workflow_id,): (String,) =
        sqlx::query_as("SELECT workflow_id FROM transfers WHERE customer_id = $1")
            .bind(&customer)
            .fetch_one(&system.pool)
            .await
            .expect("one transfer");
    assert!(
        workflow_id.starts_with("award/reward-events/"),
        "{workflow_id}"
    );
    let client = temporal().await;
    let award = client.get_workflow_handle::<AwardBatch>(&workflow_id);
    let outcome =
        result_of(async || award.get_result(WorkflowGetResultOptions::default()).await).await;
    assert!(outcome.posted >= 1);
    let relay = client.get_workflow_handle::<Relay>(RELAY_WORKFLOW_ID);
    let options = WorkflowFetchHistoryOptions::default;
    history::record("AwardBatch", award.fetch_history(options())).await;
    history::record("Relay", relay.fetch_history(options())).await;
}

#[tokio::test]
async fn every_inbound_shape_counts_once_however_often_it_comes() {
    let system = system().await;
    let (customer, behind) = (unique("C"), unique("C"));
    let shapes = |customer: &str, order: &str| {
        [
            json!({ "userId": customer, "orderNumber": order }),
            json!({
                "specversion": "1.0", "id": unique("ce"), "source": "/shop",
                "type": "orders.orderCompleted.v2", "data": { "userId": customer, "orderId": order }
            }),
            json!({ "userId": customer }),
            json!({ "customerId": customer, "amount": "1234.56", "orderId": order }),
        ]
        .map(|shape| shape.to_string())
    };
    let send = async |ce_id: &str, [completed_v1, envelope, created, ordered]: &[String; 4]| {
        let binary = |kind: &'static str| {
            [
                ("ce_specversion", "1.0"),
                ("ce_id", ce_id),
                ("ce_source", "/shop"),
                ("ce_type", kind),
                ("content-type", "application/json"),
            ]
        };
        let v1 = binary("orders.orderCompleted.v1");
        let user = binary("users.userCreated.v1");
        let structured = [("content-type", "application/cloudevents+json")];
        for (topic, headers, body) in [
            ("orders.orderCompleted.v1", &v1[..], completed_v1),
            ("orders.orderCompleted.v2", &structured, envelope),
            ("users.userCreated.v1", &user, created),
            ("orders", &[], ordered),
        ] {
            system
                .send(topic, &customer, headers, body.as_bytes())
                .await;
        }
    };
    let copies = shapes(&customer, &unique("order"));
    for _ in 0..3 {
        send("1", &copies).await;
    }
    // Somebody else's, behind all copies in their partitions, prove that these were worked on.
    send("2", &shapes(&behind, &unique("order"))).await;
    // 50 for the completed order, 100 for the new user, 12 for the order's full hundreds.
    for who in [&behind, &customer] {
        system
            .until("all have counted", async || {
                system.available(who).await == Some(162)
            })
            .await;
    }
    let mine = customer.clone();
    let confirmed = system
        .await_published("reward-confirmed", 3, move |m| m.key == mine)
        .await;
    assert_eq!(confirmed.len(), 3, "{confirmed:?}");
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn bad_messages_go_to_the_dead_letters_with_their_reason_and_the_rest_posts() {
    let system = system().await;
    let customer = unique("C");
    let twice = unique("twice");
    let event = |id: &str, change: &dyn Fn(&mut Value)| {
        let mut event = json!({
            "eventId": id, "eventType": "DINING", "customerId": customer,
            "timestamp": "2026-03-14T10:00:00Z", "payload": { "amount": "10", "currency": "USD" }
        });
        change(&mut event);
        event.to_string().into_bytes()
    };
    let id = || unique("bad");
    let set = |pointer: &'static str, value: Value| {
        move |event: &mut Value| *event.pointer_mut(pointer).expect("it is there") = value.clone()
    };
    let far = (chrono::Utc::now() + chrono::Duration::days(3)).to_rfc3339();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("MALFORMED_JSON", b"{\"eventId\": ".to_vec()),
        ("MALFORMED_JSON", vec![0xff, 0xfe]),
        (
            "MISSING_FIELD",
            event(&id(), &|e| {
                drop(e.as_object_mut().expect("object").remove("customerId"));
            }),
        ),
        (
            "UNKNOWN_EVENT_TYPE",
            event(&id(), &set("/eventType", json!("SKYDIVING"))),
        ),
        ("WRONG_TYPE", event(&id(), &set("/payload", json!("none")))),
        ("INVALID_ID", event("", &|_| ())),
        ("INVALID_ID", event(&"x".repeat(129), &|_| ())),
        (
            "INVALID_AMOUNT",
            event(&id(), &set("/payload/amount", json!("-1"))),
        ),
        (
            "INVALID_AMOUNT",
            event(
                &id(),
                &set("/payload/amount", json!("9999999999999999999999")),
            ),
        ),
        (
            "UNKNOWN_CURRENCY",
            event(&id(), &set("/payload/currency", json!("XTS"))),
        ),
        (
            "INVALID_TIMESTAMP",
            event(&id(), &set("/timestamp", json!("yesterday"))),
        ),
        (
            "TIMESTAMP_IN_FUTURE",
            event(&id(), &set("/timestamp", json!(far))),
        ),
        (
            "PAYLOAD_TOO_LARGE",
            event(&id(), &set("/payload/amount", json!("1".repeat(1_000_000)))),
        ),
        (
            "BODY_CONFLICT",
            event(&twice, &set("/payload/amount", json!("11"))),
        ),
    ];
    system
        .send("reward-events", &customer, &[], &event(&twice, &|_| ()))
        .await;
    for (_, body) in &bad {
        system
            .send(
                "reward-events",
                &customer,
                &[("traceparent", "00-1-2-01")],
                body,
            )
            .await;
        system
            .send(
                "reward-events",
                &customer,
                &[],
                &event(&unique("good"), &|_| ()),
            )
            .await;
    }
    let good = i64::try_from(bad.len()).expect("few") + 1;
    system
        .until("the good ones post", async || {
            system.available(&customer).await == Some(3 * good)
        })
        .await;
    let mine = customer.clone();
    let letters = system
        .await_published("dead-letter", bad.len(), move |m| m.key == mine)
        .await;
    assert_eq!(letters.len(), bad.len());
    for ((class, body), letter) in bad.iter().zip(&letters) {
        assert_eq!(
            &letter.headers["meed-dlq-class"], class,
            "{:?}",
            letter.headers
        );
        assert_eq!(&letter.body, body, "the original bytes");
        assert_eq!(letter.headers["meed-dlq-topic"], "reward-events");
        assert_eq!(
            letter.headers["traceparent"], "00-1-2-01",
            "the original headers"
        );
        assert!(!letter.headers["meed-dlq-reason"].is_empty());
        assert!(letter.headers["meed-dlq-offset"].parse::<i64>().is_ok());
    }
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn redeeming_over_http() {
    let system = system().await;
    let customer = system.customer_with(5).await;
    let id = unique("R");
    let body = redemption(&id, &customer, 200, "M1");
    let accepted = system.redeem(&id, &body).await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(
        accepted.headers()["location"],
        format!("/api/v1/redeem/{id}")
    );
    let first: Value = accepted.json().await.expect("JSON");
    assert_eq!(first["redeemRequestId"], json!(id));
    let view = system.ended(&id).await;
    assert_eq!(view["status"], "SUCCESS", "{view}");
    assert_eq!(view["pointsDeducted"], 200);
    assert_eq!(view["balanceAfter"], 300);
    assert_eq!(view["merchantContext"]["merchantId"], "M1");

    // The same key and body replay the stored answer; the same key with another body does not.
    let again: Value = system.redeem(&id, &body).await.json().await.expect("JSON");
    assert_eq!(again, first);
    assert_eq!(
        system
            .redeem(&id, &redemption(&id, &customer, 201, "M1"))
            .await
            .status(),
        422
    );
    // Another key: the same request is the same redemption, another body is a conflict.
    assert_eq!(system.redeem(&unique("k"), &body).await.status(), 202);
    let conflict = system
        .redeem(&unique("k"), &redemption(&id, &customer, 1, "M1"))
        .await;
    assert_eq!(conflict.status(), 409);
    assert_eq!(
        conflict.headers()["content-type"],
        "application/problem+json"
    );
    // More than there is, and what was never asked for.
    let dear = unique("R");
    let refused = system
        .redeem(&dear, &redemption(&dear, &customer, 301, "M1"))
        .await;
    assert_eq!(refused.status(), 409);
    let problem: Value = refused.json().await.expect("a problem");
    assert_eq!(problem["code"], "INSUFFICIENT_POINTS");
    assert_eq!(system.get("/api/v1/redeem/never-asked").await.0, 404);
    // After the end there is nothing to cancel.
    let cancel = |id: String| {
        let system = &system;
        async move {
            let request = system
                .request("POST", &format!("/api/v1/redeem/{id}/cancel"))
                .await;
            patiently(request.header("idempotency-key", unique("k"))).await
        }
    };
    assert_eq!(cancel(id).await.status(), 409);
    assert_eq!(cancel("never-asked".into()).await.status(), 404);
    assert_eq!(system.available(&customer).await, Some(300));
    let mine = customer.clone();
    let answers = system
        .await_published("redeem-confirmed", 1, move |m| m.key == mine)
        .await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].json()["status"], "SUCCESS");
}

#[tokio::test]
async fn every_kind_of_merchant_over_kafka_and_the_same_request_by_both_roads() {
    let system = system().await;
    let customer = system.customer_with(20).await;
    let merchants = [
        ("M1", "SUCCESS", None),
        ("M2", "SUCCESS", None), // calls back
        ("M3", "FAILED", Some("PARTNER_REFUSED")),
        ("M4", "SUCCESS", None), // loses its answer
        ("M5", "FAILED", Some("PARTNER_TIMEOUT")),
        ("M6", "FAILED", Some("PARTNER_TIMEOUT")),
        ("M7", "SUCCESS", None), // fails at first
        ("M-UNKNOWN", "FAILED", Some("UNKNOWN_MERCHANT")),
    ];
    let mut expected = HashMap::new();
    for (merchant, status, reason) in merchants {
        let id = unique("R");
        let body = redemption(&id, &customer, 10, merchant);
        for _ in 0..2 {
            system
                .send("redeem-events", &customer, &[], body.to_string().as_bytes())
                .await;
        }
        assert!(matches!(
            system.redeem(&id, &body).await.status().as_u16(),
            202
        ));
        expected.insert(id, (status, reason));
    }
    let conflicting = expected.keys().next().expect("one").clone();
    let conflict = redemption(&conflicting, &customer, 11, "M1").to_string();
    system
        .send("redeem-events", &customer, &[], conflict.as_bytes())
        .await;
    let zero = redemption(&unique("R"), &customer, 0, "M1").to_string();
    system
        .send("redeem-events", &customer, &[], zero.as_bytes())
        .await;

    let mut deducted = 0;
    for (id, (status, reason)) in &expected {
        let view = system.ended(id).await;
        assert_eq!(view["status"], *status, "{view}");
        assert_eq!(view["reason"].as_str(), *reason, "{view}");
        deducted += view["pointsDeducted"].as_i64().expect("a number");
    }
    assert_eq!(system.available(&customer).await, Some(2_000 - deducted));
    let mine = customer.clone();
    let answers = system
        .await_published("redeem-confirmed", merchants.len(), move |m| m.key == mine)
        .await;
    assert_eq!(answers.len(), merchants.len(), "one answer each");
    let mine = customer.clone();
    let letters = system
        .await_published("dead-letter", 2, move |m| m.key == mine)
        .await;
    let classes: Vec<&str> = letters
        .iter()
        .map(|l| l.headers["meed-dlq-class"].as_str())
        .collect();
    assert_eq!(classes, ["BODY_CONFLICT", "INVALID_POINTS"]);
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn a_tier_is_reached_told_and_acknowledged() {
    let system = system().await;
    let customer = system.customer_with(16).await;
    let mine = customer.clone();
    let told = system
        .await_published("loyalty.tierUpgraded.v1", 1, move |m| m.key == mine)
        .await;
    let event = told[0].json();
    assert_eq!(event["previousTier"], "BRONZE");
    assert_eq!(event["newTier"], "GOLD");
    assert_eq!(event["recommendations"].as_array().map(Vec::len), Some(3));
    let outcome = async || {
        sqlx::query_as::<_, (Option<String>,)>(
            "SELECT outcome FROM tier_orders WHERE customer_id = $1",
        )
        .bind(&customer)
        .fetch_all(&system.pool)
        .await
        .expect("orders")
    };
    system
        .until("it is acknowledged", async || {
            outcome().await == [(Some("ACKNOWLEDGED".into()),)]
        })
        .await;
    // Its callback is used up: the same answer is fine, another is not, and an invented one is unknown.
    let callback = event["callbackId"].as_str().expect("a callback id");
    for (path, expected) in [
        (format!("/api/v1/callbacks/{callback}/success"), 200),
        (format!("/api/v1/callbacks/{callback}/failure"), 409),
        ("/api/v1/callbacks/invented/success".to_owned(), 404),
    ] {
        let answer = patiently(system.request("POST", &path).await).await;
        assert_eq!(answer.status(), expected, "{path}");
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_or_the_scope_for_it() {
    let system = system().await;
    let api = &system.components.env["MEED_API_URL"];
    let anonymous = system.http.get(format!("{api}/api/v1/rewards/C1"));
    let anonymous = patiently(anonymous).await;
    assert_eq!(anonymous.status(), 401);
    let reader = system.token("reader", "rewards.read").await;
    let body = redemption("R", "C1", 1, "M1");
    let refused = system
        .http
        .post(format!("{api}/api/v1/redeem"))
        .bearer_auth(reader)
        .header("idempotency-key", "k")
        .json(&body);
    let refused = patiently(refused).await;
    assert_eq!(refused.status(), 403);
    let problem: Value = refused.json().await.expect("a problem");
    assert!(
        problem["code"].is_string() && problem["requestId"].is_string(),
        "{problem}"
    );
    let without_key = system.request("POST", "/api/v1/redeem").await.json(&body);
    let without_key = patiently(without_key).await;
    assert_eq!(without_key.status(), 400);
}

async fn load(system: &System, customer: &str, redemptions: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..redemptions {
        let id = unique("R");
        let body = redemption(&id, customer, 1, ["M1", "M2", "M7"][n % 3]);
        system
            .send("redeem-events", customer, &[], body.to_string().as_bytes())
            .await;
        system.stay(customer, 1).await;
        ids.push(id);
    }
    ids
}

/// A worker and an api that are told to end, and some that are killed, lose nothing.
#[tokio::test]
async fn ending_and_killing_worker_and_api_under_load_loses_nothing() {
    let system = system_alone().await;
    let customer = system.customer_with(10).await;
    let mut ids = Vec::new();
    for name in ["worker", "api"] {
        for how in ["stop", "kill"] {
            ids.extend(load(&system, &customer, 10).await);
            let components = system.components;
            tokio::task::spawn_blocking(move || {
                match how {
                    "stop" => components.stack.stop(name),
                    _ => components.stack.kill(name),
                }
                .expect("it ends");
                components.stack.restart(name).expect("it starts again");
            })
            .await
            .expect("ended and started");
        }
    }
    for id in &ids {
        let view = system.ended(id).await;
        assert_eq!(view["status"], "SUCCESS", "{view}");
    }
    let stays = i64::try_from(ids.len()).expect("few");
    let expected = 1_000 + 100 * stays - stays;
    system
        .until("every stay counts", async || {
            system.available(&customer).await == Some(expected)
        })
        .await;
    system.assert_ledger_agrees().await;
}
