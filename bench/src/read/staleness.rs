//! How long after a commit the api shows it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use domain::CustomerId;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::accounts;

/// How long to wait before asking again.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// Pauses between changes, of many lengths, so that changes fall on all times between two looks at
/// the ledger.
const PAUSES: u64 = 97;
/// A change that is not shown by then never will be.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// Somebody who changes one customer's points and asks for them.
pub struct Watcher {
    /// A client.
    pub http: reqwest::Client,
    /// The ledger.
    pub pool: PgPool,
    /// The address of the balance.
    pub url: String,
    /// The token.
    pub token: String,
    /// The customer.
    pub customer: CustomerId,
}

impl Watcher {
    /// Changes and asks until it is told to stop. How long each change took to be shown, from the
    /// return of its commit to the arrival of the first answer with it.
    ///
    /// # Errors
    /// When a change is not shown, or something is shown that was not to be.
    pub async fn watch(self, name: String, stop: CancellationToken) -> Result<Vec<Duration>> {
        let mut shown_after = Vec::new();
        let mut points = self.ask().await?.context("the first answer is none")?;
        let mut number = 0;
        while !stop.is_cancelled() {
            number += 1;
            let id = format!("{name}-{number}");
            accounts::give(&self.pool, &id, &self.customer, 1).await?;
            let committed = Instant::now();
            loop {
                let shown = self.ask().await?;
                if shown == Some(points + 1) {
                    break;
                }
                ensure!(
                    shown.is_none_or(|shown| shown == points),
                    "{} has {points} points and one more, and {shown:?} were shown",
                    self.customer
                );
                ensure!(
                    committed.elapsed() < SHOWN_WITHIN,
                    "{id} is not shown after {} s",
                    SHOWN_WITHIN.as_secs()
                );
                tokio::time::sleep(ASK_AGAIN).await;
            }
            shown_after.push(committed.elapsed());
            points += 1;
            tokio::time::sleep(Duration::from_millis(number * 31 % PAUSES)).await;
        }
        Ok(shown_after)
    }

    /// The points that are shown; none when the answer is a refusal, such as 503.
    async fn ask(&self) -> Result<Option<i64>> {
        let request = self.http.get(&self.url).bearer_auth(&self.token);
        let answer = request.send().await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let answer: Value = answer.json().await?;
        Ok(Some(answer["totalPoints"].as_i64().context("no points")?))
    }
}
