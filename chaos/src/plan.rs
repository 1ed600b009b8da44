//! Everything that is chosen, from the seed alone: what is sent in which order, and what is broken
//! when, counted in the load's progress.

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use samples::feed::Delivery;
use samples::generate::Day;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::merchants::{DEAF, LIES, MERCHANTS, PLAIN, UNKNOWN};
use crate::options::Size;
use crate::topics::REDEEM_EVENTS;

/// Of the requests, this many in a hundred come through Kafka.
const OVER_KAFKA_PERCENT: u32 = 35;
/// Of all deliveries, this many in a hundred are duplicates.
const DUPLICATE_PERCENT: usize = 30;
/// Of all deliveries, this many in a hundred are malformed.
const MALFORMED_PERCENT: usize = 5;
/// Copies for each message that give that share of duplicates beside the malformed ones.
const COPIES: (u32, u32) = (6, 13);
/// Requests for each customer who redeems.
const REQUESTS_PER_WALLET: usize = 20;
/// Nights of the stay that fills a wallet: 2,000 points.
const FUNDING_NIGHTS: u32 = 20;
/// More points than anybody has.
const HOPELESS_POINTS: i64 = 10_000_000;
/// Requests at the merchant that never answers.
const AT_DEAF: usize = 3;

/// A component or service that can be killed and paused.
pub const TARGETS: [&str; 7] = [
    "api", "worker", "worker-2", "kafka", "postgres", "temporal", "partners",
];
/// A connection that can be cut.
pub const LINKS: [&str; 4] = ["postgres", "temporal", "partners", "kafka"];

/// A request to redeem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The redemption's id.
    pub id: String,
    /// Whose points.
    pub customer: String,
    /// How many.
    pub points: i64,
    /// Where.
    pub merchant: String,
    /// For what.
    pub order: String,
    /// What else is done with it.
    pub twist: Twist,
    /// Cancelled so many milliseconds after it was accepted.
    pub cancel_after_ms: Option<u64>,
}

/// What is done with a request besides sending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Twist {
    /// Nothing.
    None,
    /// Sent again under the same key.
    Repeat,
    /// Sent again under another key.
    OtherKey,
    /// Another body under the same key.
    SameKeyOtherBody,
    /// Another body under the same id.
    Conflict,
    /// It lacks its points: it cannot be accepted.
    Broken,
}

/// Something that is broken for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Fault {
    /// Killed, and started again after so many milliseconds.
    Kill {
        /// What.
        target: &'static str,
        /// How long it is away.
        down_ms: u64,
    },
    /// Stopped (`SIGSTOP`) for so many milliseconds.
    Pause {
        /// What.
        target: &'static str,
        /// How long.
        ms: u64,
    },
    /// The connections to a component.
    Cut {
        /// To what.
        link: &'static str,
        /// In which way.
        how: Cut,
        /// How long.
        ms: u64,
    },
    /// The plain merchant behaves in another way.
    Lie {
        /// Which of the ways.
        lie: usize,
        /// How long.
        ms: u64,
    },
}

/// How connections are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Cut {
    /// All are closed once; new ones work.
    Drop,
    /// All are closed and new ones refused.
    Refuse,
    /// They stay open and nothing passes.
    Stall,
}

/// A fault and when it begins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// How far the load is then, from 0 to 1.
    pub at: f64,
    /// What it is.
    pub fault: Fault,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Sent before anything is broken: points for those who redeem.
    pub funding: Vec<Delivery>,
    /// Sent over Kafka, in this order.
    pub messages: Vec<Delivery>,
    /// Sent over HTTP, begun in this order.
    pub requests: Vec<Request>,
    /// Broken, in this order.
    pub faults: Vec<Planned>,
    /// The customers who redeem.
    pub wallets: Vec<String>,
}

