//! Somebody to be on the page: a player with points and redemptions, and somebody who works for the programme. Only the
//! dev profile can have them: there alone an admin's token is to be had for the asking.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{LOOK_AGAIN_AFTER, partners};

const PLAYER: &str = "demo-player";
const STAFF: &str = "demo-staff";
/// Of both. It guards nothing.
const PASSWORD: &str = "see how points move";
const POINTS_WITHIN: Duration = Duration::from_secs(60);

/// Makes whoever is not there yet, and prints how to log in. To be there already is no error.
pub(crate) async fn prepare(api: &str) -> anyhow::Result<()> {
    let api = Api {
        url: api,
        http: partners::client()?,
    };
    let admin = api.token(&[("sub", "demo"), ("role", "admin")]).await?;
    api.register("register-staff", STAFF, Some(&admin)).await?;
    // Whoever registers is given the one of this type that holds; there may be one already.
    let welcome = json!({
        "title": "Welcome to the programme", "description": "Fifty points to begin with.",
        "type": "WELCOME_BONUS", "amount": "50.00",
        "startDate": "2026-01-01", "endDate": "2100-01-01"
    });
    api.post("promotions", &admin, "welcome", &welcome).await?;
    let is_new = api.register("register", PLAYER, None).await?;
    let session = api.log_in(PLAYER).await?;
    let player = session["userId"].as_str().context("a player has an id")?;

    let scope = "rewards.read rewards.write rewards.redeem";
    let client = api.token(&[("sub", "demo"), ("scope", scope)]).await?;
    let stay = json!({
        "eventId": format!("demo-stay-{player}"), "eventType": "HOTEL_STAY", "customerId": player,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 12 }
    });
    let (sent, _) = api.post("rewards/events", &client, "stay", &stay).await?;
    ensure!(sent.is_success(), "the API answered {sent} to a stay");
    api.until_points(player, &client).await?;
    for merchant in ["M1", "M2", "M3"] {
        let id = format!("demo-{merchant}-{player}");
        let redemption = json!({
            "redeemRequestId": id, "customerId": player, "requestedPoints": 100,
            "merchantContext": { "merchantId": merchant, "orderId": format!("O-{merchant}") },
            "timestamp": "2026-03-14T12:00:00Z"
        });
        let (asked, _) = api.post("redeem", &client, merchant, &redemption).await?;
        ensure!(asked.is_success(), "the API answered {asked} to {id}");
    }
    if is_new {
        api.offer(&admin, player).await?;
    }

    println!("{PLAYER} or {STAFF}, with the password: {PASSWORD}");
    println!(
        "A redemption to look at as {STAFF}: {}/app#redemptions/demo-M2-{player}",
        api.url
    );
    Ok(())
}

struct Api<'a> {
    url: &'a str,
    http: Client,
}

impl Api<'_> {
    async fn token(&self, query: &[(&str, &str)]) -> anyhow::Result<String> {
        let url = format!("{}/dev/token", self.url);
        let answer = self.http.get(url).query(query).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            bail!("there are people in the dev profile only");
        }
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str();
        Ok(token.context("the API gave no token")?.to_owned())
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}/api/v1/{path}", self.url))
    }

    /// Registers somebody; false where the name is taken already.
    async fn register(&self, path: &str, name: &str, token: Option<&str>) -> anyhow::Result<bool> {
        let mut request = self.request(&format!("auth/{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let request = request.header("idempotency-key", format!("demo-{name}"));
        let credentials = json!({ "username": name, "password": PASSWORD });
        let status = request.json(&credentials).send().await?.status();
        ensure!(
            status.is_success() || status == StatusCode::CONFLICT,
            "the API answered {status} to the registration of {name}"
        );
        Ok(status.is_success())
    }

    async fn log_in(&self, name: &str) -> anyhow::Result<Value> {
        let credentials = json!({ "username": name, "password": PASSWORD });
        let answer = self.request("auth/login").json(&credentials).send().await?;
        let answer = answer
            .error_for_status()
            .with_context(|| format!("{name} has another password"))?;
        Ok(answer.json().await?)
    }

    /// Posts, and says how it was answered. The key is the same each time, so that asking again changes nothing.
    async fn post(
        &self,
        path: &str,
        token: &str,
        what: &str,
        body: &Value,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.request(path).bearer_auth(token);
        let request = request.header("idempotency-key", format!("demo-{what}"));
        let answer = request.json(body).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    /// Offers the player something beside the welcome.
    async fn offer(&self, admin: &str, player: &str) -> anyhow::Result<()> {
        let offer = json!({
            "title": "Ten for the new year", "description": "For everybody who has stayed with us.",
            "type": "SEASONAL", "amount": "10.00", "startDate": "2026-01-01", "endDate": "2100-01-01"
        });
        let (made, offer) = self.post("promotions", admin, "offer", &offer).await?;
        ensure!(made.is_success(), "the API answered {made} to a promotion");
        let assign = format!(
            "promotions/{}/assign",
            offer["id"].as_str().context("its id")?
        );
        let players = json!({ "playerIds": [player] });
        let (assigned, _) = self.post(&assign, admin, "assign", &players).await?;
        ensure!(
            assigned.is_success(),
            "the API answered {assigned} to an assignment"
        );
        Ok(())
    }

    async fn until_points(&self, player: &str, token: &str) -> anyhow::Result<()> {
        let asked_since = Instant::now();
        let url = format!("{}/api/v1/rewards/{player}", self.url);
        loop {
            let answer = self.http.get(&url).bearer_auth(token).send().await?;
            if answer.status().is_success() {
                let answer: Value = answer.json().await?;
                let lines = answer["breakdown"].as_array();
                if lines.is_some_and(|lines| !lines.is_empty()) {
                    return Ok(());
                }
            }
            ensure!(asked_since.elapsed() < POINTS_WITHIN, "no points have come");
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}
