//! The routes over a real PostgreSQL, with flows that only remember what they were told.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use activities::{outcomes::Outcomes, signature};
use api::{
    App,
    auth::dev::Grant,
    flows::{FlowError, Flows, Signal},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use boot::{LiveProgramme, Settings};
use domain::{CustomerId, MerchantId, Points, RedeemRequestId, redemption::FailureReason};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::{redemptions, testing::TestDatabase};
use tower::ServiceExt;
use workflows::contract::PromotionClaim;

/// Reserves where the workflow would, and remembers the rest.
struct RememberedFlows {
    pool: store::PgPool,
    starts: Mutex<Vec<String>>,
    signals: Mutex<Vec<(String, Signal)>>,
    answer: bool,
}

impl Flows for RememberedFlows {
    fn start_redemption<'a>(
        &'a self,
        redemption: &'a RedeemRequestId,
        _customer: &'a CustomerId,
        _merchant: &'a MerchantId,
        _points: Points,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            self.starts.lock().unwrap().push(redemption.to_string());
            if !self.answer {
                return Err(unreachable_flow());
            }
            let ttl = Duration::from_secs(60);
            redemptions::reserve(&self.pool, redemption, ttl, |_| true)
                .await
                .unwrap();
            Ok(())
        })
    }

    fn start_claim<'a>(
        &'a self,
        _claim: &'a PromotionClaim,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async { Err(unreachable_flow()) })
    }

    fn signal<'a>(
        &'a self,
        workflow_id: &'a str,
        signal: Signal,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            self.signals
                .lock()
                .unwrap()
                .push((workflow_id.to_owned(), signal));
            if self.answer {
                Ok(())
            } else {
                Err(unreachable_flow())
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(async move {
            if self.answer {
                Ok(())
            } else {
                Err(unreachable_flow())
            }
        })
    }
}

fn unreachable_flow() -> FlowError {
    FlowError::Unreachable(temporalio_client::tonic::Status::unavailable("away"))
}

struct Api {
    router: Router,
    app: Arc<App>,
    flows: Arc<RememberedFlows>,
    database: TestDatabase,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        let kind = self.headers["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        assert_eq!(
            self.body["requestId"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        self.body["code"].as_str().unwrap()
    }
}

async fn api() -> Api {
    api_with(true).await
}

/// `answer` says whether Temporal does.
async fn api_with(answer: bool) -> Api {
    let database = store::testing::database().await;
    let mut text = include_str!("../../meed.toml").to_owned();
    if answer {
        // However busy the machine, the first step is waited for.
        text = text.replace("outcome_wait_ms = 300", "outcome_wait_ms = 20000");
    }
    let settings = Arc::new(Settings::parse(Path::new("meed.toml"), &text, |_| Ok(None)).unwrap());
    let flows = Arc::new(RememberedFlows {
        pool: database.pool.clone(),
        starts: Mutex::default(),
        signals: Mutex::default(),
        answer,
    });
    let told: Arc<dyn Flows> = flows.clone();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../programme.toml");
    let app = App::new(
        settings,
        Arc::new(LiveProgramme::load(rules.as_ref()).unwrap()),
        database.pool.clone(),
        told,
        Outcomes::default(),
        None,
    )
    .unwrap();
    let app = Arc::new(app);
    Api {
        router: api::router(Arc::clone(&app)),
        app,
        flows,
        database,
    }
}

impl Api {
    fn token(&self, grant: &Grant) -> String {
        self.app.dev_issuer.as_ref().unwrap().token(grant).unwrap()
    }

