//! What the world was told of the ledger: all of it, nothing else, in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Property;
use crate::observe::{Observed, Record, Transfer};
use crate::topics::{POINTS_ADDED, REWARD_CONFIRMED};

/// The header that carries the customer's version.
const VERSION: &str = "meed-account-version";

/// Messages of a topic by customer and version.
fn by_version<'a>(
    observed: &'a Observed,
    topic: &str,
) -> BTreeMap<(&'a str, i64), Vec<&'a Record>> {
    let mut all: BTreeMap<(&str, i64), Vec<&Record>> = BTreeMap::new();
    for record in observed.published.iter().filter(|r| r.topic == topic) {
        all.entry((&record.key, version(record)))
            .or_default()
            .push(record);
    }
    all
}

fn version(record: &Record) -> i64 {
    let text = record.headers.get(VERSION);
    text.and_then(|text| text.parse().ok()).unwrap_or(-1)
}

/// Looks at what was told of each of these transfers.
fn told<'a>(
    property: &mut Property,
    observed: &'a Observed,
    topic: &str,
    transfers: impl Iterator<Item = &'a Transfer>,
    is_right: impl Fn(&serde_json::Value, &Transfer) -> bool,
) {
    let mut messages = by_version(observed, topic);
    for transfer in transfers {
        let key = (&*transfer.customer_id, transfer.customer_version);
        let records = messages.remove(&key).unwrap_or_default();
        property.expect(!records.is_empty(), || {
            format!(
                "transfer {} ({} {}) of {} in version {} was not told",
                transfer.transfer_id, transfer.source, transfer.source_event_id, key.0, key.1
            )
        });
        for (at, record) in records.iter().enumerate() {
            let said: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
            let is_right =
                is_right(&said, transfer) && (at == 0 || record.value == records[0].value);
            property.expect(is_right, || {
                format!(
                    "{} is not {transfer:?}",
                    String::from_utf8_lossy(&record.value)
                )
            });
        }
    }
    for ((customer, version), records) in messages {
        let said = String::from_utf8_lossy(&records[0].value);
        property.expect(false, || {
            format!("{customer} in version {version} was told: {said}")
        });
    }
}

/// Each award has its confirmation.
pub(super) fn awards(observed: &Observed) -> Property {
    let mut property = Property::new(
        "awards are confirmed",
        "every award has its reward-confirmed with the same content each time, and there is no other",
    );
    let awards = observed.transfers.iter().filter(|t| t.debit == "ISSUANCE");
    told(
        &mut property,
        observed,
        REWARD_CONFIRMED,
        awards,
        |said, transfer| {
            said["customerId"] == *transfer.customer_id
                && said["sourceEventId"] == *transfer.source_event_id
                && said["pointsAwarded"] == transfer.amount
                && said["balanceAfter"] == transfer.available_after
        },
    );
    property
}

/// Each change of a current total was told, with its true difference.
pub(super) fn totals(observed: &Observed) -> Property {
    let mut property = Property::new(
        "totals are told",
        "every change of a total has its loyalty.pointsAdded.v2 with the same content each time, and there is no other",
    );
    // Holding and giving back change no total.
    let changes = observed.transfers.iter().filter(|t| difference(t) != 0);
    told(
        &mut property,
        observed,
        POINTS_ADDED,
        changes,
        |said, transfer| {
            said["userId"] == *transfer.customer_id
                && said["totalPoints"] == transfer.available_after + transfer.held_after
                && said["difference"] == difference(transfer)
        },
    );
    property
}

fn difference(transfer: &Transfer) -> i64 {
    let is_own = |account: &str| account == "AVAILABLE" || account == "HELD";
    let sign = i64::from(is_own(&transfer.credit)) - i64::from(is_own(&transfer.debit));
    sign * transfer.amount
}

/// The first time that each version of a customer is told follows the version before it.
pub(super) fn order(observed: &Observed) -> Property {
    let mut property = Property::new(
        "told in order",
        "versions of a customer are told in their order, first time for first time",
    );
    for topic in [REWARD_CONFIRMED, POINTS_ADDED] {
        let mut highest: HashMap<&str, i64> = HashMap::new();
        let mut seen: HashSet<(&str, i64)> = HashSet::new();
        for record in observed.published.iter().filter(|r| r.topic == topic) {
            let version = version(record);
            if !seen.insert((&record.key, version)) {
                continue;
            }
            let before = highest.entry(&record.key).or_insert(0);
            property.expect(version > *before, || {
                format!(
                    "{topic}: {} was told version {version} after {before}",
                    record.key
                )
            });
            *before = version.max(*before);
        }
    }
    property
}

/// The outbox is empty.
pub(super) fn outbox(observed: &Observed) -> Property {
    let mut property = Property::new("the outbox is empty", "nothing waits to be published");
    property.expect(observed.unpublished == 0, || {
        format!("{} rows wait", observed.unpublished)
    });
    property
}
