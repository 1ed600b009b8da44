//! A customer's own account.

use axum::http::StatusCode;
use serde_json::json;

use crate::support::api;

#[tokio::test]
async fn a_customer_sees_the_account_of_the_token() {
    let api = api().await;
    api.stays("C1", &[("E1", 6)]).await;
    api.redeem("R1", "C1", 250).await;
    sqlx::query("UPDATE customers SET tier = 'SILVER', tier_version = 1")
        .execute(&api.pool)
        .await
        .unwrap();
    for path in ["/api/v1/loyalty", "/loyalty"] {
        let own = api.get_as(&api.player("C1"), path).await;
        assert_eq!(own.status, StatusCode::OK, "{}", own.body);
        assert_eq!(
            own.body,
            json!({ "userId": "C1", "currentPoints": 600, "tier": "SILVER" }),
            "held points are the customer's still"
        );
        let new = api.get_as(&api.player("C9"), path).await;
        assert_eq!(
            new.body,
            json!({ "userId": "C9", "currentPoints": 0, "tier": "BRONZE" })
        );
        assert_eq!(api.get(path).await.problem(), (403, "INSUFFICIENT_ROLE"));
        let staff = api.token("C1", "rewards.read", &["staff"], None);
        assert_eq!(
            api.get_as(&staff, path).await.problem(),
            (403, "INSUFFICIENT_ROLE")
        );
    }
}

#[tokio::test]
async fn points_are_spent_once_for_each_key() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    let player = api.player("C1");
    let spent = api
        .post_as(&player, "/loyalty", "k1", &json!({ "points": 100 }))
        .await;
    assert_eq!(spent.status, StatusCode::ACCEPTED, "{}", spent.body);
    assert_eq!(spent.body["status"], "SUCCESS");
    let location = spent.headers["location"].to_str().unwrap();
    let shown = api.get_as(&player, location).await;
    assert_eq!(shown.body["pointsDeducted"], 100);
    assert_eq!(shown.body["customerId"], "C1");
    assert_eq!(shown.body["merchantContext"]["merchantId"], "meed");
    let left = api.get_as(&player, "/loyalty").await;
    assert_eq!(left.body["currentPoints"], 900);

    // The address with a version is the same call.
    let again = api
        .post_as(&player, "/api/v1/loyalty", "k1", &json!({ "points": 100 }))
        .await;
    assert_eq!(again.body, spent.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    // Whoever takes over from a process that died before it kept its answer finds the redemption.
    sqlx::query("DELETE FROM idempotency_keys")
        .execute(&api.pool)
        .await
        .unwrap();
    let found = api
        .post_as(&player, "/loyalty", "k1", &json!({ "points": 100 }))
        .await;
    assert_eq!(
        (found.status, &found.body),
        (StatusCode::ACCEPTED, &spent.body)
    );
    assert_eq!(api.count("SELECT count(*) FROM redemptions").await, 1);
    assert_eq!(api.count("SELECT available FROM customers").await, 900);

    let other = api
        .post_as(&player, "/loyalty", "k2", &json!({ "points": 100 }))
        .await;
    assert_ne!(other.body["redeemRequestId"], spent.body["redeemRequestId"]);
    // The same key of somebody else is another one.
    api.stays("C2", &[("E2", 10)]).await;
    let somebody = api
        .post_as(
            &api.player("C2"),
            "/loyalty",
            "k1",
            &json!({ "points": 100 }),
        )
        .await;
    assert_eq!(somebody.body["status"], "SUCCESS");
    assert_eq!(api.count("SELECT count(*) FROM redemptions").await, 3);
    let audited = "SELECT count(*) FROM audit_records WHERE action = 'redeem.request'";
    assert_eq!(api.count(audited).await, 3);
}

#[tokio::test]
async fn what_cannot_be_spent_is_refused() {
    let api = api().await;
    api.stays("C1", &[("E1", 1)]).await;
    let player = api.player("C1");
    for (body, status, code) in [
        (json!({ "points": 101 }), 409, "INSUFFICIENT_POINTS"),
        (json!({ "points": 0 }), 400, "INVALID_POINTS"),
        (json!({ "points": -1 }), 400, "INVALID_POINTS"),
        (json!({ "points": 1.5 }), 400, "INVALID_POINTS"),
        (json!({ "points": "1" }), 400, "INVALID_POINTS"),
        (
            json!({ "points": 1, "customerId": "C2" }),
            400,
            "INVALID_BODY",
        ),
        (json!({}), 400, "INVALID_BODY"),
    ] {
        let key = format!("k-{status}-{}", body.to_string().len());
        let answer = api.post_as(&player, "/loyalty", &key, &body).await;
        assert_eq!(answer.problem(), (status, code), "{body}");
    }
    let none = api
        .post_as(&player, "/loyalty", "", &json!({ "points": 1 }))
        .await;
    assert_eq!(none.code(), "IDEMPOTENCY_KEY_MISSING");
    let client = api.post("/loyalty", "k", &json!({ "points": 1 })).await;
    assert_eq!(client.problem(), (403, "INSUFFICIENT_ROLE"));
    assert_eq!(api.count("SELECT count(*) FROM redemptions").await, 0);
}

/// The built-in merchant would confirm anything: it is there for this call alone.
#[tokio::test]
async fn no_other_road_leads_to_the_built_in_merchant() {
    let api = api().await;
    api.stays("C1", &[("E1", 10)]).await;
    let body = json!({
        "redeemRequestId": "R1", "customerId": "C1", "requestedPoints": 100,
        "merchantContext": { "merchantId": "meed", "orderId": "O1" }
    });
    let answer = api.post("/api/v1/redeem", "k1", &body).await;
    assert_eq!(answer.body["status"], "FAILED", "{}", answer.body);
    let shown = api.get("/api/v1/redeem/R1").await;
    assert_eq!(shown.body["reason"], "UNKNOWN_MERCHANT");
    assert_eq!(api.count("SELECT available FROM customers").await, 1_000);
}
