//! The services that a tier upgrade asks for context: Product, Product Search and
//! Order. What they answer depends on nothing but the question, so that a test can
//! ask twice.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::partners::{Partners, problem};

/// The context services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceName {
    /// Product Service.
    Product,
    /// Product Search Service.
    Search,
    /// Order Service.
    Order,
}

/// How a context service behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceMode {
    /// Answers.
    #[default]
    Ok,
    /// Answers 503.
    Error,
    /// Answers after the delay.
    Slow,
}

/// A service's mode with its delay, as the control routes take and show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSettings {
    /// How the service behaves.
    pub mode: ServiceMode,
    /// `slow`: time until the answer, 2000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

const CATALOGUE: [(&str, &str, &str); 12] = [
    ("P-101", "Weekend in a lake view room", "240.00"),
    ("P-102", "Airport transfer", "35.50"),
    ("P-103", "Late check-out", "20.00"),
    ("P-104", "Breakfast for two", "32.00"),
    ("P-105", "Spa day", "89.90"),
    ("P-106", "Tasting menu", "75.00"),
    ("P-107", "Wine evening", "48.00"),
    ("P-108", "Concert ticket", "55.00"),
    ("P-109", "Suite upgrade", "120.00"),
    ("P-110", "Table at the show", "65.00"),
    ("P-111", "Guided city walk", "18.00"),
    ("P-112", "Travel bag", "42.95"),
];

pub(crate) fn routes() -> Router<Arc<Partners>> {
    Router::new()
        .route("/product/recommendations", get(recommendations))
        .route("/product-search/search", get(search))
        .route("/order/orders", get(orders))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomerQuery {
    customer_id: String,
}

#[derive(Deserialize)]
struct TierQuery {
    tier: String,
}

async fn recommendations(
    State(partners): State<Arc<Partners>>,
    Query(query): Query<CustomerQuery>,
) -> Response {
    if let Err(response) = behave(&partners, ServiceName::Product).await {
        return response;
    }
    Json(products("recommendations", &query.customer_id)).into_response()
}

async fn search(State(partners): State<Arc<Partners>>, Query(query): Query<TierQuery>) -> Response {
    if let Err(response) = behave(&partners, ServiceName::Search).await {
        return response;
    }
    Json(products("search", &query.tier)).into_response()
}

async fn orders(
    State(partners): State<Arc<Partners>>,
    Query(query): Query<CustomerQuery>,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = behave(&partners, ServiceName::Order).await {
        return response;
    }
    if let Err(detail) = check_token(&headers, &partners.order_service_secret) {
        return problem(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", &detail);
    }
    Json(order_history(&query.customer_id)).into_response()
}

/// Counts the call and does what the service was told to do.
async fn behave(partners: &Partners, service: ServiceName) -> Result<(), Response> {
    *partners.calls().services.entry(service).or_default() += 1;
    let settings = partners.book().service(service);
    match settings.mode {
        ServiceMode::Ok => Ok(()),
        ServiceMode::Slow => {
            let delay = Duration::from_millis(settings.delay_ms.unwrap_or(2000));
            partners.pause(delay).await;
            Ok(())
        }
        ServiceMode::Error => Err(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "this service is out of order for the moment",
        )),
    }
}

fn check_token(headers: &HeaderMap, secret: &str) -> Result<(), String> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or("a bearer token is required")?;
    // Who asks and for whom is not this service's concern; that the token was
    // signed with the shared secret and has not expired is.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::decode::<Value>(token, &key, &validation)
        .map(|_| ())
        .map_err(|error| format!("the token is not valid: {error}"))
}

fn products(purpose: &str, subject: &str) -> Value {
    let seed = digest(purpose, subject);
    let start = usize::from(seed[0]) % CATALOGUE.len();
    CATALOGUE
        .iter()
        .cycle()
        .skip(start)
        .take(3)
        .map(|(id, name, price)| json!({"productId": id, "name": name, "price": price}))
        .collect()
}

fn order_history(customer_id: &str) -> Value {
    let seed = digest("orders", customer_id);
    let epoch = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_454);
    (0..usize::from(seed[0] % 4))
        .map(|index| {
            let placed_at = epoch + TimeDelta::hours(i64::from(seed[index + 1]) * 24 + 9);
            let cents = u32::from(seed[index + 8]) * 100 + u32::from(seed[index + 16] % 100);
            json!({
                "orderId": format!("ORD-{}-{index}", hex::encode(&seed[24..28])),
                "amount": format!("{}.{:02}", cents / 100, cents % 100),
                "currency": "USD",
                "placedAt": placed_at.to_rfc3339(),
            })
        })
        .collect()
}

fn digest(purpose: &str, subject: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(subject)
        .finalize()
        .into()
}
