//! The oracle finds nothing wrong with what is right, and sees each thing that is wrong.

use serde_json::json;

use super::*;
use crate::acknowledger::Acknowledgement;
use crate::load::{Answer, Asked};
use crate::merchants::{DEAF, PLAIN};
use crate::observe::{
    Booked, Change, Customer, Processed, Record, Redemption, TierOrder, Transfer,
};
use crate::topics;

const A: &str = "A";

fn record(topic: &str, offset: i64, version: i64, value: &serde_json::Value) -> Record {
    Record {
        topic: topic.to_owned(),
        offset,
        key: A.to_owned(),
        headers: [("meed-account-version".to_owned(), version.to_string())].into(),
        value: value.to_string().into_bytes(),
        ..Record::default()
    }
}

fn transfer(version: i64, of: (&str, &str, &str), amount: i64, after: (i64, i64)) -> Transfer {
    let (source, id, leg) = of;
    let (debit, credit) = match leg {
        "award" => ("ISSUANCE", "AVAILABLE"),
        "hold" => ("AVAILABLE", "HELD"),
        "settle" => ("HELD", "SETTLEMENT"),
        _ => ("HELD", "AVAILABLE"),
    };
    Transfer {
        transfer_id: version,
        source: source.to_owned(),
        source_event_id: id.to_owned(),
        leg: leg.to_owned(),
        debit: debit.to_owned(),
        credit: credit.to_owned(),
        customer_id: A.to_owned(),
        merchant_id: (leg == "settle").then(|| PLAIN.to_owned()),
        amount,
        customer_version: version,
        available_after: after.0,
        held_after: after.1,
    }
}

fn redemption(id: &str, merchant: &str, points: i64, state: &str) -> Redemption {
    Redemption {
        redeem_request_id: id.to_owned(),
        customer_id: A.to_owned(),
        merchant_id: merchant.to_owned(),
        order_id: "O".to_owned(),
        points,
        state: state.to_owned(),
        reason: (state == "FAILED").then(|| "PARTNER_REFUSED".to_owned()),
        points_deducted: if state == "SUCCESS" { points } else { 0 },
        balance_after: matches!(state, "SUCCESS" | "FAILED").then_some(1_902),
        hold_is_over: merchant == DEAF,
    }
}

fn booked(merchant: &str, id: &str, points: i64, status: Option<&str>) -> Booked {
    let changes = status.iter().map(|status| Change {
        status: (*status).to_owned(),
    });
    Booked {
        merchant: merchant.to_owned(),
        redeem_request_id: id.to_owned(),
        order_id: Some("O".to_owned()),
        points: Some(points),
        status: status.map(str::to_owned),
        posts: 1,
        changes: changes.collect(),
    }
}

fn answer(asked: Asked, id: &str, status: u16, code: &str) -> Answer {
    Answer {
        id: id.to_owned(),
        asked,
        status: Some(status),
        code: (!code.is_empty()).then(|| code.to_owned()),
        named: (status == 202).then(|| id.to_owned()),
        attempts: 1,
    }
}

fn confirmed(version: i64, id: &str, points: i64, after: i64) -> Record {
    record(
        topics::REWARD_CONFIRMED,
        version,
        version,
        &json!({"customerId": A, "sourceEventId": id, "pointsAwarded": points, "balanceAfter": after}),
    )
}

fn total(version: i64, total: i64, difference: i64) -> Record {
    record(
        topics::POINTS_ADDED,
        version,
        version,
        &json!({"userId": A, "totalPoints": total, "difference": difference}),
    )
}

fn end(offset: i64, row: &Redemption) -> Record {
    let mut said = json!({
        "redeemRequestId": row.redeem_request_id, "customerId": A, "status": row.state,
        "pointsDeducted": row.points_deducted, "balanceAfter": row.balance_after,
    });
    if let Some(reason) = &row.reason {
        said["reason"] = json!(reason);
    }
    record(topics::REDEEM_CONFIRMED, offset, 1, &said)
}

