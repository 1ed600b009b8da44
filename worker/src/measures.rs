//! What is measured, by its Prometheus names.

use domain::Points;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use store::relay::Backlog;
use workflows::contract::BatchOutcome;

use crate::record::Record;

const EVENTS: &str = "meed_events_processed_total";
const BATCH_SIZE: &str = "meed_batch_messages";
const EVENT_POINTS: &str = "meed_points_awarded";
const IN_FLIGHT: &str = "meed_batches_in_flight";
const FAILED_BATCHES: &str = "meed_batches_failed_total";
const LAG: &str = "meed_consumer_lag_messages";
const OUTBOX_AGE: &str = "meed_outbox_oldest_age_seconds";
const OUTBOX_SIZE: &str = "meed_outbox_waiting_messages";
const HOLDS_OVER_LIMIT: &str = "meed_holds_over_limit";
const PUBLISHED: &str = "meed_outbox_published_total";
const REDELIVERIES: &str = "meed_flows_started_again_total";

/// Says what each one means.
pub fn describe() {
    describe_counter!(EVENTS, "Messages taken in, by topic and outcome.");
    describe_histogram!(BATCH_SIZE, "Messages in a batch.");
    describe_histogram!(EVENT_POINTS, "Points awarded for an event.");
    describe_gauge!(IN_FLIGHT, "Batches that are being posted.");
    describe_counter!(
        FAILED_BATCHES,
        "Award batches whose workflow did not succeed. Alert on any."
    );
    describe_gauge!(LAG, "Messages of a partition that have not been taken in.");
    describe_gauge!(
        OUTBOX_AGE,
        "How long the oldest message has waited to be published."
    );
    describe_gauge!(OUTBOX_SIZE, "Messages that wait to be published.");
    describe_gauge!(
        HOLDS_OVER_LIMIT,
        "Holds that have outlived their limit. Alert on any that stays."
    );
    describe_counter!(PUBLISHED, "Messages that Kafka has acknowledged.");
    describe_counter!(REDELIVERIES, "Flows that a starter started, by kind.");
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn float(number: i64) -> f64 {
    number as f64
}

fn events(topic: &str, outcome: &'static str, count: u32) {
    if count > 0 {
        counter!(EVENTS, "topic" => topic.to_owned(), "outcome" => outcome)
            .increment(u64::from(count));
    }
}

/// A batch of awards was posted.
pub fn batch_posted(records: &[Record], outcome: &BatchOutcome) {
    let Some(first) = records.first() else { return };
    let refused = outcome.refused.values().sum();
    events(&first.topic, "posted", outcome.posted);
    events(&first.topic, "duplicate", outcome.duplicates);
    events(&first.topic, "ignored", outcome.ignored);
    events(&first.topic, "refused", refused);
}

/// Events were awarded this many points each.
pub fn points_awarded(awarded: &[Points]) {
    let points = histogram!(EVENT_POINTS);
    for awarded in awarded {
        points.record(float(awarded.get()));
    }
}

/// Requests to redeem were taken in.
pub fn redemptions_accepted(topic: &str, new: u32, same: u32, refused: u32) {
    events(topic, "posted", new);
    events(topic, "duplicate", same);
    events(topic, "refused", refused);
}

/// A batch sets out.
pub fn batch_begins(messages: usize) {
    histogram!(BATCH_SIZE).record(float(i64::try_from(messages).unwrap_or(i64::MAX)));
}

/// How many batches are under way.
pub fn batches_in_flight(count: usize) {
    gauge!(IN_FLIGHT).set(float(i64::try_from(count).unwrap_or(i64::MAX)));
}

/// A batch's workflow ended otherwise than well.
pub fn batch_failed(topic: &str) {
    counter!(FAILED_BATCHES, "topic" => topic.to_owned()).increment(1);
}

/// What of a partition has not been taken in.
pub fn lag(topic: &str, partition: i32, messages: i64) {
    gauge!(LAG, "topic" => topic.to_owned(), "partition" => partition.to_string())
        .set(float(messages));
}

/// What waits in the outbox.
pub fn outbox(backlog: Backlog) {
    gauge!(OUTBOX_AGE).set(backlog.oldest_age_seconds);
    gauge!(OUTBOX_SIZE).set(float(backlog.messages));
}

/// Kafka has acknowledged messages of a topic.
pub fn published(topic: &str, count: u64) {
    counter!(PUBLISHED, "topic" => topic.to_owned()).increment(count);
}

/// A starter started a flow.
pub fn flow_started(kind: &'static str) {
    counter!(REDELIVERIES, "kind" => kind).increment(1);
}

/// Holds that have outlived their limit.
pub fn holds_over_limit(count: i64) {
    gauge!(HOLDS_OVER_LIMIT).set(float(count));
}
