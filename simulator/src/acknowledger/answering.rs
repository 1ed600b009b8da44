//! One tier upgrade, and the call that answers it.

use std::time::Duration;

use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};

use super::{AcknowledgerMode, AcknowledgerOptions, TierUpgraded, token::Tokens};
use crate::process::choose_tls_provider;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why the acknowledger cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AcknowledgerError {
    /// The HTTP client.
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
    /// Kafka's client refused its configuration or subscription.
    #[error("the Kafka consumer cannot be made")]
    Kafka(#[from] rdkafka::error::KafkaError),
}

/// How the answer to a tier upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API took it.
    Taken,
    /// The API turned it away for good, with this HTTP status.
    TurnedAway(u16),
    /// By mode or by share, nothing was said.
    NothingSaid,
}

/// Answers tier upgrades over HTTP.
pub struct Acknowledger {
    options: AcknowledgerOptions,
    http: reqwest::Client,
    tokens: Tokens,
}

/// What one attempt led to.
enum Attempt {
    Ended(Outcome),
    Repeat(String),
}

impl Acknowledger {
    /// An acknowledger for the API that the options name.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(mut options: AcknowledgerOptions) -> Result<Self, AcknowledgerError> {
        choose_tls_provider();
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()?;
        let api_url = options.api_url.trim_end_matches('/').to_owned();
        let tokens = Tokens::new(&api_url, options.token.take());
        options.api_url = api_url;
        Ok(Self {
            options,
            http,
            tokens,
        })
    }

    /// Answers one tier upgrade as the mode says. Network errors and 5xx are tried
    /// again until the API gives an answer, which it does at the latest when the
    /// callback id has expired.
    pub async fn answer(&self, upgrade: &TierUpgraded) -> Outcome {
        let callback_id = upgrade.callback_id.as_str();
        let verdict = match self.options.mode {
            AcknowledgerMode::Silent => None,
            _ if share(callback_id) < self.options.ignore_percent => None,
            AcknowledgerMode::Success => Some("success"),
            AcknowledgerMode::Failure => Some("failure"),
            AcknowledgerMode::Late => {
                tokio::time::sleep(self.options.lateness).await;
                Some("success")
            }
        };
        let Some(verdict) = verdict else {
            info!(
                customer_id = upgrade.user_id,
                callback_id, "tier upgrade passed over"
            );
            return Outcome::NothingSaid;
        };

        let mut pause = FIRST_PAUSE;
        let mut may_renew_token = true;
        loop {
            match self
                .attempt(callback_id, verdict, &mut may_renew_token)
                .await
            {
                Attempt::Ended(outcome) => {
                    let (customer_id, tier) = (&upgrade.user_id, &upgrade.new_tier);
                    if let Outcome::TurnedAway(status) = outcome {
                        warn!(customer_id, callback_id, status, "callback turned away");
                    } else {
                        info!(
                            customer_id,
                            tier, callback_id, verdict, "tier upgrade answered"
                        );
                    }
                    return outcome;
                }
                Attempt::Repeat(cause) => {
                    debug!(callback_id, cause, "callback will be repeated");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn attempt(
        &self,
        callback_id: &str,
        verdict: &str,
        may_renew_token: &mut bool,
    ) -> Attempt {
        let token = match self.tokens.get(&self.http).await {
            Ok(token) => token,
            Err(error) => return Attempt::Repeat(format!("no token: {error}")),
        };
        let url = format!(
            "{}/api/v1/callbacks/{callback_id}/{verdict}",
            self.options.api_url
        );
        let status = match self.http.post(url).bearer_auth(&token).send().await {
            Ok(response) => response.status(),
            Err(error) => return Attempt::Repeat(error.to_string()),
        };
        match status {
            status if status.is_success() => Attempt::Ended(Outcome::Taken),
            // The API may have been restarted with another signing key since the
            // token was issued; a fresh one that fails too is a real refusal.
            StatusCode::UNAUTHORIZED
                if std::mem::take(may_renew_token) && self.tokens.discard(&token).await =>
            {
                Attempt::Repeat("the token was not accepted".to_owned())
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Attempt::Repeat(status.to_string())
            }
            status if status.is_server_error() => Attempt::Repeat(status.to_string()),
            status => Attempt::Ended(Outcome::TurnedAway(status.as_u16())),
        }
    }
}

/// A number from 0 to 99 that belongs to the id.
fn share(callback_id: &str) -> u8 {
    let digest = Sha256::digest(callback_id);
    let number = u16::from_be_bytes([digest[0], digest[1]]) % 100;
    u8::try_from(number).expect("a number below 100 fits into a byte")
}
