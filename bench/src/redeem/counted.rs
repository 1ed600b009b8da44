//! How long the parts of a redemption took, and how many of each it took, as the api has counted.

use anyhow::Result;

use crate::system::System;

/// Parts of a redemption: what each is called here, its histogram, and which of its series.
const PARTS: [(&str, &str, &str); 9] = [
    (
        "POST",
        "meed_http_request_seconds",
        "route=\"/api/v1/redeem\"",
    ),
    (
        "waiting for its end",
        "meed_http_request_seconds",
        "route=\"/api/v1/redeem/{redeemRequestId}\"",
    ),
    (
        "starting the flow",
        "temporal_request_latency_seconds",
        "operation=\"StartWorkflowExecution\"",
    ),
    (
        "reserve",
        "temporal_local_activity_execution_latency_seconds",
        "activity_type=\"reserve\"",
    ),
    (
        "confirm-with-partner",
        "temporal_local_activity_execution_latency_seconds",
        "activity_type=\"confirm-with-partner\"",
    ),
    (
        "of it the merchant",
        "meed_partner_request_duration_seconds",
        "question=\"confirm\"",
    ),
    (
        "settle",
        "temporal_local_activity_execution_latency_seconds",
        "activity_type=\"settle\"",
    ),
    (
        "recording the task",
        "temporal_request_latency_seconds",
        "operation=\"RespondWorkflowTaskCompleted\"",
    ),
    (
        "ordinary activities",
        "temporal_activity_execution_latency_seconds",
        "",
    ),
];

/// What else is counted: what it is called here, its counter, and which of its series.
const COUNTS: [(&str, &str, &str); 3] = [
    (
        "starts that failed or took too long, and were repeated",
        "temporal_request_failure_total",
        "operation=\"StartWorkflowExecution\"",
    ),
    (
        "tasks of flows that were polled for, not got with the start",
        "temporal_workflow_task_queue_poll_succeed_total",
        "",
    ),
    (
        "tasks that were lost",
        "temporal_workflow_task_execution_failed_total",
        "",
    ),
];

/// The sums and counts of all parts until now, and what else is counted.
pub struct Counted {
    parts: Vec<(f64, f64)>,
    counts: Vec<f64>,
}

impl Counted {
    /// Asks the api.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn now(system: &System) -> Result<Self> {
        let url = format!("{}/metrics", system.api);
        let answer = system.http.get(url).send().await?.error_for_status()?;
        let text = answer.text().await?;
        let parts = PARTS.iter().map(|(_, metric, label)| {
            (
                total(&text, &format!("{metric}_sum"), label),
                total(&text, &format!("{metric}_count"), label),
            )
        });
        let counts = COUNTS
            .iter()
            .map(|(_, metric, label)| total(&text, metric, label));
        Ok(Self {
            parts: parts.collect(),
            counts: counts.collect(),
        })
    }

    /// What has been counted since, for so many redemptions, as a note for people.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn told(&self, before: &Self, redemptions: usize, when: &str) -> String {
        let since = self.parts.iter().zip(&before.parts);
        let parts = PARTS.iter().zip(since).map(|((name, ..), (now, then))| {
            let (seconds, count) = (now.0 - then.0, now.1 - then.1);
            let mean = 1_000.0 * seconds / count.max(1.0);
            format!("{name} {mean:.1} × {:.2}", count / redemptions as f64)
        });
        let since = self.counts.iter().zip(&before.counts);
        let counts = COUNTS.iter().zip(since);
        let counts = counts.map(|((name, ..), (now, then))| format!("{name}: {}", now - then));
        format!(
            "In the api {when}, on average in ms × how many for a redemption: {}. Of {redemptions} \
             redemptions, {}.",
            parts.collect::<Vec<_>>().join("; "),
            counts.collect::<Vec<_>>().join("; ")
        )
    }
}

/// The sum of all series of a metric that have this label.
fn total(text: &str, metric: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let labels = line.strip_prefix(metric)?;
        let (labels, value) = labels.rsplit_once(' ')?;
        let is_meant = (labels.is_empty() || labels.starts_with('{')) && labels.contains(label);
        is_meant.then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_the_label_count_together() {
        let text = "# HELP m_sum what\nm_sum{a=\"1\",b=\"x\"} 2.5\nm_sum{a=\"2\",b=\"x\"} 1\n\
                    m_sum{a=\"2\",b=\"y\"} 8\nm_sum_else{b=\"x\"} 16\n";
        assert!((total(text, "m_sum", "b=\"x\"") - 3.5).abs() < f64::EPSILON);
        assert!((total(text, "m_sum", "") - 11.5).abs() < f64::EPSILON);
    }
}
