//! The services that give a tier upgrade its context: Product, Product Search and Order.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use domain::{CustomerId, Tier, message::Recommendation};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::answer;

/// The largest answer that is read: a hundred thousand orders.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long a token for the Order Service is valid, in seconds.
const TOKEN_SECONDS: i64 = 60;

/// Where the services are.
#[derive(Debug, Clone)]
pub struct ContextSettings {
    /// Base URL of the Product Service.
    pub product_url: String,
    /// Base URL of the Product Search Service.
    pub search_url: String,
    /// Base URL of the Order Service.
    pub orders_url: String,
    /// The secret that requests to the Order Service are signed with (HS256).
    pub orders_jwt_secret: String,
    /// How long a request may take.
    pub timeout: Duration,
}

/// A service gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {service} service: {reason}")]
pub struct ContextError {
    service: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    #[serde(rename = "orderId")]
    _order_id: String,
}

/// Clients of the context services.
#[derive(Clone)]
pub struct ContextServices {
    settings: Arc<ContextSettings>,
    client: reqwest::Client,
}

impl ContextServices {
    /// Clients of these services.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(settings: ContextSettings) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .build()?;
        Ok(Self {
            settings: Arc::new(settings),
            client,
        })
    }

    /// What the Product Service recommends to the customer.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn recommendations(
        &self,
        customer: &CustomerId,
    ) -> Result<Vec<Recommendation>, ContextError> {
        let query = [("customerId", customer.as_str())];
        self.get(
            "product",
            &self.settings.product_url,
            "recommendations",
            query,
            None,
        )
        .await
    }

    /// What the Product Search Service finds for the tier.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn products_of_tier(&self, tier: Tier) -> Result<Vec<Recommendation>, ContextError> {
        let query = [("tier", tier.as_str())];
        self.get(
            "product-search",
            &self.settings.search_url,
            "search",
            query,
            None,
        )
        .await
    }

    /// How many orders the Order Service knows of the customer.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn order_count(&self, customer: &CustomerId) -> Result<u32, ContextError> {
        let now = Utc::now().timestamp();
        let claims = Claims {
            iss: "meed",
            aud: "order-service",
            sub: customer.as_str(),
            iat: now,
            exp: now + TOKEN_SECONDS,
        };
        let key = EncodingKey::from_secret(self.settings.orders_jwt_secret.as_bytes());
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|e| {
                ContextError {
                    service: "order",
                    reason: e.to_string(),
                }
            })?;
        let query = [("customerId", customer.as_str())];
        let orders: Vec<Order> = self
            .get(
                "order",
                &self.settings.orders_url,
                "orders",
                query,
                Some(token),
            )
            .await?;
        Ok(u32::try_from(orders.len()).unwrap_or(u32::MAX))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        service: &'static str,
        base: &str,
        path: &str,
        query: [(&str, &str); 1],
        token: Option<String>,
    ) -> Result<T, ContextError> {
        let failed = |reason: String| ContextError { service, reason };
        let mut url = reqwest::Url::parse(base).map_err(|e| failed(e.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| failed("its address has no path".to_owned()))?
            .pop_if_empty()
            .push(path);
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request
            .send()
            .await
            .map_err(|e| failed(e.without_url().to_string()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(failed(format!("answered {status}")));
        }
        let body = answer::body(response, ANSWER_MAX_BYTES).await;
        let body = body.map_err(|e| failed(e.without_url().to_string()))?;
        if body.len() > ANSWER_MAX_BYTES {
            return Err(failed(format!(
                "answered more than {ANSWER_MAX_BYTES} bytes"
            )));
        }
        serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))
    }
}
