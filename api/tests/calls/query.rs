//! The points of many customers in one request.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::api;

const PATH: &str = "/api/v1/rewards/query";

#[tokio::test]
async fn every_question_has_its_answer_in_its_place() {
    let api = api().await;
    for (customer, nights) in [("C1", 1), ("C2", 2), ("C3", 3)] {
        api.stays(customer, &[(&format!("E-{customer}"), nights)])
            .await;
    }
    let lately = chrono::Utc::now() - chrono::TimeDelta::days(30);
    let answer = api
        .post(
            PATH,
            "",
            &json!([
                { "customerId": "C3" },
                { "customerId": "nobody" },
                { "customerId": "C1", "from": "2020-01-01", "to": "2020-02-01" },
                { "customerId": "C2", "from": lately },
                { "customerId": "C1", "from": "2020-02-01", "to": "2020-01-01" },
                { "customerId": "a\u{0}b" },
                { "customerId": "C3" }
            ]),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answers = answer.body.as_array().unwrap();
    let told: Vec<(&str, Value)> = answers
        .iter()
        .map(|answer| {
            let what = answer
                .get("totalPoints")
                .or_else(|| answer.pointer("/problem/code"));
            (
                answer["customerId"].as_str().unwrap(),
                what.unwrap().clone(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("C3", json!(300)),
            ("nobody", json!("CUSTOMER_NOT_FOUND")),
            ("C1", json!(0)),
            ("C2", json!(200)),
            ("C1", json!("INVALID_PARAMETER")),
            ("a\u{0}b", json!("CUSTOMER_NOT_FOUND")),
            ("C3", json!(300)),
        ]
    );
    assert_eq!(answers[1]["problem"]["status"], 404);
    let request_id = answer.headers["x-request-id"].to_str().unwrap();
    assert_eq!(answers[1]["problem"]["requestId"], request_id);
    assert_eq!(answers[0]["breakdown"][0]["source"], "reward-event");
}

#[tokio::test]
async fn a_player_gets_answers_about_nobody_else() {
    let api = api().await;
    api.stays("C1", &[("E1", 1)]).await;
    api.stays("C2", &[("E2", 1)]).await;
    let both = json!([{ "customerId": "C1" }, { "customerId": "C2" }]);
    let answer = api.post_as(&api.player("C1"), PATH, "", &both).await;
    assert_eq!(answer.body[0]["totalPoints"], 100);
    assert_eq!(answer.body[1]["problem"]["code"], "CUSTOMER_NOT_ALLOWED");
    assert!(answer.body[1].get("totalPoints").is_none());
}

#[tokio::test]
async fn a_request_is_bounded_and_has_known_fields_only() {
    let api = api().await;
    let of = |count: usize| Value::from(vec![json!({ "customerId": "C1" }); count]);
    assert_eq!(
        api.post(PATH, "", &of(100))
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        100
    );
    for wrong in [
        of(101),
        of(0),
        json!({ "customerId": "C1" }),
        json!([{ "customerId": "C1", "at": "2026-01-01" }]),
        json!([{ "from": "2026-01-01" }]),
        json!([{ "customerId": 1 }]),
    ] {
        let answer = api.post(PATH, "", &wrong).await;
        assert_eq!(answer.problem(), (400, "INVALID_BODY"));
        let told = answer.body["detail"].as_str().unwrap();
        assert!(
            !told.contains("struct") && !told.contains("RewardsQuery"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn without_the_ledger_each_answer_has_what_was_known_of_it() {
    let api = api().await;
    api.stays("C1", &[("E1", 3)]).await;
    api.get("/api/v1/rewards/C1?breakdown=false").await;
    api.pool.close().await;
    let both = json!([{ "customerId": "C1" }, { "customerId": "C2" }]);
    let answer = api.post(PATH, "", &both).await;
    assert_eq!(answer.status, StatusCode::OK);
    let first = &answer.body[0]["problem"];
    assert_eq!(first["code"], "LEDGER_UNAVAILABLE");
    assert_eq!(
        (&first["partial"], &first["totalPoints"]),
        (&json!(true), &json!(300))
    );
    assert_eq!(answer.body[1]["problem"]["asOf"], Value::Null);
}
