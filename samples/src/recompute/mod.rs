//! What a day of deliveries must come to, worked out the plain way.
//!
//! This is the second opinion on the engine, so it shares no code with it: one
//! pass over the file, one map per question, no rule file. It says in code what
//! the programme says in words:
//!
//! * a hotel night gives 100 points, half as much again in a suite, at most 2,000 a stay;
//! * dining gives 3 points per full 10, casino spend 1 per full 20 (twice that from
//!   18:00 to 22:00 UTC, at most 500 per customer and UTC day), an order 1 per full 100;
//! * a completed order gives 50 once over both versions, a new user 100 once, a
//!   registered player an account and no points;
//! * EUR, GBP and JPY amounts count at 1.08, 1.27 and 0.0067;
//! * the first body of an id counts. The same body again is passed over in silence,
//!   another body under the same id is a dead letter every time it comes. Lines are
//!   taken in file order, which is right because all messages of one customer share
//!   a partition;
//! * a message that breaks its contract is a dead letter with one reason and never
//!   uses up its id;
//! * all awards come before all redemptions. A redemption at an unknown merchant, one
//!   the customer cannot afford, and one the merchant refuses (`M3`) or never answers
//!   (`M5`, `M6`) fails and costs nothing; every other one is paid in points.
//!   The customer's tier is what the awards alone amount to, for tiers never fall.

mod message;

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use serde::Serialize;

use crate::feed::Delivery;
use message::{Effect, Message};

/// What became of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Counted for the first time, with the points awarded (after the daily cap).
    Awarded(i64),
    /// A redemption seen for the first time.
    Redemption,
    /// The same id with the same body came before.
    Duplicate,
    /// Well formed and of no interest (other player events).
    Ignored,
    /// Refused, with the error class.
    DeadLetter(&'static str),
}

/// How a redemption must end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Whose points.
    pub customer_id: String,
    /// Which merchant.
    pub merchant_id: String,
    /// How many were asked for.
    pub requested_points: i64,
    /// `SUCCESS` or `FAILED`.
    pub status: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Where a customer must stand at the end of the day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Points given by events; nothing else gives points, so this is lifetime earned too.
    pub awarded: i64,
    /// Points that never fall.
    pub lifetime: i64,
    /// Points paid in successful redemptions.
    pub redeemed: i64,
    /// Points left to spend.
    pub available: i64,
    /// Tier reached.
    pub tier: &'static str,
}

/// The whole answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// Overall sums.
    pub totals: BTreeMap<&'static str, i64>,
    /// Deliveries by topic.
    pub deliveries: BTreeMap<String, u64>,
    /// Messages of each kind that counted.
    pub counted: BTreeMap<String, u64>,
    /// Dead letters by error class.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// Customers by tier.
    pub tiers: BTreeMap<&'static str, u64>,
    /// Redemptions by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Every customer with an account.
    pub customers: BTreeMap<String, Standing>,
    /// Every redemption by its id.
    pub redemptions: BTreeMap<String, Outcome>,
    /// Kind and id of every event that counted, for looking it up in a ledger.
    #[serde(skip)]
    pub events: Vec<(&'static str, String)>,
}

/// The pass over the file: [`take`](Self::take) each delivery, then [`finish`](Self::finish).
#[derive(Debug, Default)]
pub struct Recomputation {
    bodies: HashMap<(&'static str, String), String>,
    casino_points: HashMap<(String, NaiveDate), i64>,
    expectation: Expectation,
    redemption_order: Vec<String>,
}

/// Recomputes a whole file.
pub fn recompute(deliveries: &[Delivery]) -> Expectation {
    let mut recomputation = Recomputation::default();
    for delivery in deliveries {
        recomputation.take(delivery);
    }
    recomputation.finish()
}

impl Recomputation {
    /// Takes the next delivery and says what becomes of it.
    pub fn take(&mut self, delivery: &Delivery) -> Verdict {
        let all = &mut self.expectation;
        *all.deliveries.entry(delivery.topic.clone()).or_default() += 1;
        let verdict = self.judge(delivery).unwrap_or_else(Verdict::DeadLetter);
        let all = &mut self.expectation;
        let count = match &verdict {
            Verdict::DeadLetter(class) => {
                *all.dead_letters.entry(class).or_default() += 1;
                "deadLetters"
            }
            Verdict::Duplicate => "duplicates",
            Verdict::Ignored => "ignored",
            Verdict::Awarded(_) | Verdict::Redemption => "counted",
        };
        *all.totals.entry(count).or_default() += 1;
        *all.totals.entry("deliveries").or_default() += 1;
        verdict
    }

    /// Kind and id of every event that has counted so far and has an id, in the order taken.
    pub fn events(&self) -> &[(&'static str, String)] {
        &self.expectation.events
    }

    fn judge(&mut self, delivery: &Delivery) -> Result<Verdict, &'static str> {
        let message = message::read(delivery)?;
        let Some(message) = message else {
            return Ok(Verdict::Ignored);
        };
        // An order without an id is known by its place in the topic: never the same twice.
        let id = match &message.id {
            Some(id) => id.clone(),
            None => format!("no id, {}", self.bodies.len()),
        };
        let body = format!("{} {}", message.customer, message.body);
        if let Some(first) = self.bodies.get(&(message.kind, id.clone())) {
            return if *first == body {
                Ok(Verdict::Duplicate)
            } else {
                Err("BODY_CONFLICT")
            };
        }
        self.bodies.insert((message.kind, id.clone()), body);
        let all = &mut self.expectation;
        *all.counted.entry(message.kind.to_owned()).or_default() += 1;
        if message.id.is_some() && message.kind != "redeem" {
            all.events.push((message.kind, id.clone()));
        }
        Ok(self.count(message, id))
    }

