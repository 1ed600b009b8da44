//! Who has earned most, and where a customer stands.

use std::sync::Arc;

use axum::http::StatusCode;
use kv::testing::RedisServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Api, api, api_on};

/// Keeps the ranking of an api's own, and waits until it is shown.
async fn kept(api: &Api) {
    let app = Arc::clone(&api.app);
    tokio::spawn(async move { app.keep_ranking(&CancellationToken::new()).await });
    while api.get("/top-customers").await.status != StatusCode::OK {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Whether the header says when to try again.
fn not_ready(answer: &Answer) -> bool {
    answer.problem() == (503, "RANKING_NOT_READY") && answer.headers["retry-after"] == "1"
}

fn place(customer: &str, points: i64, rank: u64) -> Value {
    json!({ "customerId": customer, "points": points, "rank": rank })
}

#[tokio::test]
async fn the_first_and_a_customers_neighbours_are_shown_under_both_addresses() {
    let api = api().await;
    for path in ["/top-customers", "/api/v1/customer-info?id=C1"] {
        assert!(not_ready(&api.get(path).await), "nobody keeps one yet");
    }
    api.stays("C1", &[("e1", 1)]).await;
    api.stays("C2", &[("e2", 3)]).await;
    api.stays("C3", &[("e3", 2)]).await;
    api.stays("C4", &[("e4", 2)]).await;
    kept(&api).await;
    let all = [
        place("C2", 300, 1),
        place("C3", 200, 2),
        place("C4", 200, 3),
        place("C1", 100, 4),
    ];
    for prefix in ["", "/api/v1"] {
        let top = api.get(&format!("{prefix}/top-customers")).await;
        assert_eq!(top.status, StatusCode::OK, "{}", top.body);
        assert_eq!(top.body["customers"], json!(all));
        assert!(top.body["asOf"].is_string(), "{}", top.body);
        let top = api.get(&format!("{prefix}/top-customers?N=2")).await;
        assert_eq!(top.body["customers"], json!(all[..2]));
        let info = api.get(&format!("{prefix}/customer-info?id=C4")).await;
        assert_eq!(info.status, StatusCode::OK, "{}", info.body);
        let as_of = info.body["asOf"].clone();
        assert!(as_of.is_string(), "{}", info.body);
        assert_eq!(
            info.body,
            json!({
                "customerId": "C4", "points": 200, "rank": 3,
                "above": all[..2], "below": all[3..], "asOf": as_of
            })
        );
    }
    // One's own points are in one's rank at once, and spending takes nothing from them.
    api.stays("C4", &[("e5", 2)]).await;
    api.redeem("R1", "C4", 350).await;
    let info = api.get("/customer-info?id=C4").await;
    assert_eq!(info.body["points"], 400);
    assert_eq!(info.body["rank"], 1);
    assert_eq!(info.body["above"], json!([]));
    assert_eq!(
        info.body["below"],
        json!([place("C2", 300, 2), place("C3", 200, 3)])
    );
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let api = api().await;
    kept(&api).await;
    for n in [
        "0",
        "1001",
        "10001",
        "-1",
        "1.5",
        "ten",
        "",
        "99999999999999999999",
    ] {
        let answer = api.get(&format!("/top-customers?N={n}")).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{n}");
    }
    for path in [
        "/top-customers?n=10",
        "/top-customers?N=1&N=2",
        "/customer-info",
        "/customer-info?customerId=C1",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.problem(), (400, "INVALID_PARAMETER"), "{path}");
    }
    for id in ["nobody", "", "%20", &"x".repeat(129)] {
        let answer = api.get(&format!("/customer-info?id={id}")).await;
        assert_eq!(answer.problem(), (404, "CUSTOMER_NOT_FOUND"), "{id}");
    }
    for n in ["1", "1000"] {
        let answer = api.get(&format!("/top-customers?N={n}")).await;
        assert_eq!(answer.body["customers"], json!([]), "{n}");
    }
    let player = api.player("C1");
    let other = api.get_as(&player, "/customer-info?id=C2").await;
    assert_eq!(other.problem(), (403, "CUSTOMER_NOT_ALLOWED"));
    let own = api.get_as(&player, "/customer-info?id=C1").await;
    assert_eq!(
        own.problem(),
        (404, "CUSTOMER_NOT_FOUND"),
        "without an account"
    );
    let top = api.get_as(&player, "/top-customers").await;
    assert_eq!(top.status, StatusCode::OK);
}

/// With Redis workers keep it: here nobody does, and then there is no Redis.
#[tokio::test]
async fn without_its_keeper_or_without_redis_there_is_no_ranking_and_everything_else() {
    let database = store::testing::database().await;
    let mut redis = RedisServer::new().await;
    let api = api_on(&database, |text| {
        text.replace("${REDIS_URL:-}", &redis.url())
            // A busy machine is not a Redis that is away.
            .replace("answer_within_ms = 150", "answer_within_ms = 5000")
    });
    api.stays("C1", &[("e1", 1)]).await;
    let app = Arc::clone(&api.app);
    app.keep_ranking(&CancellationToken::new()).await;
    assert!(not_ready(&api.get("/top-customers").await));
    redis.end();
    let answer = api.get("/customer-info?id=C1").await;
    assert_eq!(answer.problem(), (503, "UNAVAILABLE"));
    assert_eq!(answer.headers["retry-after"], "1");
    let balance = api.get("/api/v1/rewards/C1").await;
    assert_eq!(balance.body["totalPoints"], 100);
}
