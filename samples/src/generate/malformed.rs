//! Messages that break their contract, each in one way.
//!
//! Every fault is made from an otherwise valid message with an id of its own, so that
//! nothing but the fault can be the reason for refusing it. The only exception are the
//! conflicts: the id of an earlier message with another body.

use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::body::quoted;
use super::customers::Customers;
use super::draft::{Damage, Draft};
use super::{redemptions, valid};

/// How often each fault occurs for each kind of message.
const TIMES_EACH: usize = 4;
/// Ids of faulty messages start here, away from those of valid ones.
const FIRST_NUMBER: usize = 50_000;

/// A value over the limit, and one of a mebibyte.
const TOO_LARGE_BYTES: [usize; TIMES_EACH] = [262_145, 300_000, 300_000, 400_000];
const MEBIBYTE: usize = 1_048_576;

/// What makes a faulty message out of a valid one.
enum Fault {
    Missing(&'static str),
    /// JSON text in place of a field.
    Replaced(&'static str, &'static str),
    /// An id of 129 characters in place of a field.
    OverLong(&'static str),
    Damaged(Damage),
}

use Fault::{Damaged, Missing, OverLong, Replaced};

/// Faults that the bytes of any message can have.
const OF_BYTES: [Fault; 4] = [
    Damaged(Damage::CutShort),
    Damaged(Damage::NotUtf8),
    Damaged(Damage::PlainText),
    Damaged(Damage::Empty),
];

const REWARD_EVENT: [Fault; 19] = [
    Missing("eventId"),
    Missing("eventType"),
    Missing("customerId"),
    Missing("timestamp"),
    Missing("payload"),
    Replaced("eventType", "\"SPA_DAY\""),
    Replaced("eventId", "[\"HS-1\"]"),
    Replaced("customerId", "{\"id\":\"100042\"}"),
    Replaced("eventType", "7"),
    Replaced("payload", "\"two nights\""),
    Replaced("eventId", "\"\""),
    Replaced("eventId", "\"HS\\u0000-1\""),
    Replaced("customerId", "\"C-1\\u0007\""),
    OverLong("eventId"),
    OverLong("customerId"),
    Replaced("timestamp", "\"14.03.2026 12:00\""),
    Replaced("timestamp", "\"2026-03-14T25:00:00Z\""),
    Replaced("timestamp", "\"2999-01-01T00:00:00Z\""),
    Replaced("payload.currency", "\"ZZZ\""),
];

const HOTEL_STAY: [Fault; 2] = [
    Missing("payload.nights"),
    Replaced("payload.nights", "\"two\""),
];

const SPENDING: [Fault; 8] = [
    Missing("payload.amount"),
    Replaced("payload.amount", "true"),
    Replaced("payload.amount", "-12.50"),
    Replaced("payload.amount", "\"-0.01\""),
    Replaced("payload.amount", "1e30"),
    Replaced("payload.amount", "\"1000000000000000000\""),
    Replaced("payload.currency", "\"DOGECOIN\""),
    Replaced("payload.currency", "\"CHF\""),
];

const ORDER: [Fault; 12] = [
    Missing("customerId"),
    Missing("amount"),
    Replaced("customerId", "[]"),
    Replaced("amount", "{\"value\":12}"),
    Replaced("customerId", "\"\""),
    Replaced("orderId", "\"\""),
    OverLong("orderId"),
    Replaced("orderId", "\"O-1\\u0000\""),
    Replaced("amount", "-300"),
    Replaced("amount", "\"99999999999999999999999.99\""),
    Replaced("amount", "9999999999999999999"),
    Replaced("currency", "\"ZZZ\""),
];

const COMPLETED_ORDER: [Fault; 8] = [
    Missing("userId"),
    Missing("order"),
    Replaced("userId", "[\"100042\"]"),
    Replaced("order", "{}"),
    Replaced("order", "\"\""),
    OverLong("order"),
    Replaced("userId", "\"\""),
    Replaced("userId", "\"C\\u0000\""),
];

const USER_CREATED: [Fault; 5] = [
    Missing("userId"),
    Replaced("userId", "{}"),
    Replaced("userId", "\"\""),
    Replaced("userId", "\"C\\u0000\""),
    OverLong("userId"),
];

const PLAYER: [Fault; 7] = [
    Missing("user_id"),
    Missing("eventType"),
    Replaced("user_id", "true"),
    Replaced("eventType", "[]"),
    Replaced("user_id", "\"\""),
    Replaced("user_id", "\"1\\u001f\""),
    OverLong("user_id"),
];

const REDEMPTION: [Fault; 21] = [
    Missing("redeemRequestId"),
    Missing("customerId"),
    Missing("requestedPoints"),
    Missing("merchantContext"),
    Missing("merchantContext.merchantId"),
    Missing("timestamp"),
    Replaced("requestedPoints", "[50]"),
    Replaced("customerId", "{}"),
    Replaced("merchantContext", "\"M1\""),
    Replaced("redeemRequestId", "\"\""),
    Replaced("redeemRequestId", "\"RD\\u0000\""),
    OverLong("redeemRequestId"),
    OverLong("customerId"),
    Replaced("requestedPoints", "0"),
    Replaced("requestedPoints", "-50"),
    Replaced("requestedPoints", "12.5"),
    Replaced("requestedPoints", "9223372036854775808"),
    Replaced("requestedPoints", "1000000000000000000000000000000"),
    Replaced("timestamp", "\"yesterday\""),
    Replaced("timestamp", "\"2026-13-14T12:00:00Z\""),
    Replaced("timestamp", "\"2999-01-01T00:00:00Z\""),
];

/// Every fault of every kind but redemptions; or so many, drawn from them.
pub(super) fn all(
    rng: &mut ChaCha8Rng,
    customers: &Customers,
    wanted: Option<usize>,
) -> Vec<Draft> {
    let mut workshop = Workshop::new(rng, customers);
    every_fault(&mut workshop, customers);
    if let Some(wanted) = wanted {
        while workshop.drafts.len() < wanted {
            every_fault(&mut workshop, customers);
        }
        workshop.drafts.shuffle(workshop.rng);
        workshop.drafts.truncate(wanted);
    }
    workshop.drafts
}

fn every_fault(workshop: &mut Workshop<'_>, customers: &Customers) {
    workshop.breaking(&[&REWARD_EVENT, &HOTEL_STAY], |rng, customer, number| {
        // A currency says something only beside an amount, which a stay may lack.
        let mut stay = valid::hotel_stay(rng, customer, number);
        stay.body.set("payload.amount", "240.00");
        stay
    });
    workshop.breaking(&[&REWARD_EVENT, &SPENDING], valid::dining);
    workshop.breaking(&[&REWARD_EVENT, &SPENDING], valid::casino_spend);
    workshop.breaking(&[&ORDER], valid::order);
    for field in ["orderNumber", "orderId"] {
        workshop.breaking(&[&COMPLETED_ORDER], |rng, customer, number| {
            let at = valid::time_of_day(rng);
            valid::completed_order(rng, customer, number, field, at)
        });
    }
    workshop.breaking(&[&USER_CREATED], |rng, _, number| {
        valid::user_created(rng, &format!("visitor-{number}"))
    });
    workshop.breaking(&[&PLAYER], |rng, _, number| {
        valid::player(rng, &format!("visitor-{number}"), "PLAYER_REGISTERED")
    });
    let mut mebibyte = valid::dining(workshop.rng, &customers.ids()[0], FIRST_NUMBER - 1);
    mebibyte.damage = Damage::FilledTo(MEBIBYTE);
    workshop.drafts.push(mebibyte);
}

/// Every fault of a request to redeem.
pub(super) fn redemptions(rng: &mut ChaCha8Rng, customers: &Customers) -> Vec<Draft> {
    let mut workshop = Workshop::new(rng, customers);
    workshop.breaking(&[&REDEMPTION], |rng, customer, number| {
        redemptions::request(rng, customer, number, 10, "M1")
    });
    workshop.drafts
}

struct Workshop<'a> {
    rng: &'a mut ChaCha8Rng,
    customers: &'a Customers,
    number: usize,
    drafts: Vec<Draft>,
}

impl<'a> Workshop<'a> {
    fn new(rng: &'a mut ChaCha8Rng, customers: &'a Customers) -> Self {
        Self {
            rng,
            customers,
            number: FIRST_NUMBER,
            drafts: Vec::new(),
        }
    }