    fn client(&self) -> String {
        self.token(&Grant {
            sub: "client".to_owned(),
            scope: "rewards.read rewards.redeem callbacks.write".to_owned(),
            ..Grant::default()
        })
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, Some(&self.client()), &[], ""))
            .await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(request(
            Method::POST,
            path,
            Some(&self.client()),
            headers,
            body,
        ))
        .await
    }

    async fn redeem(&self, key: &str, body: &Value) -> Answer {
        let headers = [
            ("idempotency-key", key),
            ("content-type", "application/json"),
        ];
        self.post("/api/v1/redeem", &headers, &body.to_string())
            .await
    }

    async fn customer(&self, id: &str, points: i64) {
        sqlx::query(
            "WITH account AS (
                 INSERT INTO customers (customer_id, available, lifetime_earned, version)
                 VALUES ($1, $2, $2, 1) RETURNING customer_id)
             INSERT INTO transfers (source, source_event_id, leg, debit_account, credit_account,
                 customer_id, amount, reason, workflow_id, customer_version, available_after,
                 held_after, occurred_at)
             SELECT 'reward-event', 'E-' || $1, 'award', 'ISSUANCE', 'AVAILABLE', customer_id, $2,
                    'HOTEL_STAY', 'w', 1, $2, 0, clock_timestamp() FROM account",
        )
        .bind(id)
        .bind(points)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    async fn count(&self, query: &'static str) -> i64 {
        let (count,): (i64,) = sqlx::query_as(query)
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        count
    }
}

fn request(
    method: Method,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn redemption(id: &str, points: i64) -> Value {
    json!({
        "redeemRequestId": id, "customerId": "C1", "requestedPoints": points,
        "merchantContext": { "merchantId": "M1", "orderId": "O1" }
    })
}

#[tokio::test]
async fn a_redemption_is_accepted_and_shown() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    let answer = api.redeem("k1", &redemption("R1", 250)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert_eq!(
        answer.body,
        json!({ "redeemRequestId": "R1", "status": "RESERVED" })
    );
    assert_eq!(answer.headers["location"], "/api/v1/redeem/R1");

    let shown = api.get("/api/v1/redeem/R1").await;
    assert_eq!(shown.status, StatusCode::OK);
    assert_eq!(shown.body["status"], "RESERVED");
    assert_eq!(shown.body["pointsDeducted"], 0);
    assert_eq!(shown.body["balanceAfter"], Value::Null);
    assert_eq!(
        shown.body["merchantContext"],
        json!({ "merchantId": "M1", "orderId": "O1" })
    );
    assert!(shown.body.get("reason").is_none());

    let rewards = api.get("/api/v1/rewards/C1").await;
    assert_eq!(rewards.body["totalPoints"], 750, "{}", rewards.body);
    assert_eq!(
        rewards.body["breakdown"],
        json!([
            { "source": "redeem", "reason": "REDEMPTION", "points": -250, "transfers": 1 },
            { "source": "reward-event", "reason": "HOTEL_STAY", "points": 1000, "transfers": 1 }
        ])
    );
    let audit = "SELECT count(*) FROM audit_records WHERE action = 'redeem.request'
                 AND subject = 'R1' AND actor = 'http://127.0.0.1:21000 client'";
    assert_eq!(api.count(audit).await, 1);
}

#[tokio::test]
async fn the_same_key_and_body_replays_the_answer() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    let first = api.redeem("k1", &redemption("R1", 250)).await;
    let again = api.redeem("k1", &redemption("R1", 250)).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(api.flows.starts.lock().unwrap().len(), 1);

    let other = api.redeem("k1", &redemption("R2", 250)).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.code(), "IDEMPOTENCY_KEY_REUSED");

    let poor = api.redeem("k2", &redemption("R3", 5_000)).await;
    assert_eq!(
        (poor.status, poor.code()),
        (StatusCode::CONFLICT, "INSUFFICIENT_POINTS")
    );
    api.customer("C9", 1).await;
    let poor_again = api.redeem("k2", &redemption("R3", 5_000)).await;
    assert_eq!(poor_again.code(), "INSUFFICIENT_POINTS");
    assert_eq!(poor_again.headers["idempotent-replayed"], "true");
    assert_eq!(
        api.count("SELECT count(*) FROM redemptions").await,
        1,
        "a refusal writes no row"
    );
}

