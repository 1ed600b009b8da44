//! A flash sale: ten times as many requests as can be worked on, for half a minute.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::StatusCode;
use sqlx::PgPool;

use super::buying::Buying;
use crate::load;

/// Within which every request is to be answered.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// How long what was accepted may take to finish before it counts as stuck.
const FINISHED_WITHIN: Duration = Duration::from_secs(300);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Sale {
    /// How many requests there were.
    pub requests: usize,
    /// How many were accepted.
    pub accepted: usize,
    /// How many were shed: 429 or 503.
    pub shed: usize,
    /// How many were answered otherwise, or not at all, with the first such answer.
    pub others: usize,
    /// The first of them.
    pub first_other: Option<String>,
    /// How many were not answered in time.
    pub late: usize,
    /// How long the slowest answer took, in milliseconds.
    pub slowest_ms: f64,
    /// How long 99 of 100 answers took at most, in milliseconds.
    pub p99_ms: f64,
}

/// Holds one. Ids of its redemptions begin with `prefix`.
///
/// # Errors
/// When it cannot be held.
pub async fn hold(
    buying: &Buying,
    prefix: &'static str,
    rate: f64,
    lasting: Duration,
) -> Result<Sale> {
    let ask = {
        let buying = buying.clone();
        move |number| {
            let buying = buying.clone();
            async move { buying.ask(&format!("{prefix}{number}"), number).await }
        }
    };
    let answers = load::a_second(rate, lasting, ask).await?;
    let latencies = load::Latencies::of(answers.iter().map(|(took, _)| *took))?;
    let mut sale = Sale {
        requests: answers.len(),
        slowest_ms: latencies.longest(),
        p99_ms: latencies.p99(),
        late: answers
            .iter()
            .filter(|(took, _)| *took > ANSWERED_WITHIN)
            .count(),
        ..Sale::default()
    };
    for (_, answer) in answers {
        let other = match answer {
            Ok((StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED, _)) => {
                sale.accepted += 1;
                continue;
            }
            Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _)) => {
                sale.shed += 1;
                continue;
            }
            Ok((status, body)) => format!("{status}: {body}"),
            Err(error) => format!("{error:#}"),
        };
        sale.others += 1;
        sale.first_other.get_or_insert(other);
    }
    Ok(sale)
}

/// Waits until nothing of a sale is open any more; how long after its end that was.
///
/// # Errors
/// When it does not finish.
pub async fn finish(pool: &PgPool, prefix: &str, end: Instant) -> Result<Duration> {
    loop {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM redemptions
             WHERE redeem_request_id LIKE $1 || '%' AND state NOT IN ('SUCCESS', 'FAILED')",
        )
        .bind(prefix)
        .fetch_one(pool)
        .await?;
        if open == 0 {
            return Ok(end.elapsed());
        }
        ensure!(
            end.elapsed() < FINISHED_WITHIN,
            "{open} redemptions of the sale are still open"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