    fn breaking(
        &mut self,
        faults: &[&[Fault]],
        make: impl Fn(&mut ChaCha8Rng, &str, usize) -> Draft,
    ) {
        for bytes in TOO_LARGE_BYTES {
            let too_large = Damaged(Damage::FilledTo(bytes));
            for fault in faults
                .iter()
                .copied()
                .chain([&OF_BYTES[..], std::slice::from_ref(&too_large)])
                .flatten()
            {
                // Numbers divisible by 25 and one less are special to orders; step over them.
                self.number += if self.number % 25 == 23 { 2 } else { 1 };
                let customer = self.customers.pick(self.rng).to_owned();
                let mut draft = make(self.rng, &customer, self.number);
                self.apply(fault, &mut draft);
                self.drafts.push(draft);
            }
        }
    }

    fn apply(&mut self, fault: &Fault, draft: &mut Draft) {
        match *fault {
            Missing(field) => {
                let path = field_path(draft, field);
                draft.body.remove(&path);
            }
            Replaced(field, json) => {
                let path = field_path(draft, field);
                draft.body.set(&path, json);
            }
            OverLong(field) => {
                let id: String = (0..129)
                    .map(|_| char::from(self.rng.random_range(b'a'..=b'z')))
                    .collect();
                let path = field_path(draft, field);
                draft.body.set(&path, &quoted(&id));
            }
            Damaged(damage) => draft.damage = damage,
        }
    }
}

/// The path of a field; `order` is the number of a completed order in either version.
fn field_path(draft: &Draft, field: &str) -> String {
    draft.path(match (field, draft.topic) {
        ("order", "orders.orderCompleted.v1") => "orderNumber",
        ("order", _) => "orderId",
        _ => field,
    })
}

/// Messages that come after a valid one with the same id and say something else.
/// They keep its key, so they reach the same partition after it.
pub(super) fn conflicts(rng: &mut ChaCha8Rng, drafts: &[Draft], per_topic: usize) -> Vec<Draft> {
    let mut conflicts = Vec::new();
    for topic in [
        "reward-events",
        "orders",
        "orders.orderCompleted.v1",
        "orders.orderCompleted.v2",
        "redeem-events",
    ] {
        let candidates: Vec<&Draft> = drafts
            .iter()
            .filter(|draft| draft.topic == topic && draft.has_identity())
            .filter(|draft| draft.damage == Damage::None)
            .collect();
        for _ in 0..per_topic {
            let Some(first) = candidates.choose(rng) else {
                break;
            };
            let mut other = (*first).clone();
            contradict(&mut other);
            other.sent_at_ms += rng.random_range(1..7_200_000);
            conflicts.push(other);
        }
    }
    conflicts
}

fn contradict(draft: &mut Draft) {
    let (field, json) = match draft.topic {
        "reward-events" if draft.body.has("payload.nights") => ("payload.nights", "31"),
        "reward-events" => ("payload.amount", "\"7777.77\""),
        "orders" => ("amount", "\"88888.88\""),
        "redeem-events" => ("requestedPoints", "3"),
        _ => ("userId", "\"somebody-else\""),
    };
    let path = draft.path(field);
    draft.body.set(&path, json);
}
