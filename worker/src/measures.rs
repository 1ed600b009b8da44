//! What is measured, by its Prometheus names.

use chrono::{DateTime, Utc};
use domain::{
    Comparison, Points, Prunable, RefusalClass, inbound::topic, redemption::RedemptionState,
};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use store::{chain::Unsealed, redemptions, relay::Backlog, tiers};
use workflows::contract::BatchOutcome;

use crate::record::Record;

const EVENTS: &str = "meed_events_processed_total";
const BATCH_SIZE: &str = "meed_batch_messages";
const DEAD_LETTERS: &str = "meed_dead_letters_total";
const EVENT_DELAY: &str = "meed_event_delay_seconds";
const EVENT_POINTS: &str = "meed_points_awarded";
const ISSUED: &str = "meed_points_issued_total";
const MOST_TO_ONE: &str = "meed_points_most_to_one_customer";
const IN_FLIGHT: &str = "meed_batches_in_flight";
const FAILED_BATCHES: &str = "meed_batches_failed_total";
const LAG: &str = "meed_consumer_lag_messages";
const OUTBOX_AGE: &str = "meed_outbox_oldest_age_seconds";
const OUTBOX_SIZE: &str = "meed_outbox_waiting_messages";
const HOLDS_OVER_LIMIT: &str = "meed_holds_over_limit";
const UNSEALED: &str = "meed_ledger_unsealed_transfers";
const UNSEALED_AGE: &str = "meed_ledger_unsealed_age_seconds";
const SEALED: &str = "meed_ledger_sealed_total";
const PRUNED: &str = "meed_pruned_total";
const NOT_MEASURED: &str = "meed_measurements_failed_total";
const PUBLISHED: &str = "meed_outbox_published_total";
const FINDINGS_OPEN: &str = "meed_reconciliation_findings_open";
const REPAIRED: &str = "meed_reconciliation_repaired_total";
const RECONCILED_AT: &str = "meed_reconciliation_last_success_timestamp_seconds";
const REDELIVERIES: &str = "meed_flows_started_again_total";
const FLOWS_OPEN: &str = "meed_workflows_open";
const REDEMPTIONS_OPEN: &str = "meed_redemptions_open";
const REDEMPTIONS_AGE: &str = "meed_redemptions_oldest_age_seconds";
const TIER_ORDERS_OPEN: &str = "meed_tier_orders_open";
const TIER_ORDERS_AGE: &str = "meed_tier_orders_oldest_age_seconds";