impl Plan {
    /// Chooses everything.
    pub fn new(seed: u64, size: Size) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let wallets: Vec<String> = (0..(size.redemptions / REQUESTS_PER_WALLET).max(3))
            .map(|number| format!("W-{number:04}"))
            .collect();
        let funding = wallets.iter().map(|wallet| stay(wallet, "start")).collect();
        let requests = requests(&mut rng, &wallets, size);
        let (over_kafka, over_http): (Vec<Request>, Vec<Request>) =
            requests.into_iter().partition(|request| {
                let no_client = request.twist == Twist::None && request.cancel_after_ms.is_none();
                no_client && rng.random_ratio(OVER_KAFKA_PERCENT * 2, 100)
            });
        let awards = day(rng.random(), size.deliveries);
        let redeems = messages(&mut rng, &over_kafka);
        let messages = shuffled_together(&mut rng, awards, redeems);
        let faults = faults(&mut rng, size.kills);
        Self {
            seed,
            funding,
            messages,
            requests: over_http,
            faults,
            wallets,
        }
    }

    /// A digest of every choice.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for delivery in self.funding.iter().chain(&self.messages) {
            digest.update(&delivery.topic);
            digest.update(&delivery.key);
            digest.update(format!("{:?}", delivery.headers));
            digest.update(&delivery.value);
        }
        digest.update(format!("{:?} {:?}", self.requests, self.faults));
        hex::encode(&digest.finalize()[..8])
    }

    /// One more round of load that reaches every crash point, when the plan's own is over.
    pub fn extra(&self, round: usize) -> (Vec<Delivery>, Vec<Request>) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1_000 + round as u64);
        let mut messages: Vec<Delivery> = self
            .wallets
            .sample(&mut rng, 4)
            .map(|wallet| stay(wallet, &format!("extra-{round}")))
            .collect();
        messages.extend((0..4).map(|n| {
            let newcomer = format!("X-{round}-{n}");
            stay(&newcomer, "first")
        }));
        let mut requests = Vec::new();
        let reaching = [
            (PLAIN, None),
            ("REFUSES", None),
            ("CALLS-BACK", None),
            ("NEVER-DECIDES", None),
            ("CALLS-BACK", Some(60)),
            ("NEVER-DECIDES", Some(300)),
            ("SILENT", None),
        ];
        for (number, (merchant, cancel_after_ms)) in reaching.into_iter().enumerate() {
            requests.push(Request {
                id: format!("RX-{round}-{number}"),
                customer: self.wallets.choose(&mut rng).cloned().unwrap_or_default(),
                points: rng.random_range(5..20),
                merchant: merchant.to_owned(),
                order: format!("OX-{round}-{number}"),
                twist: Twist::None,
                cancel_after_ms,
            });
        }
        let over_kafka = Request {
            id: format!("RX-{round}-K"),
            merchant: PLAIN.to_owned(),
            order: format!("OX-{round}-K"),
            cancel_after_ms: None,
            ..requests[0].clone()
        };
        messages.push(message(&over_kafka));
        (messages, requests)
    }
}

/// The body of a request.
pub fn body(request: &Request) -> serde_json::Value {
    json!({
        "redeemRequestId": request.id,
        "customerId": request.customer,
        "requestedPoints": request.points,
        "merchantContext": { "merchantId": request.merchant, "orderId": request.order },
        "timestamp": "2026-03-14T12:00:00Z",
    })
}

fn message(request: &Request) -> Delivery {
    Delivery {
        topic: REDEEM_EVENTS.to_owned(),
        key: request.customer.clone(),
        headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
        value: body(request).to_string().into_bytes(),
    }
}

/// A stay that gives 2,000 points, known by the customer and a word.
fn stay(customer: &str, word: &str) -> Delivery {
    let body = json!({
        "eventId": format!("stay-{customer}-{word}"),
        "eventType": "HOTEL_STAY",
        "customerId": customer,
        "timestamp": "2026-03-14T10:00:00Z",
        "payload": { "nights": FUNDING_NIGHTS },
    });
    Delivery {
        topic: "reward-events".to_owned(),
        key: customer.to_owned(),
        headers: [].into(),
        value: body.to_string().into_bytes(),
    }
}