/// A customer who stayed, ordered, redeemed with success, with failure and at a merchant that does
/// not answer, and rose to gold; a message that came twice and one that nobody can read.
fn sound() -> Observed {
    let stay = json!({
        "eventId": "stay", "eventType": "HOTEL_STAY", "customerId": A,
        "timestamp": "2026-03-14T10:00:00Z", "payload": { "nights": 20 },
    });
    let order = json!({ "customerId": A, "amount": 250 });
    let request = json!({
        "redeemRequestId": "RK", "customerId": A, "requestedPoints": 10,
        "merchantContext": { "merchantId": "REFUSES", "orderId": "O" },
        "timestamp": "2026-03-14T12:00:00Z",
    });
    let nonsense = Record {
        value: b"nonsense".to_vec(),
        ..record("reward-events", 2, 0, &json!(null))
    };
    let inputs = vec![
        record("reward-events", 0, 0, &stay),
        record("reward-events", 1, 0, &stay),
        nonsense.clone(),
        record("orders", 0, 0, &order),
        record("redeem-events", 0, 0, &request),
    ];
    let redemptions = vec![
        redemption("R1", PLAIN, 100, "SUCCESS"),
        redemption("RD", DEAF, 5, "CONFIRMING"),
        redemption("RK", "REFUSES", 10, "FAILED"),
    ];
    let upgrade = json!({
        "userId": A, "previousTier": "BRONZE", "newTier": "GOLD", "callbackId": "cb",
    });
    let letter = Record {
        topic: topics::DEAD_LETTER.to_owned(),
        headers: [
            ("meed-dlq-topic", "reward-events"),
            ("meed-dlq-partition", "0"),
            ("meed-dlq-offset", "2"),
            ("meed-dlq-class", "MALFORMED_JSON"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..nonsense
    };
    let published = vec![
        confirmed(1, "stay", 2_000, 2_000),
        confirmed(2, "orders-0-0", 2, 2_002),
        total(1, 2_000, 2_000),
        total(2, 2_002, 2),
        total(4, 1_902, -100),
        end(0, &redemptions[0]),
        end(1, &redemptions[2]),
        record(topics::TIER_UPGRADED, 0, 2, &upgrade),
        letter,
    ];
    let processed = |source: &str, id: &str, points| Processed {
        source: source.to_owned(),
        event_id: id.to_owned(),
        customer_id: A.to_owned(),
        points,
    };
    Observed {
        sent: Vec::new(),
        inputs,
        published,
        transfers: vec![
            transfer(1, ("reward-event", "stay", "award"), 2_000, (2_000, 0)),
            transfer(2, ("order-at", "orders-0-0", "award"), 2, (2_002, 0)),
            transfer(3, ("redeem", "R1", "hold"), 100, (1_902, 100)),
            transfer(4, ("redeem", "R1", "settle"), 100, (1_902, 0)),
            transfer(5, ("redeem", "RK", "hold"), 10, (1_892, 10)),
            transfer(6, ("redeem", "RK", "release"), 10, (1_902, 0)),
            transfer(7, ("redeem", "RD", "hold"), 5, (1_897, 5)),
        ],
        customers: vec![Customer {
            customer_id: A.to_owned(),
            available: 1_897,
            held: 5,
            lifetime_earned: 2_002,
            version: 7,
            tier: "GOLD".to_owned(),
            tier_version: 1,
        }],
        processed: vec![
            processed("reward-event", "stay", 2_000),
            processed("order-at", "orders-0-0", 2),
        ],
        redemptions,
        tier_orders: vec![TierOrder {
            order_id: 1,
            customer_id: A.to_owned(),
            is_closed: true,
            previous_tier: Some("BRONZE".to_owned()),
            new_tier: Some("GOLD".to_owned()),
            is_notified: true,
            callback_id: Some("cb".to_owned()),
        }],
        books: vec![
            booked(PLAIN, "R1", 100, Some("CONFIRMED")),
            booked("REFUSES", "RK", 10, Some("REFUSED")),
            booked(DEAF, "RD", 5, None),
        ],
        answers: vec![
            answer(Asked::Redeem, "R1", 202, ""),
            answer(Asked::Repeat, "R1", 202, ""),
            answer(Asked::Conflict, "R1", 409, "CONFLICTING_REQUEST"),
            answer(Asked::Cancel, "R1", 409, "ALREADY_ENDED"),
            answer(Asked::Redeem, "RD", 202, ""),
            answer(Asked::Redeem, "RN", 409, "INSUFFICIENT_POINTS"),
            answer(Asked::Broken, "RB", 400, "INVALID_POINTS"),
        ],
        acknowledgements: vec![Acknowledgement {
            callback_id: "cb".to_owned(),
            success: true,
            status: Some(200),
            attempts: 1,
        }],
        unpublished: 0,
        deaf: vec![DEAF.to_owned()],
    }
}

/// The names of the properties that something breaks.
fn broken(observed: &Observed) -> Vec<&'static str> {
    judge(observed)
        .into_iter()
        .filter(|property| !property.holds())
        .map(|property| property.name)
        .collect()
}

/// Where a message stands that has these words.
fn told<'a>(observed: &'a mut Observed, topic: &str, words: &str) -> &'a mut Record {
    observed
        .published
        .iter_mut()
        .find(|r| r.topic == topic && String::from_utf8_lossy(&r.value).contains(words))
        .unwrap()
}

