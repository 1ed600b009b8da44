//! Events: each has its one effect, each refused one its dead letter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use samples::feed::Delivery;
use samples::recompute::{Recomputation, Verdict};

use super::Property;
use crate::observe::{Observed, Record};
use crate::topics::DEAD_LETTER;

/// The kind in the ledger of an order that is known by its place alone.
const ORDER_AT: &str = "order-at";
const FAR: usize = 90;

/// A message's place.
type Place = (String, i32, i64);

/// What the messages on the topics must come to.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Points by kind and id of the event.
    events: BTreeMap<(String, String), i64>,
    /// Points awarded by customer: everybody who has an account.
    awarded: BTreeMap<String, i64>,
    /// The class of each message that is refused.
    refused: BTreeMap<Place, &'static str>,
    /// Ids of the redemptions that came through Kafka.
    pub(super) redemptions: BTreeSet<String>,
}

impl Expected {
    /// Takes the messages as they stand on the topics, partition by partition: that is the order
    /// in which they count, for all of a customer's messages share a partition.
    pub(super) fn of(observed: &Observed) -> Self {
        let mut pass = Recomputation::default();
        let mut expected = Self::default();
        for record in &observed.inputs {
            let known = pass.events().len();
            match pass.take(&delivery(record)) {
                Verdict::Awarded(points) => {
                    let event = match pass.events().get(known) {
                        Some((kind, id)) => ((*kind).to_owned(), id.clone()),
                        // An order without an id is known by its place.
                        None => (ORDER_AT.to_owned(), place_name(record)),
                    };
                    expected.events.insert(event, points);
                }
                Verdict::DeadLetter(class) => {
                    expected.refused.insert(place(record), class);
                }
                Verdict::Redemption => {
                    let value: serde_json::Value =
                        serde_json::from_slice(&record.value).unwrap_or_default();
                    let id = value["redeemRequestId"].as_str().unwrap_or_default();
                    expected.redemptions.insert(id.to_owned());
                }
                Verdict::Duplicate | Verdict::Ignored => {}
            }
        }
        let standings = pass.finish().customers;
        expected.awarded = standings
            .into_iter()
            .map(|(customer, standing)| (customer, standing.awarded))
            .collect();
        expected
    }
}

fn delivery(record: &Record) -> Delivery {
    Delivery {
        topic: record.topic.clone(),
        key: record.key.clone(),
        headers: record.headers.clone(),
        value: record.value.clone(),
    }
}

fn place(record: &Record) -> Place {
    (record.topic.clone(), record.partition, record.offset)
}

fn place_name(record: &Record) -> String {
    format!("{}-{}-{}", record.topic, record.partition, record.offset)
}

fn short(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(FAR).collect()
}

/// What Kafka acknowledged stands on its topic.
pub(super) fn all_are_there(observed: &Observed) -> Property {
    let mut property = Property::new("deliveries", "every delivery that Kafka took is there");
    let mut there: HashMap<(&str, &str, &[u8]), usize> = HashMap::new();
    for record in &observed.inputs {
        let key = (&*record.topic, &*record.key, &*record.value);
        *there.entry(key).or_default() += 1;
    }
    for sent in &observed.sent {
        let left = there.get_mut(&(&*sent.topic, &*sent.key, &*sent.value));
        let found = left.is_some_and(|left| {
            let had = *left > 0;
            *left = left.saturating_sub(1);
            had
        });
        property.expect(found, || {
            format!(
                "{} of {} is missing: {}",
                sent.topic,
                sent.key,
                short(&sent.value)
            )
        });
    }
    property
}

/// Each accepted event was processed once and gave its points once; no other did.
pub(super) fn one_effect(observed: &Observed, expected: &Expected) -> Property {
    let mut property = Property::new(
        "events have one effect",
        "every accepted event has exactly the effect it must have, and nothing else has any",
    );
    let mut processed: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for row in &observed.processed {
        let key = (&*row.source, &*row.event_id);
        processed.entry(key).or_default().push(row.points);
    }
    let mut given: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    let mut by_customer: BTreeMap<&str, i64> = BTreeMap::new();
    for transfer in observed.transfers.iter().filter(|t| t.debit == "ISSUANCE") {
        let key = (&*transfer.source, &*transfer.source_event_id);
        given.entry(key).or_default().push(transfer.amount);
        *by_customer.entry(&transfer.customer_id).or_default() += transfer.amount;
    }
    for ((kind, id), points) in &expected.events {
        let key = (&**kind, &**id);
        let noted = processed.remove(&key).unwrap_or_default();
        property.expect(noted == [*points], || {
            format!("{kind} {id} must give {points} once, and was processed with {noted:?}")
        });
        let transferred = given.remove(&key).unwrap_or_default();
        let must = if *points > 0 { vec![*points] } else { vec![] };
        property.expect(transferred == must, || {
            format!("{kind} {id} must be transferred as {must:?}, and was as {transferred:?}")
        });
    }
    for ((kind, id), points) in processed.into_iter().chain(given) {
        property.expect(false, || {
            format!("{kind} {id} gave {points:?} and should have given nothing")
        });
    }
    for customer in &observed.customers {
        let id = &*customer.customer_id;
        let must = expected.awarded.get(id).copied();
        let got = by_customer.get(id).copied().unwrap_or(0);
        property.expect(must == Some(got) && customer.lifetime_earned == got, || {
            format!(
                "{id} must have earned {must:?}, and has by transfers {got}, by the balance {}",
                customer.lifetime_earned
            )
        });
    }
    let accounts: BTreeSet<&str> = observed.customers.iter().map(|c| &*c.customer_id).collect();
    for customer in expected.awarded.keys() {
        property.expect(accounts.contains(&**customer), || {
            format!("{customer} has no account")
        });
    }
    property
}

/// Each refused message has a dead letter of the right class with its own bytes; no other has one.
pub(super) fn dead_letters(observed: &Observed, expected: &Expected) -> Property {
    let mut property = Property::new(
        "refusals are dead letters",
        "every refused message has a dead letter of its class, with its bytes, and no other has one",
    );
    let inputs: HashMap<Place, &Record> = observed.inputs.iter().map(|r| (place(r), r)).collect();
    let mut found: BTreeMap<Place, &str> = BTreeMap::new();
    for letter in observed.published.iter().filter(|r| r.topic == DEAD_LETTER) {
        let header = |name: &str| letter.headers.get(name).map_or("", String::as_str);
        let origin = (
            header("meed-dlq-topic").to_owned(),
            header("meed-dlq-partition").parse().unwrap_or(-1),
            header("meed-dlq-offset").parse().unwrap_or(-1),
        );
        let class = header("meed-dlq-class");
        let must = expected.refused.get(&origin).copied();
        property.expect(must == Some(class), || {
            format!("{origin:?} must be {must:?}, and its dead letter says {class}")
        });
        let original = inputs.get(&origin);
        property.expect(
            original.is_some_and(|o| o.value == letter.value && o.key == letter.key),
            || format!("the dead letter of {origin:?} has other bytes"),
        );
        found.insert(origin, class);
    }
    for (origin, class) in &expected.refused {
        property.expect(found.contains_key(origin), || {
            let value = inputs.get(origin).map(|r| short(&r.value));
            format!("{origin:?} ({class}) has no dead letter: {value:?}")
        });
    }
    property
}
