//! `meed token`: a token for the dev profile, from the api's own issuer.

use anyhow::{Context, bail};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

/// The environment variable with the api's address.
const API_VARIABLE: &str = "MEED_API_URL";
/// Where the api is when the variable is not set.
const API_DEFAULT: &str = "http://127.0.0.1:21000";

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

/// Asks the api for a token and prints it, alone on a line. `scope` and `role` are words separated
/// by spaces.
///
/// # Errors
/// When the api does not answer, or gives no tokens because it is not in the dev profile.
pub async fn print(sub: &str, scope: &str, role: Option<&str>) -> anyhow::Result<()> {
    boot::process::install_crypto();
    let api = std::env::var(API_VARIABLE)
        .ok()
        .filter(|api| !api.is_empty())
        .unwrap_or_else(|| API_DEFAULT.to_owned());
    let mut url = Url::parse(&format!("{}/dev/token", api.trim_end_matches('/')))
        .with_context(|| format!("{API_VARIABLE} is {api:?}, which is not an address"))?;
    url.query_pairs_mut()
        .append_pair("sub", sub)
        .append_pair("scope", scope);
    if let Some(role) = role {
        url.query_pairs_mut().append_pair("role", role);
    }
    let response = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(5))
        .build()?
        .get(url)
        .send()
        .await
        .map_err(|_| anyhow::anyhow!("the api at {api} does not answer: start it with ./dev up"))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => bail!(
            "the api at {api} gives no tokens: that is for the dev profile with auth.dev.enabled"
        ),
        status => bail!(
            "the api at {api} answered {status}: {}",
            response.text().await.unwrap_or_default()
        ),
    }
    let token: Token = response
        .json()
        .await
        .context("the api's answer is not a token")?;
    println!("{}", token.access_token);
    Ok(())
}
