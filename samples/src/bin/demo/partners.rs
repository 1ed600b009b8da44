//! The other parties over HTTP: is the API ready, and what do the merchants' books say.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode};
use samples::recompute::Expectation;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    redeem_request_id: String,
    status: String,
}

/// Requests that the merchants confirmed, where they let one look.
pub(crate) type Books = Option<BTreeSet<String>>;

/// An HTTP client.
pub(crate) fn client() -> anyhow::Result<Client> {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Client::builder().timeout(Duration::from_secs(10)).build()?)
}

/// Refuses to begin where the API is not ready to do its part.
pub(crate) async fn require_ready(api: Option<&str>) -> anyhow::Result<()> {
    let Some(api) = api else { return Ok(()) };
    let url = format!("{api}/health/ready");
    let answer = client()?
        .get(&url)
        .send()
        .await
        .with_context(|| format!("the API does not answer at {url}"))?;
    if !answer.status().is_success() {
        bail!("the API is not ready: {url} answered {}", answer.status());
    }
    Ok(())
}

/// Reads the books of all merchants of the sample from the simulator's control routes.
/// A partner server without such routes is no error: there is nothing to compare then.
pub(crate) async fn books(
    partners: Option<&str>,
    expectation: &Expectation,
) -> anyhow::Result<Books> {
    let Some(partners) = partners else {
        return Ok(None);
    };
    let client = client()?;
    let merchants: BTreeSet<&str> = expectation
        .redemptions
        .values()
        .map(|redemption| redemption.merchant_id.as_str())
        .filter(|merchant| *merchant != "M-UNKNOWN")
        .collect();
    let mut confirmed = BTreeSet::new();
    for merchant in merchants {
        let url = format!("{partners}/control/merchants/{merchant}/book");
        let answer = client.get(&url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let book: Vec<Entry> = answer.error_for_status()?.json().await?;
        confirmed.extend(
            book.into_iter()
                .filter(|entry| entry.status == "CONFIRMED")
                .map(|entry| entry.redeem_request_id)
                .filter(|id| expectation.redemptions.contains_key(id)),
        );
    }
    Ok(Some(confirmed))
}
