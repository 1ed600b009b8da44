//! The bearer token for the API: a fixed one, or one from the dev profile that is
//! renewed before it runs out.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;

/// A token this close to its end is no longer used.
const RENEWAL_MARGIN: Duration = Duration::from_secs(30);

pub(super) enum Tokens {
    Fixed(String),
    Dev {
        url: String,
        current: Mutex<Option<Token>>,
    },
}

pub(super) struct Token {
    text: String,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    pub(super) fn new(api_url: &str, fixed: Option<String>) -> Self {
        match fixed {
            Some(token) => Self::Fixed(token),
            None => Self::Dev {
                url: format!("{api_url}/dev/token?sub=acknowledger&scope=callbacks.write"),
                current: Mutex::new(None),
            },
        }
    }

    /// A token to use now. Those who ask while one is being fetched share it.
    pub(super) async fn get(&self, http: &reqwest::Client) -> reqwest::Result<String> {
        let (url, current) = match self {
            Self::Fixed(token) => return Ok(token.clone()),
            Self::Dev { url, current } => (url, current),
        };
        let mut current = current.lock().await;
        if let Some(token) = current.as_ref()
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let response: TokenResponse = http
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let lifetime = Duration::from_secs(response.expires_in);
        *current = Some(Token {
            text: response.access_token.clone(),
            renew_at: Instant::now() + lifetime.saturating_sub(RENEWAL_MARGIN),
        });
        Ok(response.access_token)
    }

    /// Forgets a token that was turned away; answers whether another can be had.
    pub(super) async fn discard(&self, rejected: &str) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Dev { current, .. } => {
                let mut current = current.lock().await;
                if current.as_ref().is_some_and(|token| token.text == rejected) {
                    *current = None;
                }
                true
            }
        }
    }
}