#[tokio::test]
async fn many_at_once_have_one_effect_and_one_answer() {
    let api = Arc::new(api().await);
    api.customer("C1", 1_000).await;
    let tasks: Vec<_> = (0..60)
        .map(|_| {
            let api = Arc::clone(&api);
            tokio::spawn(async move { api.redeem("k1", &redemption("R1", 250)).await })
        })
        .collect();
    let mut bodies = Vec::new();
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(api.flows.starts.lock().unwrap().len(), 1);
    assert_eq!(
        api.count("SELECT count(*) FROM transfers WHERE leg = 'hold'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_request_under_way_is_said_to_be() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    let body = redemption("R1", 250);
    api.redeem("k1", &body).await;
    let forget = "UPDATE idempotency_keys SET response_status = NULL, response_body = NULL";
    sqlx::query(forget)
        .execute(&api.database.pool)
        .await
        .unwrap();
    let answer = api.redeem("k1", &body).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::CONFLICT, "REQUEST_IN_PROGRESS")
    );
    // The request died between effect and answer; once its lock has run out, the same one again
    // finds the effect.
    let unlock = "UPDATE idempotency_keys SET locked_until = clock_timestamp()";
    sqlx::query(unlock)
        .execute(&api.database.pool)
        .await
        .unwrap();
    let answer = api.redeem("k1", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert_eq!(api.count("SELECT count(*) FROM redemptions").await, 1);
}

#[tokio::test]
async fn the_same_id_is_the_same_redemption_or_a_conflict() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 900)).await;
    let same = api.redeem("k2", &redemption("R1", 900)).await;
    assert_eq!(
        same.status,
        StatusCode::ACCEPTED,
        "what was accepted is affordable: {}",
        same.body
    );
    let other = api.redeem("k3", &redemption("R1", 10)).await;
    assert_eq!(
        (other.status, other.code()),
        (StatusCode::CONFLICT, "CONFLICTING_REQUEST")
    );
}

#[tokio::test]
async fn a_start_in_doubt_never_fails_the_request() {
    let api = api_with(false).await;
    api.customer("C1", 1_000).await;
    let answer = api.redeem("k1", &redemption("R1", 250)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body["status"], "QUEUED");
    let cancelled = api
        .post("/api/v1/redeem/R1/cancel", &[("idempotency-key", "k2")], "")
        .await;
    assert_eq!(
        cancelled.status,
        StatusCode::ACCEPTED,
        "the row has it: {}",
        cancelled.body
    );
}

#[tokio::test]
async fn bad_requests_have_distinct_codes() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    let json_type = ("content-type", "application/json");
    let mut with_extra = redemption("R1", 1);
    with_extra["extra"] = json!(1);
    let mut nested_extra = redemption("R1", 1);
    nested_extra["merchantContext"]["extra"] = json!(1);
    let mut without_merchant = redemption("R1", 1);
    without_merchant
        .as_object_mut()
        .unwrap()
        .remove("merchantContext");
    for (body, code) in [
        ("{".to_owned(), "MALFORMED_JSON"),
        (with_extra.to_string(), "WRONG_TYPE"),
        (nested_extra.to_string(), "WRONG_TYPE"),
        (without_merchant.to_string(), "MISSING_FIELD"),
        (redemption("", 1).to_string(), "INVALID_ID"),
        (redemption(&"x".repeat(129), 1).to_string(), "INVALID_ID"),
        (redemption("a/b", 1).to_string(), "INVALID_ID"),
        (redemption("R1", 0).to_string(), "INVALID_POINTS"),
        (redemption("R1", -5).to_string(), "INVALID_POINTS"),
        (
            redemption("R1", 1).to_string().replace("\"C1\"", "17"),
            "WRONG_TYPE",
        ),
        (
            redemption("R1", 17).to_string().replace(":17", ":1.5"),
            "INVALID_POINTS",
        ),
        (
            redemption("R1", 17)
                .to_string()
                .replace(":17", ":9223372036854775808"),
            "INVALID_POINTS",
        ),
    ] {
        let answer = api
            .post(
                "/api/v1/redeem",
                &[("idempotency-key", "k"), json_type],
                &body,
            )
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{body}"
        );
    }
    let body = redemption("R1", 1).to_string();
    let answer = api.post("/api/v1/redeem", &[json_type], &body).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_MISSING")
    );
    let long = "k".repeat(256);
    let answer = api
        .post(
            "/api/v1/redeem",
            &[json_type, ("idempotency-key", &long)],
            &body,
        )
        .await;
    assert_eq!(answer.code(), "IDEMPOTENCY_KEY_INVALID");
    let answer = api
        .post("/api/v1/redeem", &[("idempotency-key", "k")], &body)
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
    );
    let large = format!("{{\"x\": \"{}\"}}", "x".repeat(70_000));
    let answer = api
        .post(
            "/api/v1/redeem",
            &[("idempotency-key", "k"), json_type],
            &large,
        )
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
    );
    assert_eq!(api.count("SELECT count(*) FROM idempotency_keys").await, 0);
}

