//! Events over HTTP.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{api, post_events, stay};

const PATH: &str = "/api/v1/rewards/events";

#[tokio::test]
async fn an_event_is_accepted_once_and_is_on_its_way_to_kafka() {
    let api = api().await;
    let event = stay("E1", "C1", 3);
    let accepted = api.post(PATH, "k1", &event).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
    assert_eq!(
        accepted.body,
        json!({ "eventId": "E1", "status": "ACCEPTED" })
    );
    let (topic, key, body): (String, Vec<u8>, Vec<u8>) =
        sqlx::query_as("SELECT topic, message_key, body FROM outbox")
            .fetch_one(&api.pool)
            .await
            .unwrap();
    assert_eq!(
        (topic.as_str(), key.as_slice()),
        ("reward-events", b"C1".as_slice())
    );
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), event);
    let audited =
        "SELECT count(*) FROM audit_records WHERE action = 'event.send' AND subject = 'E1'
                   AND actor = 'http://127.0.0.1:21000 client' AND request_id <> ''";
    assert_eq!(api.count(audited).await, 1);

    let again = api.post(PATH, "k1", &event).await;
    assert_eq!(
        (again.status, &again.body),
        (accepted.status, &accepted.body)
    );
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let same = api.post(PATH, "k2", &event).await;
    assert_eq!((same.status, &same.body), (accepted.status, &accepted.body));
    assert!(!same.headers.contains_key("idempotent-replayed"));
    assert_eq!(
        api.post(PATH, "k1", &stay("E1", "C1", 4)).await.problem(),
        (422, "IDEMPOTENCY_KEY_REUSED")
    );
    assert_eq!(
        api.post(PATH, "k3", &stay("E1", "C1", 4)).await.problem(),
        (409, "CONFLICTING_REQUEST")
    );
    assert_eq!(api.count("SELECT count(*) FROM outbox").await, 1);
    assert_eq!(api.count("SELECT count(*) FROM audit_records").await, 1);
}

#[tokio::test]
async fn an_event_that_came_over_kafka_is_known() {
    let api = api().await;
    post_events(&api.pool, &[stay("E1", "C1", 3).to_string()]).await;
    let before = api.count("SELECT count(*) FROM outbox").await;
    // The same event in other words: its fields in another order, a number as a text.
    let same = r#"{"payload": {"nights": 3}, "timestamp": "2026-03-14T11:00:00+01:00",
                   "customerId": "C1", "eventType": "HOTEL_STAY", "eventId": "E1"}"#;
    let same: Value = serde_json::from_str(same).unwrap();
    assert_eq!(
        api.post(PATH, "k1", &same).await.status,
        StatusCode::ACCEPTED
    );
    let other = api.post(PATH, "k2", &stay("E1", "C2", 3)).await;
    assert_eq!(other.problem(), (409, "CONFLICTING_REQUEST"));
    assert_eq!(api.count("SELECT count(*) FROM outbox").await, before);
}

#[tokio::test]
async fn of_two_bodies_at_once_one_is_accepted() {
    let api = api().await;
    for round in 0..10 {
        let id = format!("E{round}");
        let (first, second) = tokio::join!(
            async {
                api.post(PATH, &format!("a{round}"), &stay(&id, "C1", 1))
                    .await
            },
            async {
                api.post(PATH, &format!("b{round}"), &stay(&id, "C1", 2))
                    .await
            },
        );
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409], "{} {}", first.body, second.body);
    }
    assert_eq!(api.count("SELECT count(*) FROM outbox").await, 10);
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_at_the_door() {
    let api = api().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut event = stay("E1", "C1", 3);
        change(&mut event);
        event
    };
    let far = (chrono::Utc::now() + chrono::Duration::days(3)).to_rfc3339();
    for (event, code) in [
        (with(&|e| e["extra"] = json!(1)), "WRONG_TYPE"),
        (
            with(&|e| e["eventType"] = json!("ORDER")),
            "UNKNOWN_EVENT_TYPE",
        ),
        (with(&|e| e["eventId"] = json!("")), "INVALID_ID"),
        (with(&|e| e["payload"] = json!([])), "WRONG_TYPE"),
        (
            with(&|e| e["payload"]["nights"] = json!(-1)),
            "INVALID_AMOUNT",
        ),
        (
            with(&|e| e["timestamp"] = json!("yesterday")),
            "INVALID_TIMESTAMP",
        ),
        (
            with(&|e| e["timestamp"] = json!(far)),
            "TIMESTAMP_IN_FUTURE",
        ),
        (
            with(&|e| drop(e.as_object_mut().unwrap().remove("customerId"))),
            "MISSING_FIELD",
        ),
        (json!([]), "WRONG_TYPE"),
    ] {
        let answer = api.post(PATH, "k", &event).await;
        assert_eq!(answer.problem(), (400, code), "{event}");
    }
    assert_eq!(
        api.post(PATH, "", &stay("E1", "C1", 1)).await.code(),
        "IDEMPOTENCY_KEY_MISSING"
    );
    let event = stay("E1", "C1", 1);
    for (token, code) in [
        (
            api.token("client", "rewards.read rewards.redeem", &[], None),
            "INSUFFICIENT_SCOPE",
        ),
        (
            api.token("C1", "rewards.write", &["player"], None),
            "INSUFFICIENT_ROLE",
        ),
    ] {
        assert_eq!(
            api.post_as(&token, PATH, "k", &event).await.problem(),
            (403, code)
        );
    }
    assert_eq!(api.count("SELECT count(*) FROM outbox").await, 0);
    assert_eq!(api.count("SELECT count(*) FROM idempotency_keys").await, 0);
}