    fn count(&mut self, message: Message, id: String) -> Verdict {
        let points = match message.effect {
            Effect::Points(points) => points,
            Effect::Casino { points, day } => {
                let spent = self
                    .casino_points
                    .entry((message.customer.clone(), day))
                    .or_default();
                let given = points.min(500 - *spent);
                *spent += given;
                given
            }
            Effect::Redeem { points, merchant } => {
                self.redemption_order.push(id.clone());
                self.expectation.redemptions.insert(
                    id,
                    Outcome {
                        customer_id: message.customer,
                        merchant_id: merchant,
                        requested_points: points,
                        status: "SUCCESS",
                        reason: None,
                    },
                );
                return Verdict::Redemption;
            }
        };
        self.expectation
            .customers
            .entry(message.customer)
            .or_default()
            .awarded += points;
        Verdict::Awarded(points)
    }

    /// Settles the redemptions against the awards and adds everything up.
    pub fn finish(self) -> Expectation {
        let mut all = self.expectation;
        for standing in all.customers.values_mut() {
            standing.lifetime = standing.awarded;
            standing.available = standing.awarded;
            standing.tier = tier(standing.awarded);
        }
        for id in &self.redemption_order {
            let Some(outcome) = all.redemptions.get_mut(id) else {
                continue;
            };
            let customer = all.customers.get_mut(&outcome.customer_id);
            let affordable = customer
                .as_ref()
                .is_some_and(|c| c.available >= outcome.requested_points);
            outcome.reason = match outcome.merchant_id.as_str() {
                "M-UNKNOWN" => Some("UNKNOWN_MERCHANT"),
                _ if !affordable => Some("INSUFFICIENT_POINTS"),
                "M3" => Some("PARTNER_REFUSED"),
                "M5" | "M6" => Some("PARTNER_TIMEOUT"),
                _ => None,
            };
            match (outcome.reason, customer) {
                (None, Some(customer)) => {
                    customer.redeemed += outcome.requested_points;
                    customer.available -= outcome.requested_points;
                }
                _ => outcome.status = "FAILED",
            }
            let label = outcome.reason.unwrap_or("SUCCESS").to_owned();
            *all.outcomes.entry(label).or_default() += 1;
        }
        for standing in all.customers.values() {
            *all.tiers.entry(standing.tier).or_default() += 1;
            *all.totals.entry("pointsAwarded").or_default() += standing.awarded;
            *all.totals.entry("pointsRedeemed").or_default() += standing.redeemed;
            *all.totals.entry("pointsAvailable").or_default() += standing.available;
        }
        all
    }
}

/// The tier that an amount of current points is due.
pub fn tier(points: i64) -> &'static str {
    match points {
        3000.. => "PLATINUM",
        1500.. => "GOLD",
        500.. => "SILVER",
        _ => "BRONZE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(topic: &str, value: &str) -> Delivery {
        Delivery {
            topic: topic.to_owned(),
            key: "c".to_owned(),
            headers: BTreeMap::new(),
            value: value.as_bytes().to_vec(),
        }
    }

    #[test]
    fn the_first_body_of_an_id_counts() {
        let mut pass = Recomputation::default();
        let mut take = |value: &str| pass.take(&delivery("orders", value));
        let first = r#"{"customerId":"c","amount":"250.0","orderId":"o"}"#;
        let respelled = r#"{ "orderId":"o", "amount":250, "customerId":"c" }"#;
        let other = r#"{"customerId":"c","amount":"900","orderId":"o"}"#;
        assert_eq!(take(first), Verdict::Awarded(2));
        assert_eq!(take(respelled), Verdict::Duplicate);
        assert_eq!(take(other), Verdict::DeadLetter("BODY_CONFLICT"));
        assert_eq!(take(first), Verdict::Duplicate);
    }

    #[test]
    fn casino_points_stop_at_the_cap_of_the_day() {
        let mut pass = Recomputation::default();
        let mut take = |id: &str, amount: i64, at: &str| {
            pass.take(&delivery(
                "reward-events",
                &format!(
                    r#"{{"eventId":"{id}","eventType":"CASINO_SPEND","customerId":"c","timestamp":"{at}","payload":{{"amount":{amount}}}}}"#
                ),
            ))
        };
        assert_eq!(
            take("1", 8000, "2026-03-14T17:59:59Z"),
            Verdict::Awarded(400)
        );
        assert_eq!(
            take("2", 1600, "2026-03-14T18:00:00Z"),
            Verdict::Awarded(100)
        );
        assert_eq!(take("3", 1600, "2026-03-14T12:00:00Z"), Verdict::Awarded(0));
        assert_eq!(
            take("4", 1600, "2026-03-14T00:30:00+02:00"),
            Verdict::Awarded(80)
        );
    }
}