#[tokio::test]
async fn every_call_needs_a_token_with_its_scope() {
    let api = api().await;
    let none = api.token(&Grant {
        sub: "client".to_owned(),
        ..Grant::default()
    });
    for (method, path) in [
        (Method::POST, "/api/v1/redeem"),
        (Method::GET, "/api/v1/redeem/R1"),
        (Method::POST, "/api/v1/redeem/R1/cancel"),
        (Method::GET, "/api/v1/rewards/C1"),
        (Method::POST, "/api/v1/callbacks/x/success"),
        (Method::POST, "/api/v1/callbacks/x/failure"),
    ] {
        let answer = api.send(request(method.clone(), path, None, &[], "")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED")
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let answer = api
            .send(request(method.clone(), path, Some("x.y.z"), &[], ""))
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "INVALID_TOKEN")
        );
        let answer = api.send(request(method, path, Some(&none), &[], "")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "INSUFFICIENT_SCOPE")
        );
    }
}

#[tokio::test]
async fn players_and_partners_reach_only_their_own() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 250)).await;
    let grant = |merchants: Option<&str>, roles: &[&str], sub: &str| {
        api.token(&Grant {
            sub: sub.to_owned(),
            scope: "rewards.read rewards.redeem".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            merchants: merchants.map(|merchant| vec![merchant.to_owned()]),
        })
    };
    let other_partner = grant(Some("M2"), &[], "partner");
    let own_partner = grant(Some("M1"), &[], "partner");
    let other_player = grant(None, &["player"], "C2");
    let own_player = grant(None, &["player"], "C1");
    let headers = [
        ("idempotency-key", "k"),
        ("content-type", "application/json"),
    ];
    let body = redemption("R2", 1).to_string();
    for (token, redeem_code) in [
        (&other_partner, "MERCHANT_NOT_ALLOWED"),
        (&other_player, "CUSTOMER_NOT_ALLOWED"),
    ] {
        let shown = request(Method::GET, "/api/v1/redeem/R1", Some(token), &[], "");
        let shown = api.send(shown).await;
        assert_eq!(
            (shown.status, shown.code()),
            (StatusCode::NOT_FOUND, "REDEMPTION_NOT_FOUND")
        );
        let cancel = request(
            Method::POST,
            "/api/v1/redeem/R1/cancel",
            Some(token),
            &headers,
            "",
        );
        assert_eq!(api.send(cancel).await.status, StatusCode::NOT_FOUND);
        let redeem = request(Method::POST, "/api/v1/redeem", Some(token), &headers, &body);
        let redeem = api.send(redeem).await;
        assert_eq!(
            (redeem.status, redeem.code()),
            (StatusCode::FORBIDDEN, redeem_code)
        );
    }
    for role in ["player", "Player", "customer"] {
        let token = grant(None, &[role], "C2");
        let balance = request(Method::GET, "/api/v1/rewards/C1", Some(&token), &[], "");
        assert_eq!(api.send(balance).await.code(), "CUSTOMER_NOT_ALLOWED");
    }
    for token in [&own_partner, &own_player] {
        let shown = request(Method::GET, "/api/v1/redeem/R1", Some(token), &[], "");
        assert_eq!(api.send(shown).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn cancelling_is_recorded_and_signalled_until_the_end() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 250)).await;
    let path = "/api/v1/redeem/R1/cancel";
    let missing = api.post(path, &[], "").await;
    assert_eq!(missing.code(), "IDEMPOTENCY_KEY_MISSING");
    let answer = api.post(path, &[("idempotency-key", "c1")], "").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body["status"], "RESERVED");
    assert_eq!(
        *api.flows.signals.lock().unwrap(),
        [("R1".to_owned(), Signal::CancelRequested)]
    );
    let id = RedeemRequestId::new("R1").unwrap();
    redemptions::release(&api.database.pool, &id, FailureReason::Cancelled)
        .await
        .unwrap();
    let ended = api.post(path, &[("idempotency-key", "c2")], "").await;
    assert_eq!(
        (ended.status, ended.code()),
        (StatusCode::CONFLICT, "ALREADY_ENDED")
    );
    let replayed = api.post(path, &[("idempotency-key", "c1")], "").await;
    assert_eq!(replayed.status, StatusCode::ACCEPTED);
    let shown = api.get("/api/v1/redeem/R1").await;
    assert_eq!(
        (&shown.body["status"], &shown.body["reason"]),
        (&json!("FAILED"), &json!("CANCELLED"))
    );
    assert_eq!(shown.body["balanceAfter"], 1_000);
    let unknown = api
        .post("/api/v1/redeem/R9/cancel", &[("idempotency-key", "c3")], "")
        .await;
    assert_eq!(unknown.code(), "REDEMPTION_NOT_FOUND");
}