fn day(seed: u64, deliveries: usize) -> Vec<Delivery> {
    let valid_percent = 100 - DUPLICATE_PERCENT - MALFORMED_PERCENT;
    // A day has about eight valid messages for each one of a kind.
    let per_kind = (deliveries * valid_percent / 100 / 8).max(4);
    let malformed = deliveries * MALFORMED_PERCENT / 100;
    let conflicts = malformed / 20;
    let day = Day {
        seed,
        messages_per_kind: per_kind,
        customers: u32::try_from(per_kind.max(24)).unwrap_or(u32::MAX),
        duplicates: COPIES,
        malformed: Some(malformed.saturating_sub(conflicts * 4)),
        conflicts,
        redemptions: false,
    };
    day.make()
}

fn requests(rng: &mut ChaCha8Rng, wallets: &[String], size: Size) -> Vec<Request> {
    let count = size.redemptions;
    let mut drawn: Vec<(&str, u32)> = MERCHANTS.iter().map(|m| (m.id, m.weight)).collect();
    drawn.push((UNKNOWN, 2));
    let mut requests: Vec<Request> = (0..count)
        .map(|number| {
            let merchant = drawn
                .choose_weighted(rng, |(_, weight)| *weight)
                .map_or(PLAIN, |(id, _)| *id);
            let hopeless = rng.random_ratio(2, 100);
            Request {
                id: format!("R-{number:05}"),
                customer: wallets.choose(rng).cloned().unwrap_or_default(),
                points: if hopeless {
                    HOPELESS_POINTS
                } else {
                    rng.random_range(5..60)
                },
                merchant: merchant.to_owned(),
                order: format!("O-{number:05}"),
                twist: match rng.random_range(0..100) {
                    0..12 => Twist::Repeat,
                    12..16 => Twist::OtherKey,
                    16..20 => Twist::SameKeyOtherBody,
                    20..24 => Twist::Conflict,
                    24..28 => Twist::Broken,
                    _ => Twist::None,
                },
                cancel_after_ms: rng
                    .random_ratio(size.cancel_percent, 100)
                    .then(|| rng.random_range(0..1_500)),
            }
        })
        .collect();
    let step = (count / (AT_DEAF + 1)).max(1);
    for request in requests.iter_mut().skip(step).step_by(step).take(AT_DEAF) {
        DEAF.clone_into(&mut request.merchant);
        request.points = 5;
        request.twist = Twist::None;
        request.cancel_after_ms = None;
    }
    requests
}

/// Requests over Kafka, with duplicates, contradictions and malformed ones among them.
fn messages(rng: &mut ChaCha8Rng, requests: &[Request]) -> Vec<Delivery> {
    // Each with the place that it is sent at; what repeats or contradicts another comes after it.
    let mut placed: Vec<(usize, Delivery)> = Vec::new();
    for (place, request) in requests.iter().enumerate() {
        placed.push((place, message(request)));
        if rng.random_ratio(COPIES.0, COPIES.1) {
            placed.push((place + rng.random_range(1..30), message(request)));
        }
        if rng.random_ratio(2, 100) {
            let other = Request {
                points: request.points + 1,
                ..request.clone()
            };
            placed.push((place + rng.random_range(1..30), message(&other)));
        }
        if rng.random_ratio(5, 100) {
            let damaged = Request {
                id: format!("{}-damaged", request.id),
                ..request.clone()
            };
            placed.push((place, damage(rng, &damaged)));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, delivery)| delivery).collect()
}

fn damage(rng: &mut ChaCha8Rng, request: &Request) -> Delivery {
    let mut body = body(request);
    match rng.random_range(0..5) {
        0 => body["requestedPoints"] = json!(-5),
        1 => body["requestedPoints"] = json!([5]),
        2 => body["timestamp"] = json!("yesterday"),
        3 => body["merchantContext"] = json!({ "orderId": "O" }),
        _ => {
            let mut delivery = message(request);
            delivery.value.truncate(delivery.value.len() / 2);
            return delivery;
        }
    }
    Delivery {
        value: body.to_string().into_bytes(),
        ..message(request)
    }
}

