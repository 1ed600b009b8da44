//! Journeys of clients that know the API alone, beside partners that know Kafka.

use chrono::{SecondsFormat, Utc};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use temporalio_client::WorkflowGetResultOptions;
use tests::{
    components::temporal,
    flows::result_of,
    system::{System, patiently, system, unique},
};
use workflows::Redeem;

/// Somebody with a role, as the dev profile makes them.
async fn token(system: &System, sub: &str, role: &str) -> String {
    let url = format!("{}/dev/token", system.components.env["MEED_API_URL"]);
    let scope = "rewards.read rewards.redeem";
    let request = system
        .http
        .get(url)
        .query(&[("sub", sub), ("role", role), ("scope", scope)]);
    let answer: Value = patiently(request).await.json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn get_as(system: &System, token: &str, path: &str) -> Value {
    let url = format!("{}{path}", system.components.env["MEED_API_URL"]);
    let request = system.http.get(url).bearer_auth(token);
    let answer = patiently(request).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.expect("JSON")
}

async fn send_event(system: &System, event: &Value) -> Response {
    let request = system.request("POST", "/api/v1/rewards/events").await;
    let request = request.header("idempotency-key", unique("key"));
    patiently(request.json(event)).await
}

fn stay(id: &str, customer: &str, nights: u32) -> Value {
    json!({
        "eventId": id, "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": nights }
    })
}

async fn history(system: &System, customer: &str) -> Vec<Value> {
    let mut path = format!("/api/v1/customers/{customer}/transactions?limit=2");
    let mut all = Vec::new();
    loop {
        let (status, page) = system.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        all.extend(page["transactions"].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => return all,
        }
    }
}

#[tokio::test]
async fn an_event_counts_once_over_http_and_kafka() {
    let system = system().await;
    let customer = unique("C");
    let (first, second) = (unique("E"), unique("E"));
    let over_kafka = async |event: &Value| {
        let body = event.to_string();
        system
            .send("reward-events", &customer, &[], body.as_bytes())
            .await;
    };

    // Over HTTP, and while it is on its way over Kafka as well.
    let event = stay(&first, &customer, 3);
    let accepted = send_event(&system, &event).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    over_kafka(&event).await;
    // Over Kafka, and when it has been counted over HTTP as well.
    let event = stay(&second, &customer, 4);
    over_kafka(&event).await;
    system
        .until("both have counted", async || {
            system.available(&customer).await == Some(700)
        })
        .await;
    let before = system
        .await_published("reward-events", 3, {
            let customer = customer.clone();
            move |m| m.key == customer
        })
        .await
        .len();
    assert_eq!(before, 3, "one came through the outbox");
    assert_eq!(
        send_event(&system, &event).await.status(),
        StatusCode::ACCEPTED
    );
    let other = send_event(&system, &stay(&second, &customer, 5)).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    let other: Value = other.json().await.expect("JSON");
    assert_eq!(other["code"], "CONFLICTING_REQUEST");

    // An event of the same customer behind all of them has been counted.
    let last = stay(&unique("E"), &customer, 1);
    assert_eq!(
        send_event(&system, &last).await.status(),
        StatusCode::ACCEPTED
    );
    system
        .until("the last one has counted", async || {
            system.available(&customer).await == Some(800)
        })
        .await;
    let (transfers, flows): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE workflow_id LIKE 'award/reward-events/%')
         FROM transfers WHERE customer_id = $1",
    )
    .bind(&customer)
    .fetch_one(&system.pool)
    .await
    .expect("counted");
    assert_eq!((transfers, flows), (3, 3), "each in a flow like all others");
    system.assert_ledger_agrees().await;
}

