//! Customers who redeem, at Meed and at what it is measured beside.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::accounts;
use crate::system::{MERCHANT, System};

/// How many customers redeem.
pub const CUSTOMERS: usize = 1_000;
/// How many points each has before.
pub const POINTS: i64 = 100_000;
/// How many clients ask for them: so many that the limits for one are never the limit.
pub const CLIENTS: usize = 64;
/// How long a client waits for an answer before it gives up.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Where a redemption is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Meed.
    Meed,
    /// (a) A flow of the same shape whose steps do nothing.
    Floor,
    /// (b) The same saga with every step an ordinary activity.
    Ordinary,
    /// (c) The same writes in a plain handler.
    Plain,
}

impl At {
    /// All of them, in the order in which they are measured and shown.
    pub const ALL: [Self; 4] = [Self::Meed, Self::Floor, Self::Ordinary, Self::Plain];

    /// As the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meed => "Meed",
            Self::Floor => "(a) the engine's floor: a flow whose steps do nothing",
            Self::Ordinary => "(b) the same saga of ordinary activities",
            Self::Plain => "(c) the same writes in a plain handler",
        }
    }

    /// In one word; ids of its redemptions begin with it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Meed => "meed",
            Self::Floor => "floor",
            Self::Ordinary => "ordinary",
            Self::Plain => "plain",
        }
    }

    /// How many redemptions a measure is made of.
    pub const fn amount(self) -> usize {
        match self {
            Self::Meed | Self::Floor => 900,
            Self::Ordinary => 250,
            Self::Plain => 1_000,
        }
    }
}

/// How long a client waited.
#[derive(Debug, Clone, Copy)]
pub struct Waited {
    /// Until its request was answered.
    pub answered: Duration,
    /// Until it knew that the redemption is SUCCESS.
    pub confirmed: Duration,
}

/// Clients that redeem for customers.
#[derive(Clone)]
pub struct Buying {
    http: reqwest::Client,
    api: String,
    baselines: String,
    tokens: Vec<String>,
}

impl Buying {
    /// Clients with tokens of their own, and customers with points.
    ///
    /// # Errors
    /// When the api or the database does not answer.
    pub async fn begin(system: &System, baselines: String) -> Result<Self> {
        let mut tokens = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let subject = format!("shop-{number}");
            tokens.push(system.token(&subject, "rewards.redeem").await?);
        }
        let names: Vec<String> = (0..CUSTOMERS).map(customer).collect();
        accounts::open(&system.pool, &names, POINTS).await?;
        Ok(Self {
            http: system.http.clone(),
            api: system.api.clone(),
            baselines,
            tokens,
        })
    }

    /// Redeems one point, until it is known to be SUCCESS.
    ///
    /// # Errors
    /// When it does not become SUCCESS.
    pub async fn redeem(self, at: At, id: String, number: usize) -> Result<Waited> {
        let began = Instant::now();
        let (status, mut body) = match at {
            At::Meed => self.ask(&id, number).await?,
            other => {
                let url = format!("{}/{}", self.baselines, other.word());
                let request = self.http.post(url).body(redemption(&id, number));
                answered(request).await?
            }
        };
        let answered_after = began.elapsed();
        ensure!(status.is_success(), "{id} was answered {status}: {body}");
        if at == At::Meed && body["status"] != "SUCCESS" {
            let url = format!("{}/api/v1/redeem/{id}?wait=30", self.api);
            let request = self.http.get(url).bearer_auth(self.token(number));
            (_, body) = answered(request).await?;
        }
        ensure!(body["status"] == "SUCCESS", "{id} has come to {body}");
        Ok(Waited {
            answered: answered_after,
            confirmed: began.elapsed(),
        })
    }

    /// Asks Meed to redeem one point; what it answers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, id: &str, number: usize) -> Result<(StatusCode, Value)> {
        let request = self
            .http
            .post(format!("{}/api/v1/redeem", self.api))
            .bearer_auth(self.token(number))
            .header("idempotency-key", id)
            .header("content-type", "application/json")
            .body(redemption(id, number));
        answered(request).await
    }

    fn token(&self, number: usize) -> &str {
        &self.tokens[number % self.tokens.len()]
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Result<(StatusCode, Value)> {
    let response = request.timeout(ANSWER_WITHIN).send().await?;
    let status = response.status();
    let body = response.text().await?;
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    Ok((status, body))
}

fn customer(number: usize) -> String {
    format!("B-{:04}", number % CUSTOMERS)
}

fn redemption(id: &str, number: usize) -> String {
    let body = json!({
        "redeemRequestId": id,
        "customerId": customer(number),
        "requestedPoints": 1,
        "merchantContext": { "merchantId": MERCHANT, "orderId": "O-1" },
    });
    body.to_string()
}
