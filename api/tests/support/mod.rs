#![allow(dead_code, missing_docs, reason = "each test uses its own part")]
//! The API in this process, over a database of the test's own.

pub mod keys;

use std::{net::SocketAddr, path::Path, sync::Arc};

use activities::outcomes::Outcomes;
use api::{
    App,
    flows::{FlowError, Flows, Signal},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use boot::{LiveProgramme, Settings};
use domain::{CustomerId, MerchantId, Points, RedeemRequestId};
use futures::future::BoxFuture;
use serde_json::Value;
use store::testing::TestDatabase;
use tower::ServiceExt;
use workflows::contract::PromotionClaim;

/// No flow is started in these tests.
struct NoFlows;

fn no_flow() -> FlowError {
    FlowError::Unreachable(temporalio_client::tonic::Status::unavailable("not here"))
}

impl Flows for NoFlows {
    fn start_redemption<'a>(
        &'a self,
        _: &'a RedeemRequestId,
        _: &'a CustomerId,
        _: &'a MerchantId,
        _: Points,
    ) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async { Err(no_flow()) })
    }

    fn start_claim<'a>(&'a self, _: &'a PromotionClaim) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async { Err(no_flow()) })
    }

    fn signal<'a>(&'a self, _: &'a str, _: Signal) -> BoxFuture<'a, Result<(), FlowError>> {
        Box::pin(async { Err(no_flow()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), FlowError>> {
        Box::pin(async { Err(no_flow()) })
    }
}

/// The API.
pub struct Api {
    /// Its routes.
    pub router: Router,
    /// What they work with.
    pub app: Arc<App>,
    /// Its database.
    pub database: Arc<TestDatabase>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The code of a problem.
    pub fn code(&self) -> &str {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{}",
            self.body
        );
        self.body["code"].as_str().expect("a code")
    }

    /// A text of the body.
    pub fn text(&self, member: &str) -> String {
        let text = self.body[member].as_str();
        text.unwrap_or_else(|| panic!("no {member} in {}", self.body))
            .to_owned()
    }
}

/// The configuration of the dev profile with these changes, and cheap hashes.
pub fn settings(replace: &[(&str, &str)]) -> Settings {
    let mut text = include_str!("../../../meed.toml").to_owned();
    let cheap = [
        ("memory_kib = 19456", "memory_kib = 64"),
        ("iterations = 2", "iterations = 1"),
    ];
    for (old, new) in cheap.iter().chain(replace) {
        assert!(text.contains(old), "meed.toml has {old}");
        text = text.replace(old, new);
    }
    Settings::parse(Path::new("meed.toml"), &text, |_| Ok(None)).expect("it is right")
}

/// The changes to the configuration that leave no limit on how much is asked, for tests of what
/// many requests in a row do.
pub fn unlimited() -> Vec<(String, String)> {
    let text = include_str!("../../../meed.toml");
    let limits = text
        .lines()
        .filter(|line| line.contains(" = { capacity = "));
    let changes: Vec<_> = limits
        .map(|line| {
            let (class, _) = line.split_once(' ').expect("a class");
            let limits = "{ capacity = 10000, refill_per_second = 10000, max_concurrent = 10000 }";
            (line.to_owned(), format!("{class} = {limits}"))
        })
        .collect();
    assert!(!changes.is_empty(), "meed.toml has limits");
    changes
}

impl Api {
    /// With a database of its own.
    pub async fn new(replace: &[(&str, &str)]) -> Self {
        Self::on(Arc::new(store::testing::database().await), replace)
    }

    /// Another replica over the same database.
    pub fn on(database: Arc<TestDatabase>, replace: &[(&str, &str)]) -> Self {
        boot::process::install_crypto();
        let settings = Arc::new(settings(replace));
        let pool = database.pool.clone();
        let flows = Arc::new(NoFlows);
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../programme.toml");
        let rules = Arc::new(LiveProgramme::load(rules.as_ref()).expect("the rules are sound"));
        let app =
            App::new(settings, rules, pool, flows, Outcomes::default(), None).expect("an app");
        let app = Arc::new(app);
        Self {
            router: api::router(Arc::clone(&app)),
            app,
            database,
        }
    }

    /// Sends a request from 192.0.2.1.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from("192.0.2.1", request).await
    }

    /// Sends a request from this address.
    pub async fn send_from(&self, address: &str, mut request: Request<Body>) -> Answer {
        let peer = SocketAddr::new(address.parse().expect("an address"), 5_000);
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// The only number that a query gives.
    pub async fn count(&self, query: &'static str) -> i64 {
        let (count,): (i64,) = sqlx::query_as(query)
            .fetch_one(&self.database.pool)
            .await
            .expect("a count");
        count
    }
}

/// A request with JSON.
pub fn post(path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Body::from(body.to_string()))
        .expect("a request")
}

/// A request without a body, with a token.
pub fn get(path: &str, token: &str) -> Request<Body> {
    Request::builder()
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())
        .expect("a request")
}
