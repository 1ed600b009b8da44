//! `meed smoke`: a deployed system from end to end, as a client would use it: an event becomes
//! points, a request to redeem runs through its flow, and repetitions change nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};

/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long after they were accepted events and redemptions may take to have their effect.
const EFFECT_WITHIN: Duration = Duration::from_secs(60);
/// The pause before something is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What its token must allow.
const SCOPE: &str = "rewards.read rewards.write rewards.redeem";

/// What to check, and as whom.
#[derive(clap::Args)]
pub struct Smoke {
    /// Where the API is reached
    #[arg(long, env = "MEED_API_URL")]
    url: Url,
    /// A client that may read, write and redeem, at every merchant where `--merchant` names none
    /// (`meed clients add --id smoke --all-merchants --scope "rewards.read rewards.write
    /// rewards.redeem"`); without one a token of the dev profile is asked for
    #[arg(long, env = "MEED_SMOKE_CLIENT")]
    client: Option<String>,
    /// Its secret
    #[arg(long, env = "MEED_SMOKE_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// A merchant at which a point is redeemed for good, such as one for tests. Without one a
    /// redemption is asked for at a merchant that does not exist, and has to be refused
    #[arg(long)]
    merchant: Option<String>,
}

struct System {
    http: Client,
    url: Url,
    token: String,
}

/// Checks, and says how long each part took.
///
/// # Errors
/// What did not work, first of all.
pub async fn run(smoke: Smoke) -> Result<()> {
    boot::process::install_crypto();
    let http = Client::builder().timeout(ANSWER_WITHIN).build()?;
    let mut system = System {
        http,
        url: smoke.url.clone(),
        token: String::new(),
    };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let customer = format!("smoke-{id}");
    step("it is ready, and says what it can do", ready(&system)).await?;
    system.token = step("a token", token(&system, &smoke)).await?;
    step("an event becomes points", event(&system, &customer, &id)).await?;
    step(
        "a redemption runs to its end",
        redemption(&system, &smoke, &customer, &id),
    )
    .await?;
    step(
        "the history tells of it",
        history(&system, &customer, &smoke),
    )
    .await?;
    println!(
        "{} works. The customer {customer} was made for this.",
        smoke.url
    );
    Ok(())
}

async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let done = work.await.with_context(|| format!("{what}: no"))?;
    println!("{:>7} ms  {what}", begun.elapsed().as_millis());
    Ok(done)
}

impl System {
    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = self
            .url
            .join(path)
            .with_context(|| format!("{} and {path}", self.url))?;
        let request = self.http.request(method, url);
        Ok(if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        })
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Value)> {
        answer(self.request(Method::GET, path)?).await
    }

    async fn post(&self, path: &str, key: &str, body: &Value) -> Result<(StatusCode, Value)> {
        let request = self.request(Method::POST, path)?;
        answer(request.header("idempotency-key", key).json(body)).await
    }
}

async fn answer(request: RequestBuilder) -> Result<(StatusCode, Value)> {
    let response = request.send().await.context("no answer")?;
    let status = response.status();
    let text = response.text().await.context("the answer broke off")?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

fn expect(wanted: StatusCode, (status, body): (StatusCode, Value)) -> Result<Value> {
    ensure!(status == wanted, "{status} instead of {wanted}: {body}");
    Ok(body)
}

async fn ready(system: &System) -> Result<()> {
    for path in ["/health/live", "/health/ready"] {
        expect(StatusCode::OK, system.get(path).await?).context(path)?;
    }
    let document = expect(StatusCode::OK, system.get("/openapi.json").await?)?;
    ensure!(
        document["paths"]["/api/v1/redeem"].is_object(),
        "/openapi.json does not describe it"
    );
    let refused = system.get("/api/v1/rewards/smoke").await?;
    expect(StatusCode::UNAUTHORIZED, refused).context("without a token")?;
    Ok(())
}

async fn token(system: &System, smoke: &Smoke) -> Result<String> {
    let request = match (&smoke.client, &smoke.secret) {
        (Some(client), Some(secret)) => system
            .request(Method::POST, "/oauth/token")?
            .basic_auth(client, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials"),
        (None, None) => system
            .request(Method::GET, "/dev/token")?
            .query(&[("sub", "smoke"), ("scope", SCOPE)]),
        _ => bail!("a client and its secret belong together"),
    };
    let body = expect(StatusCode::OK, answer(request).await?)?;
    let token = body["access_token"].as_str();
    token
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("none in {body}"))
}

/// The same event twice: it counts once.
async fn event(system: &System, customer: &str, id: &str) -> Result<()> {
    let event = json!({
        "eventId": format!("smoke-{id}"), "eventType": "HOTEL_STAY", "customerId": customer,
        "timestamp": chrono::Utc::now().to_rfc3339(), "payload": { "nights": 1 }
    });
    for key in ["once", "twice"] {
        let key = format!("smoke-{key}-{id}");
        let accepted = system.post("/api/v1/rewards/events", &key, &event).await?;
        expect(StatusCode::ACCEPTED, accepted)?;
    }
    let began = Instant::now();
    loop {
        let (status, body) = system.get(&format!("/api/v1/rewards/{customer}")).await?;
        let points = body["totalPoints"].as_i64().filter(|points| *points > 0);
        if status == StatusCode::OK && points.is_some() {
            return Ok(());
        }
        ensure!(
            began.elapsed() < EFFECT_WITHIN,
            "no points after {} s: {status} {body}",
            EFFECT_WITHIN.as_secs()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same request twice is one redemption.
async fn redemption(system: &System, smoke: &Smoke, customer: &str, id: &str) -> Result<()> {
    let redemption = format!("smoke-{id}");
    let nobody = format!("nobody-{}", &id[..8]);
    let merchant = smoke.merchant.as_deref().unwrap_or(&nobody);
    let body = json!({
        "redeemRequestId": redemption, "customerId": customer, "requestedPoints": 1,
        "merchantContext": { "merchantId": merchant, "orderId": redemption },
    });
    let key = format!("smoke-redeem-{id}");
    for _ in 0..2 {
        let accepted = system.post("/api/v1/redeem", &key, &body).await?;
        expect(StatusCode::ACCEPTED, accepted)?;
    }
    let began = Instant::now();
    let ended = loop {
        let (status, body) = system
            .get(&format!("/api/v1/redeem/{redemption}?wait=5"))
            .await?;
        if matches!(body["status"].as_str(), Some("SUCCESS" | "FAILED")) {
            break body;
        }
        ensure!(
            began.elapsed() < EFFECT_WITHIN,
            "no end after {} s: {status} {body}",
            EFFECT_WITHIN.as_secs()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if smoke.merchant.is_some() {
        ensure!(ended["status"] == "SUCCESS", "{ended}");
    } else {
        ensure!(ended["reason"] == "UNKNOWN_MERCHANT", "{ended}");
    }
    Ok(())
}

async fn history(system: &System, customer: &str, smoke: &Smoke) -> Result<()> {
    let path = format!("/api/v1/customers/{customer}/transactions");
    let body = expect(StatusCode::OK, system.get(&path).await?)?;
    let entries = body["transactions"].as_array().map_or(0, Vec::len);
    // The award; with a merchant what was held and deducted too.
    let wanted = if smoke.merchant.is_some() { 3 } else { 1 };
    ensure!(
        entries == wanted,
        "{entries} entries instead of {wanted}: {body}"
    );
    Ok(())
}