#[tokio::test]
async fn waiting_ends_with_the_redemption() {
    let api = Arc::new(api().await);
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 250)).await;
    let waiting = tokio::spawn({
        let api = Arc::clone(&api);
        async move { api.get("/api/v1/redeem/R1?wait=20").await }
    });
    let id = RedeemRequestId::new("R1").unwrap();
    redemptions::release(&api.database.pool, &id, FailureReason::PartnerTimeout)
        .await
        .unwrap();
    let shown = tokio::time::timeout(Duration::from_secs(15), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shown.body["status"], "FAILED");

    api.redeem("k2", &redemption("R2", 250)).await;
    let shown = api.get("/api/v1/redeem/R2?wait=1").await;
    assert_eq!(shown.body["status"], "RESERVED", "the wait is bounded");
    assert_eq!(
        api.get("/api/v1/redeem/R2?wait=soon").await.code(),
        "INVALID_PARAMETER"
    );
    assert_eq!(
        api.get("/api/v1/redeem/R2?for=1").await.code(),
        "INVALID_PARAMETER"
    );
    assert_eq!(
        api.get("/api/v1/redeem/R9?wait=5").await.code(),
        "REDEMPTION_NOT_FOUND"
    );
    // A process that is to end keeps nobody waiting.
    let waiting = tokio::spawn({
        let api = Arc::clone(&api);
        async move { api.get("/api/v1/redeem/R2?wait=20").await }
    });
    api.app.readiness.drain();
    tokio::time::timeout(Duration::from_secs(15), waiting)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn balances_of_ranges_and_past_instants() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    let total = async |query: &str| {
        let answer = api.get(&format!("/api/v1/rewards/C1{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.body);
        (
            answer.body["totalPoints"].as_i64().unwrap(),
            answer.body.get("breakdown").is_some(),
        )
    };
    assert_eq!(total("").await, (1_000, true));
    assert_eq!(total("?breakdown=false").await, (1_000, false));
    assert_eq!(total("?from=2020-01-01&to=2020-02-01").await, (0, true));
    let lately = (chrono::Utc::now() - chrono::TimeDelta::days(399)).format("%Y-%m-%d");
    assert_eq!(
        total(&format!("?from={lately}&breakdown=false")).await,
        (1_000, false)
    );
    assert_eq!(total("?to=2020-01-01").await, (0, true));
    assert_eq!(total("?at=2020-01-01").await, (0, true));
    assert_eq!(
        total("?at=9999-12-31T23:59:59.999999999Z").await,
        (1_000, true)
    );
    assert_eq!(total("?at=0001-01-01&breakdown=false").await, (0, false));
    assert_eq!(total("?at=2020-01-01&breakdown=false").await, (0, false));
    for query in [
        "?from=soon",
        "?from=-4800-01-01",
        "?from=-262143-01-01",
        "?to=%2B10000-01-01",
        "?at=0000-12-31",
        "?from=2024-01-01&to=2026-01-01",
        "?from=2024-01-01",
        "?from=0001-01-01",
        "?at=2020-01-01&from=2020-01-01",
        "?x=1",
        "?breakdown=maybe",
    ] {
        let answer = api.get(&format!("/api/v1/rewards/C1{query}")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "INVALID_PARAMETER")
        );
    }
    let unknown = api.get("/api/v1/rewards/C9").await;
    assert_eq!(
        (unknown.status, unknown.code()),
        (StatusCode::NOT_FOUND, "CUSTOMER_NOT_FOUND")
    );
    api.database.pool.close().await;
    let away = api.get(&format!("/api/v1/rewards/C1?from={lately}")).await;
    assert_eq!(
        (away.status, away.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "LEDGER_UNAVAILABLE")
    );
    assert_eq!(away.body["partial"], true);
    assert_eq!(away.headers["retry-after"], "1");
}