/// Says what each one means, and begins those of which everything is known at zero: what has not happened yet
/// would otherwise look like what is not measured.
pub fn describe() {
    counter!(SEALED).increment(0);
    for what in Prunable::ALL {
        counter!(PRUNED, "what" => what.as_str()).increment(0);
    }
    for comparison in Comparison::ALL {
        counter!(REPAIRED, "comparison" => comparison.as_str()).increment(0);
    }
    for class in RefusalClass::ALL {
        counter!(DEAD_LETTERS, "class" => class.as_str()).increment(0);
    }
    for kind in [
        "redeem",
        "tier-upgrade",
        "claim",
        "assign-promotion",
        "signal",
        "cancel",
    ] {
        counter!(REDELIVERIES, "kind" => kind).increment(0);
    }
    for topic in topic::ALL {
        for outcome in ["posted", "duplicate", "ignored", "refused"] {
            counter!(EVENTS, "topic" => topic, "outcome" => outcome).increment(0);
        }
        if ![topic::REDEEM_EVENTS, topic::NOTIFICATIONS].contains(&topic) {
            counter!(FAILED_BATCHES, "topic" => topic).increment(0);
        }
    }
    describe_counter!(EVENTS, "Messages taken in, by topic and outcome.");
    describe_counter!(
        DEAD_LETTERS,
        "Messages that were refused, by the class of the refusal."
    );
    describe_histogram!(
        EVENT_DELAY,
        "How long after Kafka had them events were posted."
    );
    describe_counter!(ISSUED, "Points awarded, by the version of the rules.");
    describe_gauge!(
        MOST_TO_ONE,
        "The most points that one customer was awarded within the last ten minutes."
    );
    describe_gauge!(FLOWS_OPEN, "Flows that have not ended, by workflow.");
    describe_gauge!(
        REDEMPTIONS_OPEN,
        "Redemptions that have not ended, by state."
    );
    describe_gauge!(
        REDEMPTIONS_AGE,
        "How long ago the oldest redemption that has not ended was accepted, by state."
    );
    describe_gauge!(TIER_ORDERS_OPEN, "Looks at a tier that have not ended.");
    describe_gauge!(
        TIER_ORDERS_AGE,
        "How long ago the oldest look at a tier that has not ended was ordered."
    );
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
    describe_gauge!(UNSEALED, "Transfers that are not in the hash chain yet.");
    describe_gauge!(
        UNSEALED_AGE,
        "How long ago the first transfer that is not in the hash chain was posted."
    );
    describe_counter!(SEALED, "Transfers that were added to the hash chain.");
    describe_counter!(
        PRUNED,
        "Rows that were removed because nobody needs them any more, by kind."
    );
    describe_counter!(
        NOT_MEASURED,
        "Measurements that failed; what they measure is NaN meanwhile."
    );
    describe_gauge!(
        FINDINGS_OPEN,
        "Disagreements that reconciliation found and did not repair, by comparison. Alert on any."
    );
    describe_counter!(
        REPAIRED,
        "Disagreements that reconciliation repaired, by comparison."
    );
    describe_gauge!(
        RECONCILED_AT,
        "When the last complete reconciliation ended, in Unix seconds. Alert when it is old."
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
    for (class, count) in &outcome.refused {
        dead_letters(class, *count);
    }
    let now = Utc::now();
    let delay = histogram!(EVENT_DELAY);
    for record in records {
        let took = (now - record.timestamp).as_seconds_f64();
        delay.record(took.max(0.0));
    }
    events(&first.topic, "posted", outcome.posted);
    events(&first.topic, "duplicate", outcome.duplicates);
    events(&first.topic, "ignored", outcome.ignored);
    events(&first.topic, "refused", refused);
}

fn dead_letters(class: &str, count: u32) {
    // Classes come from a workflow's outcome as text; there are as many as the code has.
    if let Some(class) = RefusalClass::parse(class) {
        counter!(DEAD_LETTERS, "class" => class.as_str()).increment(u64::from(count));
    }
}

/// Events were awarded this many points each, by this version of the rules.
pub fn points_awarded(awarded: &[Points], rules: &str) {
    let points = histogram!(EVENT_POINTS);
    let issued = counter!(ISSUED, "rules" => rules.to_owned());
    for awarded in awarded {
        points.record(float(awarded.get()));
        issued.increment(u64::try_from(awarded.get()).unwrap_or(0));
    }
}

/// The most points that one customer was awarded lately; nothing when that is not known.
pub fn most_to_one_customer(points: Option<Points>) {
    gauge!(MOST_TO_ONE).set(points.map_or(f64::NAN, |points| float(points.get())));
}

/// Messages that become rows were taken in.
pub fn taken_in(topic: &str, new: u32, same: u32, refused: &[RefusalClass]) {
    events(topic, "posted", new);
    events(topic, "duplicate", same);
    events(
        topic,
        "refused",
        u32::try_from(refused.len()).unwrap_or(u32::MAX),
    );
    for class in refused {
        dead_letters(class.as_str(), 1);
    }
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

/// Flows of this name that have not ended; nothing when that is not known.
pub fn workflows_open(workflow: &'static str, count: Option<f64>) {
    gauge!(FLOWS_OPEN, "workflow" => workflow).set(count.unwrap_or(f64::NAN));
}

/// Redemptions that have not ended; nothing when that is not known.
pub fn redemptions_open(open: Option<Vec<redemptions::Open>>) {
    let open = open.unwrap_or_default();
    let states = RedemptionState::ALL.into_iter();
    for state in states.filter(|state| !state.is_final()) {
        let of_state = open.iter().find(|open| open.state == state);
        gauge!(REDEMPTIONS_OPEN, "state" => state.as_str())
            .set(of_state.map_or(f64::NAN, |open| float(open.count)));
        gauge!(REDEMPTIONS_AGE, "state" => state.as_str())
            .set(of_state.map_or(f64::NAN, |open| open.oldest_age_seconds));
    }
}

/// Looks at a tier that have not ended; nothing when that is not known.
pub fn tier_orders_open(open: Option<tiers::OpenOrders>) {
    gauge!(TIER_ORDERS_OPEN).set(open.map_or(f64::NAN, |open| float(open.count)));
    gauge!(TIER_ORDERS_AGE).set(open.map_or(f64::NAN, |open| open.oldest_age_seconds));
}

/// What waits in the outbox; nothing when that is not known.
pub fn outbox(backlog: Option<Backlog>) {
    gauge!(OUTBOX_AGE).set(backlog.map_or(f64::NAN, |backlog| backlog.oldest_age_seconds));
    gauge!(OUTBOX_SIZE).set(backlog.map_or(f64::NAN, |backlog| float(backlog.messages)));
}

/// Old records were removed.
pub fn pruned(what: Prunable, rows: u64) {
    counter!(PRUNED, "what" => what.as_str()).increment(rows);
}

/// What is not in the hash chain yet; nothing when that is not known.
pub fn unsealed(unsealed: Option<Unsealed>) {
    gauge!(UNSEALED).set(unsealed.map_or(f64::NAN, |unsealed| float(unsealed.transfers)));
    gauge!(UNSEALED_AGE).set(unsealed.map_or(f64::NAN, |unsealed| unsealed.oldest_age_seconds));
}

/// Transfers were added to the hash chain.
pub fn sealed(transfers: usize) {
    counter!(SEALED).increment(transfers as u64);
}

/// Something was measured, or could not be.
pub fn measured(what: &'static str, known: bool) {
    counter!(NOT_MEASURED, "what" => what).increment(u64::from(!known));
}

/// Kafka has acknowledged messages of a topic.
pub fn published(topic: &str, count: u64) {
    counter!(PUBLISHED, "topic" => topic.to_owned()).increment(count);
}

/// A starter started a flow.
pub fn flow_started(kind: &'static str) {
    counter!(REDELIVERIES, "kind" => kind).increment(1);
}

/// Holds that have outlived their limit; nothing when that is not known.
pub fn holds_over_limit(count: Option<i64>) {
    gauge!(HOLDS_OVER_LIMIT).set(count.map_or(f64::NAN, float));
}

/// Findings of a comparison that are open.
pub fn findings_open(comparison: Comparison, count: i64) {
    gauge!(FINDINGS_OPEN, "comparison" => comparison.as_str()).set(float(count));
}

/// A comparison repaired something.
pub fn repaired(comparison: Comparison) {
    counter!(REPAIRED, "comparison" => comparison.as_str()).increment(1);
}

/// The last complete reconciliation ended.
pub fn reconciled_at(at: DateTime<Utc>) {
    gauge!(RECONCILED_AT).set(float(at.timestamp()));
}
