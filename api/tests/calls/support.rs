//! What the tests of the calls share: an api without its processes, whose flows are done on the
//! spot.

use std::{path::Path, sync::Arc, time::Duration};

use activities::outcomes::Outcomes;
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
use domain::{
    Command, CustomerId, MerchantId, Points, RedeemRequestId,
    inbound::{self, Message},
    programme::Programme,
    redemption::{BUILT_IN_MERCHANT, RedemptionState},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::{
    PgPool,
    claims::{self, Claim},
    ledger, redemptions,
    testing::TestDatabase,
    transaction,
};
use tower::ServiceExt;
use workflows::contract::PromotionClaim;

/// The rules of the dev profile.
fn programme() -> Programme {
    Programme::parse(include_str!("../../../programme.toml")).unwrap()
}

/// Reserves, and takes claims and what is at the built-in merchant to their end.
struct FlowsOnTheSpot {
    pool: PgPool,
}

impl Flows for FlowsOnTheSpot {
    fn start_redemption<'a>(
        &'a self,
        redemption: &'a RedeemRequestId,
        _customer: &'a CustomerId,
        merchant: &'a MerchantId,
        _points: Points,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            let ttl = Duration::from_secs(60);
            let row = redemptions::reserve(&self.pool, redemption, ttl, |_| true)
                .await
                .unwrap();
            let reserved = row.state == RedemptionState::Reserved;
            if reserved && merchant.as_str() == BUILT_IN_MERCHANT {
                redemptions::begin_confirm(&self.pool, redemption)
                    .await
                    .unwrap();
                redemptions::settle(&self.pool, redemption, None, false)
                    .await
                    .unwrap();
            }
            Ok(())
        })
    }

    fn start_claim<'a>(
        &'a self,
        claim: &'a PromotionClaim,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async move {
            let programme = programme();
            let claim = Claim {
                promotion_id: claim.promotion_id.clone(),
                customer_id: claim.customer_id.clone(),
                number: claim.number,
            };
            let mut step = claims::mark(&self.pool, &claim, &programme).await.unwrap();
            if step.refused.is_none() {
                step = claims::credit(&self.pool, &claim, "claim", programme.tiers())
                    .await
                    .unwrap();
            }
            if let Some(refusal) = step.refused {
                claims::roll_back(&self.pool, &claim, refusal)
                    .await
                    .unwrap();
            }
            Ok(())
        })
    }

    fn signal<'a>(
        &'a self,
        _workflow_id: &'a str,
        _signal: Signal,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(async { Ok(()) })
    }
}

/// One replica.
pub struct Api {
    pub router: Router,
    pub app: Arc<App>,
    pub pool: PgPool,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The code of a problem.
    pub fn code(&self) -> &str {
        let kind = self.headers["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        self.body["code"].as_str().unwrap()
    }

    /// Status and code of a problem.
    pub fn problem(&self) -> (u16, &str) {
        (self.status.as_u16(), self.code())
    }

    /// What `Cache-Status` says after the name.
    pub fn cache_status(&self) -> &str {
        let status = self.headers["cache-status"].to_str().unwrap();
        status.strip_prefix("meed; ").unwrap()
    }
}

/// An api over a database of its own, whose copies stay fresh for a minute unless told otherwise.
pub async fn api() -> Api {
    api_on(&store::testing::database().await, |text| {
        text.replace("fresh_ms = 160", "fresh_ms = 60000")
    })
}

/// A replica over a database; `change` is made to the shipped configuration.
pub fn api_on(database: &TestDatabase, change: impl FnOnce(String) -> String) -> Api {
    let pool = database.pool.clone();
    // However busy the machine, the first step is waited for.
    let text = include_str!("../../../meed.toml")
        .replace("outcome_wait_ms = 300", "outcome_wait_ms = 20000");
    let text = change(text);
    let settings = Arc::new(Settings::parse(Path::new("meed.toml"), &text, |_| Ok(None)).unwrap());
    let flows = Arc::new(FlowsOnTheSpot { pool: pool.clone() });
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../programme.toml");
    let rules = Arc::new(LiveProgramme::load(rules.as_ref()).unwrap());
    let outcomes = Outcomes::default();
    let app = App::new(settings, rules, pool.clone(), flows, outcomes, None).unwrap();
    let app = Arc::new(app);
    Api {
        router: api::router(Arc::clone(&app)),
        app,
        pool,
    }
}

pub const EVERYTHING: &str = "rewards.read rewards.write rewards.redeem callbacks.write";

impl Api {
    pub fn token(&self, sub: &str, scope: &str, roles: &[&str], merchants: Option<&str>) -> String {
        let grant = Grant {
            sub: sub.to_owned(),
            scope: scope.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            merchants: merchants.map(|merchant| vec![merchant.to_owned()]),
        };
        self.app.dev_issuer.as_ref().unwrap().token(&grant).unwrap()
    }