/// A callback id that ends with these digits.
fn callback_id(digits: &str) -> String {
    format!("{digits:0>48}")
}

/// Texts that cannot be callback ids, as they stand in an address.
fn no_callback_ids() -> [String; 7] {
    [
        "nothing".to_owned(),
        "a%00b".to_owned(),
        "%FF".to_owned(),
        callback_id("CB1"),
        callback_id("%00"),
        callback_id("cb1")[1..].to_owned(),
        format!("0{}", callback_id("cb1")),
    ]
}

async fn promise(
    api: &Api,
    id: &str,
    kind: &str,
    merchant: Option<&str>,
    subject: &str,
    seconds: i32,
) {
    sqlx::query(
        "INSERT INTO callbacks (callback_id, kind, workflow_id, subject, merchant_id, expires_at)
         VALUES ($1, $2, 'flow/' || $1, $3, $4, clock_timestamp() + $5 * interval '1 second')",
    )
    .bind(id)
    .bind(kind)
    .bind(subject)
    .bind(merchant)
    .bind(seconds)
    .execute(&api.database.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn acknowledgements_are_taken_once() {
    let api = api().await;
    let [cb1, cb2, cb3, cb9] = ["cb1", "cb2", "cb3", "cb9"].map(callback_id);
    promise(&api, &cb1, "TIER_UPGRADE", None, "1", 60).await;
    promise(&api, &cb2, "TIER_UPGRADE", None, "2", -1).await;
    promise(&api, &cb3, "PARTNER", Some("M1"), "R1", 60).await;
    let answer = async |id: &str, verdict: &str| {
        api.post(&format!("/api/v1/callbacks/{id}/{verdict}"), &[], "")
            .await
    };
    let taken = answer(&cb1, "success").await;
    assert_eq!(taken.status, StatusCode::OK);
    assert_eq!(
        taken.body,
        json!({ "callbackId": cb1, "answer": "SUCCESS" })
    );
    let signal = (format!("flow/{cb1}"), Signal::NotificationAcknowledged);
    assert_eq!(*api.flows.signals.lock().unwrap(), [signal]);
    assert_eq!(answer(&cb1, "success").await.status, StatusCode::OK);
    assert_eq!(
        answer(&cb1, "failure").await.code(),
        "CALLBACK_ALREADY_ANSWERED"
    );
    assert_eq!(answer(&cb1, "failure").await.status, StatusCode::CONFLICT);
    let expired = answer(&cb2, "success").await;
    assert_eq!(
        (expired.status, expired.code()),
        (StatusCode::GONE, "CALLBACK_EXPIRED")
    );
    for unknown in [&cb9, &cb3].into_iter().chain(&no_callback_ids()) {
        let unknown = answer(unknown, "success").await;
        assert_eq!(
            (unknown.status, unknown.code()),
            (StatusCode::NOT_FOUND, "CALLBACK_UNKNOWN")
        );
    }
    let signalled = "SELECT count(*) FROM callbacks WHERE signalled_at IS NOT NULL";
    assert_eq!(api.count(signalled).await, 1);
    assert_eq!(api.count("SELECT count(*) FROM audit_records").await, 1);
    // With the database away, what can be no id is still none.
    api.database.pool.close().await;
    for id in no_callback_ids() {
        assert_eq!(answer(&id, "failure").await.code(), "CALLBACK_UNKNOWN");
    }
}

#[tokio::test]
async fn a_merchants_late_answer_needs_its_signature() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 250)).await;
    let (callback,): (String,) = sqlx::query_as("SELECT callback_id FROM redemptions")
        .fetch_one(&api.database.pool)
        .await
        .unwrap();
    let now = chrono::Utc::now().timestamp();
    let send = async |id: &str, key: &str, at: i64, body: &str| {
        let signed = signature::sign(key.as_bytes(), at, body.as_bytes());
        let (at, path) = (at.to_string(), format!("/api/v1/partner-callbacks/{id}"));
        let headers = [
            ("meed-timestamp", at.as_str()),
            ("meed-signature", signed.as_str()),
        ];
        api.send(request(Method::POST, &path, None, &headers, body))
            .await
    };
    let body = r#"{"status":"CONFIRMED","confirmationId":"C-1","later":true}"#;
    for (key, at) in [("dev-key-M2", now), ("dev-key-M1", now - 400)] {
        let answer = send(&callback, key, at, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "INVALID_SIGNATURE")
        );
    }
    let path = format!("/api/v1/partner-callbacks/{callback}");
    let unsigned = api
        .send(request(Method::POST, &path, None, &[], body))
        .await;
    assert_eq!(unsigned.code(), "INVALID_SIGNATURE");
    let broken = send(&callback, "dev-key-M1", now, r#"{"status":"PERHAPS"}"#).await;
    assert_eq!(
        (broken.status, broken.code()),
        (StatusCode::BAD_REQUEST, "INVALID_BODY")
    );

    let taken = send(&callback, "dev-key-M1", now, body).await;
    assert_eq!(taken.status, StatusCode::OK, "{}", taken.body);
    assert_eq!(
        *api.flows.signals.lock().unwrap(),
        [("R1".to_owned(), Signal::PartnerCalledBack)]
    );
    let verdict = "SELECT count(*) FROM redemptions WHERE partner_verdict = 'CONFIRMED'
                   AND partner_detail = 'C-1'";
    assert_eq!(api.count(verdict).await, 1);
    assert_eq!(
        send(&callback, "dev-key-M1", now, body).await.status,
        StatusCode::OK
    );
    let other = send(&callback, "dev-key-M1", now, r#"{"status":"REFUSED"}"#).await;
    assert_eq!(
        (other.status, other.code()),
        (StatusCode::CONFLICT, "CALLBACK_ALREADY_ANSWERED")
    );
    for id in no_callback_ids().into_iter().chain([callback_id("cb9")]) {
        let unknown = send(&id, "dev-key-M1", now, body).await;
        assert_eq!(
            (unknown.status, unknown.code()),
            (StatusCode::NOT_FOUND, "CALLBACK_UNKNOWN")
        );
    }
    let late = callback_id("1a7e");
    promise(&api, &late, "PARTNER", Some("M1"), "R1", -1).await;
    let late = send(&late, "dev-key-M1", now, body).await;
    assert_eq!(
        (late.status, late.code()),
        (StatusCode::GONE, "CALLBACK_EXPIRED")
    );
}

/// A merchant that confirms what it has voided is too late each time, and what it said is kept.
#[tokio::test]
async fn a_confirmation_of_what_was_voided_is_too_late_and_kept() {
    let api = api().await;
    api.customer("C1", 1_000).await;
    api.redeem("k1", &redemption("R1", 250)).await;
    let (callback,): (String,) =
        sqlx::query_as("UPDATE redemptions SET partner_verdict = 'VOIDED' RETURNING callback_id")
            .fetch_one(&api.database.pool)
            .await
            .unwrap();
    let now = chrono::Utc::now().timestamp();
    let body = r#"{"status":"CONFIRMED"}"#;
    let signed = signature::sign(b"dev-key-M1", now, body.as_bytes());
    let at = now.to_string();
    let headers = [
        ("meed-timestamp", at.as_str()),
        ("meed-signature", signed.as_str()),
    ];
    let path = format!("/api/v1/partner-callbacks/{callback}");
    for _ in 0..2 {
        let late = api
            .send(request(Method::POST, &path, None, &headers, body))
            .await;
        assert_eq!(
            (late.status, late.code()),
            (StatusCode::GONE, "CALLBACK_EXPIRED")
        );
    }
    let kept = "SELECT count(*) FROM callbacks WHERE late_answer = 'CONFIRMED'";
    assert_eq!(api.count(kept).await, 1);
    assert!(api.flows.signals.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_has_no_route_is_a_problem_too() {
    let api = api().await;
    let nowhere = api.get("/api/v2/redeem").await;
    assert_eq!(
        (nowhere.status, nowhere.code()),
        (StatusCode::NOT_FOUND, "NO_SUCH_ROUTE")
    );
    let method = api
        .send(request(Method::DELETE, "/api/v1/redeem", None, &[], ""))
        .await;
    assert_eq!(
        (method.status, method.code()),
        (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED")
    );
    assert!(method.headers.contains_key("allow"));
    let unreadable = api.get("/api/v1/rewards/%FF").await;
    assert_eq!(unreadable.status, StatusCode::BAD_REQUEST);
    assert_eq!(unreadable.code(), "INVALID_PARAMETER");
}

#[tokio::test]
async fn every_answer_carries_its_request_id_and_guards() {
    let api = api().await;
    let given = [("x-request-id", "from-the-client")];
    let answer = api
        .send(request(Method::GET, "/health/live", None, &given, ""))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-request-id"], "from-the-client");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["x-frame-options"], "DENY");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(!answer.headers.contains_key("server"));
    let unusable = [("x-request-id", "with a space")];
    let answer = api
        .send(request(Method::GET, "/health/live", None, &unusable, ""))
        .await;
    assert_eq!(answer.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn readiness_needs_database_temporal_and_worker() {
    let api = api().await;
    let ready = api.get("/health/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.body["worker"], false);
    api.app.readiness.set_worker(true);
    let ready = api.get("/health/ready").await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.body);
    api.app.readiness.drain();
    assert_eq!(api.get("/health/ready").await.body["draining"], true);

    let away = api_with(false).await;
    away.app.readiness.set_worker(true);
    away.database.pool.close().await;
    let ready = away.get("/health/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({
        "ready": false, "database": false, "temporal": false, "worker": true, "draining": false
    });
    assert_eq!(ready.body, expected);
}

#[tokio::test]
async fn documentation_keys_and_dev_tokens_are_open() {
    let api = api().await;
    let open = async |path: &str| api.send(request(Method::GET, path, None, &[], "")).await;
    assert_eq!(open("/openapi.json").await.body["openapi"], "3.1.0");
    assert!(
        open("/docs/")
            .await
            .body
            .as_str()
            .unwrap()
            .contains("swagger")
    );
    let keys = open("/.well-known/jwks.json").await;
    assert_eq!(keys.body["keys"][0]["kty"], "OKP");
    assert!(keys.body["keys"][0].get("d").is_none());
    let token = open("/dev/token?sub=me&scope=rewards.read&role=staff").await;
    assert_eq!(token.body["token_type"], "Bearer");
    let token = token.body["access_token"].as_str().unwrap();
    let read = request(Method::GET, "/api/v1/rewards/C9", Some(token), &[], "");
    assert_eq!(api.send(read).await.code(), "CUSTOMER_NOT_FOUND");
    assert_eq!(open("/dev/token").await.code(), "INVALID_PARAMETER");
}