/// Both in their own order, mixed at random.
fn shuffled_together(
    rng: &mut ChaCha8Rng,
    first: Vec<Delivery>,
    second: Vec<Delivery>,
) -> Vec<Delivery> {
    let mut turns: Vec<bool> = vec![true; first.len()];
    turns.resize(first.len() + second.len(), false);
    turns.shuffle(rng);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    turns
        .into_iter()
        .filter_map(|turn| if turn { first.next() } else { second.next() })
        .collect()
}

fn faults(rng: &mut ChaCha8Rng, kills: u32) -> Vec<Planned> {
    let kills = kills as usize;
    // Each target as often as the others, in rounds of their own order.
    let mut order: Vec<&'static str> = Vec::new();
    while order.len() < kills {
        let mut round = TARGETS;
        round.shuffle(rng);
        order.extend(round);
    }
    let mut faults: Vec<Fault> = order
        .into_iter()
        .take(kills)
        .map(|target| Fault::Kill {
            target,
            down_ms: rng.random_range(0..2_500),
        })
        .collect();
    for _ in 0..kills.div_ceil(3) {
        faults.push(Fault::Pause {
            target: TARGETS.choose(rng).copied().unwrap_or("worker"),
            ms: rng.random_range(800..5_000),
        });
        faults.push(Fault::Cut {
            link: LINKS.choose(rng).copied().unwrap_or("postgres"),
            how: [Cut::Drop, Cut::Refuse, Cut::Stall]
                .choose(rng)
                .copied()
                .unwrap_or(Cut::Drop),
            ms: rng.random_range(500..5_000),
        });
        faults.push(Fault::Lie {
            lie: rng.random_range(0..LIES.len()),
            ms: rng.random_range(1_000..6_000),
        });
    }
    if kills == 0 {
        faults.clear();
    }
    faults.shuffle(rng);
    let count = f64::from(u32::try_from(faults.len().max(1)).unwrap_or(u32::MAX));
    let mut at = 0.0;
    faults
        .into_iter()
        .map(|fault| {
            let planned = Planned { at, fault };
            at += 1.0 / count;
            planned
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use samples::recompute::{Recomputation, Verdict};

    use super::*;

    const SIZE: Size = Size {
        kills: 14,
        deliveries: 2_000,
        redemptions: 200,
        cancel_percent: 12,
    };

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_another() {
        let digest = |seed| Plan::new(seed, SIZE).digest();
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
        let (plan, again) = (Plan::new(1, SIZE), Plan::new(1, SIZE));
        assert_eq!(plan.extra(3), again.extra(3));
        assert_ne!(plan.extra(3), plan.extra(4));
    }

    #[test]
    fn what_is_sent_has_the_shares_it_should() {
        let plan = Plan::new(1, SIZE);
        let mut pass = Recomputation::default();
        let (mut duplicates, mut refused) = (0, 0);
        for delivery in &plan.messages {
            match pass.take(delivery) {
                Verdict::Duplicate => duplicates += 1,
                Verdict::DeadLetter(_) => refused += 1,
                _ => {}
            }
        }
        let all = plan.messages.len();
        assert!((1_800..2_600).contains(&all), "{all}");
        assert!((25..35).contains(&(duplicates * 100 / all)), "{duplicates}");
        assert!((3..8).contains(&(refused * 100 / all)), "{refused}");
        assert!(plan.requests.len() > 80);
        assert!(plan.requests.iter().any(|r| r.cancel_after_ms.is_some()));
    }

    #[test]
    fn every_target_is_killed_as_often_as_the_others() {
        let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
        for planned in Plan::new(5, SIZE).faults {
            assert!((0.0..1.0).contains(&planned.at));
            if let Fault::Kill { target, .. } = planned.fault {
                *kills.entry(target).or_default() += 1;
            }
        }
        assert_eq!(kills.into_values().collect::<Vec<_>>(), [2; 7]);
        let calm = Size { kills: 0, ..SIZE };
        assert!(Plan::new(5, calm).faults.is_empty());
    }
}