#[tokio::test]
async fn a_customer_spends_points_and_staff_see_who_did_what() {
    let system = system().await;
    let customer = system.customer_with(8).await;
    let player = token(&system, &customer, "player").await;
    let own = get_as(&system, &player, "/loyalty").await;
    assert_eq!(own["userId"], customer);
    assert_eq!(own["currentPoints"], 800);
    let earned_at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);

    let key = unique("key");
    let redeem = async || {
        let url = format!("{}/loyalty", system.components.env["MEED_API_URL"]);
        let request = system.http.post(url).bearer_auth(&player);
        let request = request.header("idempotency-key", &key);
        let request = request.header("x-request-id", "the-customers-request");
        let request = request.json(&json!({ "points": 300 }));
        patiently(request).await
    };
    let spent = redeem().await;
    assert_eq!(spent.status(), StatusCode::ACCEPTED);
    let location = spent.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let spent: Value = spent.json().await.expect("JSON");
    let id = spent["redeemRequestId"].as_str().expect("an id").to_owned();
    assert_eq!(location, format!("/api/v1/redeem/{id}"));
    let ended = get_as(&system, &player, &format!("{location}?wait=30")).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(ended["pointsDeducted"], 300);
    assert_eq!(ended["balanceAfter"], 500);
    let again: Value = redeem().await.json().await.expect("JSON");
    assert_eq!(again["redeemRequestId"], id.as_str());

    // The same flow as every redemption's, which has told Kafka how it ended.
    let flow = temporal().await.get_workflow_handle::<Redeem>(&id);
    result_of(async || flow.get_result(WorkflowGetResultOptions::default()).await).await;
    let mine = id.clone();
    let confirmed = system
        .await_published("redeem-confirmed", 1, move |m| {
            m.json()["redeemRequestId"] == mine.as_str()
        })
        .await;
    assert_eq!(confirmed[0].json()["status"], "SUCCESS");

    let now = get_as(&system, &player, "/api/v1/loyalty").await;
    assert_eq!(
        now["currentPoints"], 500,
        "who has seen the end sees the balance after it"
    );
    let (_, then) = system
        .get(&format!("/api/v1/rewards/{customer}?at={earned_at}"))
        .await;
    assert_eq!(then["totalPoints"], 800, "{then}");
    let (_, since) = system
        .get(&format!("/api/v1/rewards/{customer}?from={earned_at}"))
        .await;
    assert_eq!(since["totalPoints"], -300, "{since}");

    let changes: Vec<(Value, Value, Value)> = history(&system, &customer)
        .await
        .into_iter()
        .map(|t| (t["leg"].clone(), t["points"].clone(), t["held"].clone()))
        .collect();
    assert_eq!(
        changes,
        [
            (json!("settle"), json!(0), json!(-300)),
            (json!("hold"), json!(-300), json!(300)),
            (json!("award"), json!(800), json!(0)),
        ]
    );

    let staff = token(&system, "anna", "staff").await;
    let record = get_as(&system, &staff, &format!("/api/v1/audit?subject={id}")).await;
    let records = record["records"].as_array().expect("a list");
    assert_eq!(records.len(), 1, "once: {record}");
    assert_eq!(records[0]["action"], "redeem.request");
    assert_eq!(records[0]["requestId"], "the-customers-request");
    let actor = records[0]["actor"].as_str().expect("text");
    assert!(actor.ends_with(&format!(" {customer}")), "{actor}");
    assert!(records[0]["address"].is_string());
}

/// The built-in merchant confirms whatever is asked, so no other road may lead to it.
#[tokio::test]
async fn nobody_redeems_at_the_built_in_merchant_by_another_road() {
    let system = system().await;
    let customer = system.customer_with(3).await;
    let redemption = |id: &str| {
        json!({
            "redeemRequestId": id, "customerId": customer, "requestedPoints": 100,
            "merchantContext": { "merchantId": "meed", "orderId": id },
            "timestamp": "2026-03-14T10:00:00Z"
        })
    };
    let (over_http, over_kafka) = (unique("R"), unique("R"));
    let body = redemption(&over_kafka).to_string();
    system
        .send("redeem-events", &customer, &[], body.as_bytes())
        .await;
    system.redeem(&unique("key"), &redemption(&over_http)).await;
    for id in [over_http, over_kafka] {
        let ended = system.ended(&id).await;
        assert_eq!(ended["status"], "FAILED", "{ended}");
        assert_eq!(ended["reason"], "UNKNOWN_MERCHANT");
    }
    assert_eq!(system.available(&customer).await, Some(300));
}

/// Registers and logs in: what the api answers.
async fn on_their_own(system: &System, path: &str, body: &Value) -> Value {
    let url = system.url(&format!("/api/v1/auth/{path}"));
    let request = system
        .http
        .post(url)
        .header("idempotency-key", unique("key"));
    let answer = patiently(request.json(body)).await;
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.expect("JSON")
}

#[tokio::test]
async fn who_registers_has_an_account_and_spends_from_it() {
    let system = system().await;
    let credentials = json!({ "username": unique("player"), "password": "correct horse battery" });
    let registered = on_their_own(&system, "register", &credentials).await;
    let player = registered["userId"].as_str().expect("an id").to_owned();
    let session = on_their_own(&system, "login", &credentials).await;
    let token = session["accessToken"].as_str().expect("a token");
    // The worker opens it when PLAYER_REGISTERED comes to it through Kafka.
    system
        .until("there is an account", async || {
            system.available(&player).await == Some(0)
        })
        .await;
    system.stay(&player, 3).await;
    system
        .until("the stay has counted", async || {
            system.available(&player).await == Some(300)
        })
        .await;
    let spent = system
        .http
        .post(system.url("/api/v1/loyalty"))
        .bearer_auth(token)
        .header("idempotency-key", unique("key"))
        .json(&json!({ "points": 120 }));
    let spent = patiently(spent).await;
    assert_eq!(spent.status(), StatusCode::ACCEPTED);
    system
        .until("it is deducted", async || {
            system.available(&player).await == Some(180)
        })
        .await;
    let account = get_as(&system, token, "/api/v1/loyalty").await;
    assert_eq!(account["userId"], player.as_str());
}