fn forget(observed: &mut Observed, topic: &str, words: &str) {
    let record = told(observed, topic, words).clone();
    observed.published.retain(|r| *r != record);
}

fn again(observed: &mut Observed, topic: &str, words: &str, change: impl Fn(&mut Record)) {
    let mut record = told(observed, topic, words).clone();
    record.offset += 100;
    change(&mut record);
    observed.published.push(record);
}

#[test]
fn nothing_is_wrong_with_what_is_right() {
    let properties = judge(&sound());
    for property in &properties {
        assert!(property.holds(), "{property:?}");
    }
    assert!(
        properties
            .iter()
            .all(|p| p.looked_at > 0 || p.name == "deliveries")
    );
    let listed: Vec<&String> = properties.iter().flat_map(|p| &p.listed).collect();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[test]
fn the_same_message_told_twice_is_right() {
    let mut observed = sound();
    let again: Vec<Record> = observed.published.clone();
    observed
        .published
        .extend(again.into_iter().map(|record| Record {
            offset: record.offset + 1_000,
            ..record
        }));
    assert_eq!(broken(&observed), Vec::<&str>::new());
}

type Doctor = fn(&mut Observed);

/// What is done to what is right, and the property that has to see it.
const DOCTORED: &[(&str, Doctor)] = &[
    ("deliveries", |o| {
        o.sent.push(samples::feed::Delivery {
            topic: "orders".to_owned(),
            key: A.to_owned(),
            headers: [].into(),
            value: b"{}".to_vec(),
        });
    }),
    // An event was lost, came twice, came with other points, or from nowhere.
    ("events have one effect", |o| {
        o.processed.remove(0);
    }),
    ("events have one effect", |o| {
        o.transfers.remove(0);
    }),
    ("events have one effect", |o| {
        let mut twice = o.transfers[0].clone();
        twice.leg = "award-2".to_owned();
        o.transfers.push(twice);
    }),
    ("events have one effect", |o| o.transfers[0].amount = 1_999),
    ("events have one effect", |o| o.processed[0].points = 1_999),
    ("events have one effect", |o| {
        o.processed[1].event_id = "orders-0-7".to_owned();
    }),
    ("events have one effect", |o| {
        o.customers[0].lifetime_earned += 1;
    }),
    ("events have one effect", |o| o.customers.clear()),
    ("events have one effect", |o| {
        let mut nobody = o.customers[0].clone();
        nobody.customer_id = "nobody".to_owned();
        o.customers.push(nobody);
    }),
    // A refusal without a letter, with another class or other bytes; a letter without a refusal.
    ("refusals are dead letters", |o| {
        forget(o, topics::DEAD_LETTER, "nonsense");
    }),
    ("refusals are dead letters", |o| {
        let letter = told(o, topics::DEAD_LETTER, "nonsense");
        letter
            .headers
            .insert("meed-dlq-class".to_owned(), "INVALID_ID".to_owned());
    }),
    ("refusals are dead letters", |o| {
        told(o, topics::DEAD_LETTER, "nonsense").value.push(b'!');
    }),
    ("refusals are dead letters", |o| {
        again(o, topics::DEAD_LETTER, "nonsense", |letter| {
            letter
                .headers
                .insert("meed-dlq-offset".to_owned(), "0".to_owned());
        });
    }),
    // An accepted request that is nothing, a refused one that is something, one out of nowhere.
    ("requests are answered", |o| {
        o.answers.push(answer(Asked::Redeem, "R9", 202, ""));
    }),
    ("requests are answered", |o| {
        o.answers
            .push(answer(Asked::Redeem, "RD", 409, "INSUFFICIENT_POINTS"));
    }),
    ("requests are answered", |o| {
        o.redemptions.push(redemption("R9", PLAIN, 1, "QUEUED"));
    }),
    ("requests are answered", |o| {
        o.redemptions.retain(|row| row.redeem_request_id != "RK");
    }),
    ("requests are answered", |o| {
        o.answers
            .push(answer(Asked::SameKeyOtherBody, "R1", 202, ""));
    }),
    ("requests are answered", |o| {
        o.answers
            .push(answer(Asked::Cancel, "RD", 409, "ALREADY_ENDED"));
    }),
    ("requests are answered", |o| {
        o.answers.push(answer(Asked::Conflict, "R1", 202, ""));
    }),
    ("balances fold", |o| o.customers[0].available += 1),
    ("balances fold", |o| o.transfers[3].available_after += 1),
    ("balances fold", |o| o.transfers[6].customer_version = 9),
    ("accounts sum to zero", |o| o.customers[0].held += 1),
    ("nothing is negative", |o| o.customers[0].available = -1),
    ("nothing is negative", |o| o.transfers[2].held_after = -100),
    ("no hold outlives its limit", |o| o.deaf.clear()),
    ("no hold outlives its limit", |o| o.customers[0].held = 6),
    ("redemptions end", |o| {
        o.redemptions[0].state = "CONFIRMING".to_owned();
    }),
    ("redemptions end", |o| {
        o.redemptions[0].merchant_id = "REFUSES".to_owned();
    }),
    ("redemptions end", |o| o.redemptions[0].points_deducted = 0),
    // Deducted twice, never, or deducted and given back.
    ("redemptions have one effect", |o| {
        let mut twice = o.transfers[3].clone();
        twice.customer_version = 8;
        o.transfers.push(twice);
    }),
    ("redemptions have one effect", |o| {
        o.transfers.remove(3);
    }),
    ("redemptions have one effect", |o| {
        let back = transfer(8, ("redeem", "R1", "release"), 100, (1_997, 5));
        o.transfers.push(back);
    }),
    ("redemptions have one effect", |o| {
        o.transfers[3].amount = 99;
    }),
    ("redemptions have one effect", |o| {
        o.transfers[3].merchant_id = Some("SLOW".to_owned());
    }),
    ("redemptions have one effect", |o| {
        o.transfers[4].source_event_id = "R9".to_owned();
    }),
    // Points without goods, goods without points, and what could still become either.
    ("merchants agree", |o| {
        o.books[0].status = Some("VOIDED".to_owned());
    }),
    ("merchants agree", |o| {
        o.books[1].status = Some("CONFIRMED".to_owned());
    }),
    ("merchants agree", |o| {
        o.books[1].status = Some("PENDING".to_owned());
    }),
    ("merchants agree", |o| o.books[1].status = None),
    ("merchants agree", |o| {
        o.books.remove(0);
    }),
    ("merchants agree", |o| o.books[0].points = Some(99)),
    ("merchants agree", |o| {
        o.books.push(booked(PLAIN, "R9", 5, Some("CONFIRMED")));
    }),
    ("merchants agree", |o| {
        let voided = "VOIDED".to_owned();
        o.books[0].changes.insert(0, Change { status: voided });
    }),
    ("redemptions are published", |o| {
        forget(o, topics::REDEEM_CONFIRMED, "R1");
    }),
    ("redemptions are published", |o| {
        again(o, topics::REDEEM_CONFIRMED, "R1", |record| {
            record.value.push(b' ');
        });
    }),
    ("redemptions are published", |o| {
        o.redemptions[0].balance_after = Some(7);
    }),
    ("redemptions are published", |o| {
        let open = o.redemptions[1].clone();
        o.published.push(end(9, &open));
    }),
    ("awards are confirmed", |o| {
        forget(o, topics::REWARD_CONFIRMED, "stay");
    }),
    ("awards are confirmed", |o| {
        o.published.push(confirmed(8, "other", 1, 1));
    }),
    ("awards are confirmed", |o| {
        told(o, topics::REWARD_CONFIRMED, "stay").value = confirmed(1, "stay", 2_000, 1).value;
    }),
    ("awards are confirmed", |o| {
        again(o, topics::REWARD_CONFIRMED, "stay", |record| {
            record.value.push(b' ');
        });
    }),
    ("totals are told", |o| {
        forget(o, topics::POINTS_ADDED, "-100");
    }),
    ("totals are told", |o| o.published.push(total(5, 1_902, 0))),
    ("totals are told", |o| {
        told(o, topics::POINTS_ADDED, "-100").value = total(4, 1_902, 100).value;
    }),
    ("told in order", |o| {
        let later = o
            .published
            .iter()
            .position(|r| r.topic == topics::POINTS_ADDED);
        o.published.swap(later.unwrap(), later.unwrap() + 1);
    }),
    ("the outbox is empty", |o| o.unpublished = 1),
    // An upgrade that happened twice, downwards, was not told, was told otherwise or of nothing.
    ("upgrades happen once", |o| {
        let mut twice = o.tier_orders[0].clone();
        twice.order_id = 2;
        o.tier_orders.push(twice);
    }),
    ("upgrades happen once", |o| {
        o.tier_orders[0].new_tier = Some("BRONZE".to_owned());
    }),
    ("upgrades happen once", |o| o.tier_orders[0].new_tier = None),
    ("upgrades happen once", |o| {
        forget(o, topics::TIER_UPGRADED, "cb");
    }),
    ("upgrades happen once", |o| {
        again(o, topics::TIER_UPGRADED, "cb", |record| {
            let text = String::from_utf8_lossy(&record.value).replace("\"cb\"", "\"cc\"");
            record.value = text.into_bytes();
        });
    }),
    ("upgrades happen once", |o| {
        o.tier_orders[0].previous_tier = Some("SILVER".to_owned());
    }),
    ("tiers are what is due", |o| {
        o.customers[0].tier = "SILVER".to_owned();
    }),
    ("tiers are what is due", |o| {
        o.customers[0].tier = "PLATINUM".to_owned();
    }),
    ("tiers are what is due", |o| {
        o.tier_orders[0].is_closed = false;
    }),
    ("acknowledgements count", |o| {
        o.tier_orders[0].is_notified = false;
    }),
    ("acknowledgements count", |o| o.acknowledgements.clear()),
    ("acknowledgements count", |o| {
        o.acknowledgements[0].status = Some(404);
    }),
    ("acknowledgements count", |o| {
        o.acknowledgements[0].callback_id = "cc".to_owned();
    }),
];

#[test]
fn what_is_wrong_is_seen() {
    for (number, (property, doctor)) in DOCTORED.iter().enumerate() {
        let mut observed = sound();
        doctor(&mut observed);
        let broken = broken(&observed);
        assert!(
            broken.contains(property),
            "{number}, {property}: {broken:?}"
        );
    }
}

#[test]
fn every_property_has_something_that_breaks_it() {
    for property in judge(&sound()) {
        let breaks = DOCTORED.iter().any(|(name, _)| *name == property.name);
        assert!(breaks, "nothing breaks {}", property.name);
    }
}
