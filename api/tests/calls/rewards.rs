//! Balances and where they come from.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Api, api};

#[tokio::test]
async fn points_are_told_by_source_and_reason_with_the_instant_of_the_look() {
    let api = api().await;
    api.stays("C1", &[("E1", 3), ("E2", 7)]).await;
    assert_eq!(
        api.redeem("R1", "C1", 250).await.status,
        StatusCode::ACCEPTED
    );
    let before = chrono::Utc::now();
    let answer = api.get("/api/v1/rewards/C1").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["customerId"], "C1");
    assert_eq!(answer.body["totalPoints"], 750);
    assert_eq!(
        answer.body["breakdown"],
        json!([
            { "source": "redeem", "reason": "REDEMPTION", "points": -250, "transfers": 1 },
            { "source": "reward-event", "reason": "HOTEL_STAY", "points": 1000, "transfers": 2 }
        ])
    );
    let at: chrono::DateTime<chrono::Utc> = answer.body["calculationTimestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let slack = chrono::Duration::seconds(1);
    assert!(at > before - slack && at <= chrono::Utc::now());
    let plain = api.get("/api/v1/rewards/C1?breakdown=false").await;
    assert!(plain.body.get("breakdown").is_none());
}

#[tokio::test]
async fn ranges_include_their_beginning_and_not_their_end() {
    let api = api().await;
    api.stays("C1", &[("E1", 3)]).await;
    let (posted,): (chrono::DateTime<chrono::Utc>,) =
        sqlx::query_as("SELECT posted_at FROM transfers")
            .fetch_one(&api.pool)
            .await
            .unwrap();
    let text =
        |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let (at, after) = (
        text(posted),
        text(posted + chrono::Duration::microseconds(1)),
    );
    let before = text(posted - chrono::Duration::microseconds(1));
    for (query, points) in [
        (format!("from={at}"), 300),
        (format!("from={after}"), 0),
        (format!("to={at}"), 0),
        (format!("to={after}"), 300),
        (format!("from={before}&to={at}"), 0),
        (format!("from={at}&to={after}"), 300),
        (format!("at={at}"), 300),
        (format!("at={before}"), 0),
        (format!("at={before}&breakdown=false"), 0),
    ] {
        let answer = api.get(&format!("/api/v1/rewards/C1?{query}")).await;
        assert_eq!(
            answer.body["totalPoints"], points,
            "{query}: {}",
            answer.body
        );
    }
    let longest = api
        .get("/api/v1/rewards/C1?from=2026-01-01&to=2027-02-05")
        .await;
    assert_eq!(longest.status, StatusCode::OK, "400 days");
    let longer = api
        .get("/api/v1/rewards/C1?from=2026-01-01&to=2027-02-06")
        .await;
    assert_eq!(longer.problem(), (400, "INVALID_PARAMETER"));
}

async fn without_copies(api: &Api, path: &str) -> Answer {
    let headers = [("cache-control", "max-age=5, No-Cache")];
    api.send(Method::GET, path, Some(&api.client()), &headers, "")
        .await
}

