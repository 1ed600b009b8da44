//! Where the time of a redemption goes, from the times at which its row and its transfers say that
//! it reached each step.

use anyhow::Result;
use sqlx::{FromRow, PgPool};

/// How long each step took, in milliseconds: the median, then the 99th percentile.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Steps {
    count: i64,
    accept: f64,
    accept_p99: f64,
    reserve: f64,
    reserve_p99: f64,
    confirming: f64,
    confirming_p99: f64,
    settle: f64,
    settle_p99: f64,
}

/// Of the redemptions whose ids begin so.
///
/// # Errors
/// What the database reports.
pub async fn of(pool: &PgPool, prefix: &str) -> Result<Steps> {
    let steps = sqlx::query_as(
        "WITH step AS (
             SELECT extract(epoch FROM r.created_at - r.requested_at) * 1000 AS accept,
                    extract(epoch FROM h.posted_at - r.created_at) * 1000 AS reserve,
                    extract(epoch FROM r.confirming_at - h.posted_at) * 1000 AS confirming,
                    extract(epoch FROM s.posted_at - r.confirming_at) * 1000 AS settle
             FROM redemptions r
             JOIN transfers h ON (h.source, h.source_event_id, h.leg)
                               = ('redeem', r.redeem_request_id, 'hold')
             JOIN transfers s ON (s.source, s.source_event_id, s.leg)
                               = ('redeem', r.redeem_request_id, 'settle')
             WHERE r.redeem_request_id LIKE $1 || '%'),
         part AS (
             SELECT count(*),
                    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY accept) AS accept,
                    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY reserve) AS reserve,
                    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY confirming) AS confirming,
                    percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY settle) AS settle
             FROM step)
         SELECT count, accept[1] AS accept, accept[2] AS accept_p99,
                reserve[1] AS reserve, reserve[2] AS reserve_p99,
                confirming[1] AS confirming, confirming[2] AS confirming_p99,
                settle[1] AS settle, settle[2] AS settle_p99
         FROM part",
    );
    Ok(steps.bind(prefix).fetch_one(pool).await?)
}

impl Steps {
    /// As a note for people.
    pub fn told(&self, when: &str) -> String {
        let part = |name: &str, median: f64, p99: f64| format!("{name} {median:.1} ({p99:.1})");
        let parts = [
            part("request to accepted row", self.accept, self.accept_p99),
            part(
                "start of the flow to points held",
                self.reserve,
                self.reserve_p99,
            ),
            part("to CONFIRMING", self.confirming, self.confirming_p99),
            part(
                "merchant's answer to points deducted",
                self.settle,
                self.settle_p99,
            ),
        ];
        format!(
            "Steps {when}, median (99th percentile) in ms of {}: {}.",
            self.count,
            parts.join("; ")
        )
    }
}