    /// A client with every scope.
    pub fn client(&self) -> String {
        self.token("client", EVERYTHING, &[], None)
    }

    /// A player.
    pub fn player(&self, customer: &str) -> String {
        self.token(customer, "rewards.read rewards.redeem", &["player"], None)
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
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

    pub async fn get(&self, path: &str) -> Answer {
        self.get_as(&self.client(), path).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send(Method::GET, path, Some(token), &[], "").await
    }

    /// Posts JSON under an idempotency key; none for an empty one.
    pub async fn post_as(&self, token: &str, path: &str, key: &str, body: &Value) -> Answer {
        let json_type = ("content-type", "application/json");
        let headers = [json_type, ("idempotency-key", key)];
        let headers = if key.is_empty() {
            &headers[..1]
        } else {
            &headers
        };
        self.send(Method::POST, path, Some(token), headers, &body.to_string())
            .await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.post_as(&self.client(), path, key, body).await
    }

    /// Redeems at M1.
    pub async fn redeem(&self, id: &str, customer: &str, points: i64) -> Answer {
        let body = json!({
            "redeemRequestId": id, "customerId": customer, "requestedPoints": points,
            "merchantContext": { "merchantId": "M1", "orderId": format!("O-{id}") }
        });
        self.post("/api/v1/redeem", &format!("key-{id}"), &body)
            .await
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        let (count,): (i64,) = sqlx::query_as(query).fetch_one(&self.pool).await.unwrap();
        count
    }

    /// Counts stays of so many nights each, 100 points a night, as the worker does.
    pub async fn stays(&self, customer: &str, events: &[(&str, u32)]) {
        let bodies: Vec<String> = events
            .iter()
            .map(|(id, nights)| stay(id, customer, *nights).to_string())
            .collect();
        post_events(&self.pool, &bodies).await;
    }
}

/// A stay, as partners send it.
pub fn stay(id: &str, customer: &str, nights: u32) -> Value {
    json!({
        "eventId": id, "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": nights }
    })
}

/// Counts events as they come from Kafka.
pub async fn post_events(pool: &PgPool, bodies: &[String]) {
    let programme = programme();
    let awards: Vec<_> = bodies
        .iter()
        .map(|body| {
            let message = Message {
                topic: "reward-events",
                partition: 0,
                offset: 0,
                key: None,
                headers: &[],
                value: Some(body.as_bytes()),
                timestamp: chrono::Utc::now(),
            };
            match inbound::read(&message, chrono::Utc::now()) {
                Ok(Some(Command::Award(award))) => award,
                other => panic!("{body} is {other:?}"),
            }
        })
        .collect();
    let mut tx = transaction::begin(pool).await.unwrap();
    ledger::post_awards(&mut tx, &programme, "award/test/0/0-0", &awards)
        .await
        .unwrap();
    transaction::commit(tx, "test").await.unwrap();
}