#[tokio::test]
async fn a_copy_is_shown_until_it_is_looked_at_again_and_says_so() {
    let api = api().await;
    let path = "/api/v1/rewards/C1";
    api.stays("C1", &[("E1", 1)]).await;
    let first = api.get(path).await;
    assert_eq!(
        (first.cache_status(), &first.body["totalPoints"]),
        ("fwd=miss", &json!(100))
    );

    api.stays("C1", &[("E2", 1)]).await;
    let copy = api.get(path).await;
    assert_eq!(
        (copy.cache_status(), &copy.body["totalPoints"]),
        ("hit", &json!(100))
    );
    assert_eq!(copy.body["breakdown"], first.body["breakdown"]);
    let asked = without_copies(&api, "/api/v1/rewards/C1?breakdown=false").await;
    assert_eq!(
        (asked.cache_status(), &asked.body["totalPoints"]),
        ("fwd=request", &json!(200))
    );
    let now = api.get(path).await;
    assert_eq!(
        now.body["totalPoints"], 200,
        "never the older one again: {}",
        now.body
    );
    assert_eq!(
        now.cache_status(),
        "fwd=miss",
        "the newer copy had no breakdown"
    );

    // What was asked for is read again, whoever has changed it.
    api.stays("C1", &[("E3", 1)]).await;
    assert_eq!(api.get(path).await.body["totalPoints"], 200);
    api.app.cache.look().await.unwrap();
    let plain = api.get("/api/v1/rewards/C1?breakdown=false").await;
    assert_eq!(
        (plain.cache_status(), &plain.body["totalPoints"]),
        ("hit", &json!(300))
    );

    // Nobody asked since: it is not read again.
    api.app.cache.look().await.unwrap();
    api.stays("C1", &[("E4", 1)]).await;
    api.app.cache.look().await.unwrap();
    let plain = api.get("/api/v1/rewards/C1?breakdown=false").await;
    assert_eq!(plain.body["totalPoints"], 300);
}

#[tokio::test]
async fn who_redeems_sees_it_in_the_balance_at_once() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    assert_eq!(
        api.get("/api/v1/rewards/C1").await.body["totalPoints"],
        1_000
    );
    api.redeem("R1", "C1", 250).await;
    assert_eq!(api.get("/api/v1/rewards/C1").await.body["totalPoints"], 750);
    // Also after the end, once it was shown.
    let id = domain::RedeemRequestId::new("R1").unwrap();
    store::redemptions::release(&api.pool, &id, domain::redemption::FailureReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(api.get("/api/v1/redeem/R1").await.body["status"], "FAILED");
    assert_eq!(
        api.get("/api/v1/rewards/C1").await.body["totalPoints"],
        1_000
    );
}

#[tokio::test]
async fn without_the_ledger_the_last_known_balance_is_a_part_of_the_problem() {
    let api = api().await;
    api.stays("C1", &[("E1", 3)]).await;
    api.stays("C2", &[("E2", 3)]).await;
    let before = chrono::Utc::now();
    let known = api.get("/api/v1/rewards/C1").await;
    let after = chrono::Utc::now();
    assert_eq!(known.status, StatusCode::OK, "{}", known.body);
    api.pool.close().await;

    // A copy that is fresh is still one.
    assert_eq!(api.get("/api/v1/rewards/C1").await.status, StatusCode::OK);
    let away = without_copies(&api, "/api/v1/rewards/C1").await;
    assert_eq!(away.problem(), (503, "LEDGER_UNAVAILABLE"));
    assert_eq!(away.headers["retry-after"], "1");
    assert_eq!(away.body["partial"], true);
    assert_eq!(away.body["totalPoints"], 300);
    assert_eq!(away.body["availablePoints"], 300);
    let as_of: chrono::DateTime<chrono::Utc> = away.body["asOf"].as_str().unwrap().parse().unwrap();
    let slack = chrono::Duration::seconds(1);
    assert!(
        as_of > before - slack && as_of < after + slack,
        "of that look: {as_of} is not between {before} and {after}"
    );

    let range = api.get("/api/v1/rewards/C1?from=2026-01-01").await;
    assert_eq!(range.problem(), (503, "LEDGER_UNAVAILABLE"));
    assert_eq!(range.body["availablePoints"], 300);
    assert!(
        range.body.get("totalPoints").is_none(),
        "not what was asked for"
    );

    let unknown = api.get("/api/v1/rewards/C2").await;
    assert_eq!(unknown.problem(), (503, "LEDGER_UNAVAILABLE"));
    assert_eq!(
        (&unknown.body["partial"], &unknown.body["asOf"]),
        (&json!(true), &Value::Null)
    );
    assert!(unknown.body.get("availablePoints").is_none());
}
