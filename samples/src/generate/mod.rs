//! Makes the day of 2026-03-14 from a seed: the same seed, the same bytes.
//!
//! About 3,000 messages of every kind; customers drawn with a skew; about one in
//! twelve sent twice, one in ten late, and every way of breaking a contract several
//! times over. Redemptions come last and are sized so that their outcomes do not
//! depend on the order in which the engine happens to take them.

mod body;
mod customers;
mod draft;
mod malformed;
mod redemptions;
mod valid;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::feed::Delivery;
use crate::recompute::recompute;
use customers::Customers;
use draft::Draft;

/// The seed of the committed sample.
pub const SEED: u64 = 20_260_314;

/// One duplicate in this many is written differently and means the same.
const RESPELLED_ONE_IN: u32 = 5;
/// One message in this many arrives late and so out of order.
const LATE_ONE_IN: u32 = 10;
/// How late a message may be, in milliseconds.
const LATE_AT_MOST_MS: i64 = 45 * 60 * 1000;

/// What a day is like. The default is the committed sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// Decides everything else.
    pub seed: u64,
    /// Valid messages drawn for each kind, before duplicates and malformed ones; about eight
    /// times as many without redemptions. At least 4, at most 30,000.
    pub messages_per_kind: usize,
    /// How many customers the programme has; at least `messages_per_kind` and 24.
    pub customers: u32,
    /// Of so many messages (the second number) so many (the first) are sent again later.
    pub duplicates: (u32, u32),
    /// How many messages besides redemptions break their contract, drawn from all faults; `None` for every fault
    /// four times.
    pub malformed: Option<usize>,
    /// For each topic, how many messages contradict an earlier one under its id.
    pub conflicts: usize,
    /// Whether requests to redeem follow the awards.
    pub redemptions: bool,
}

impl Default for Day {
    fn default() -> Self {
        Self {
            seed: SEED,
            messages_per_kind: 2_700,
            customers: 3_000,
            duplicates: (1, 12),
            malformed: None,
            conflicts: 12,
            redemptions: true,
        }
    }
}

/// Makes the whole day as the committed sample has it, from another seed.
pub fn day(seed: u64) -> Vec<Delivery> {
    Day {
        seed,
        ..Day::default()
    }
    .make()
}

impl Day {
    /// Makes the whole day.
    pub fn make(&self) -> Vec<Delivery> {
        make(self)
    }
}

fn make(day: &Day) -> Vec<Delivery> {
    let mut rng = ChaCha8Rng::seed_from_u64(day.seed);
    let customers = Customers::draw(&mut rng, day.customers);

    let mut drafts = valid::all(&mut rng, &customers, day.messages_per_kind);
    delay_some(&mut rng, &mut drafts);
    let conflicts = malformed::conflicts(&mut rng, &drafts, day.conflicts);
    let duplicates = duplicates(&mut rng, &drafts, day.duplicates);
    drafts.extend(malformed::all(&mut rng, &customers, day.malformed));
    drafts.extend(conflicts);
    drafts.extend(duplicates);
    let mut deliveries = in_order_of_sending(&mut rng, drafts);
    if !day.redemptions {
        return deliveries;
    }

    // Only the awards decide what may be redeemed, so they are added up first.
    let awarded = recompute(&deliveries).customers;
    let mut requests = redemptions::all(&mut rng, &customers, &awarded, day.messages_per_kind);
    delay_some(&mut rng, &mut requests);
    let conflicts = malformed::conflicts(&mut rng, &requests, day.conflicts);
    let duplicates = self::duplicates(&mut rng, &requests, day.duplicates);
    requests.extend(malformed::redemptions(&mut rng, &customers));
    requests.extend(conflicts);
    requests.extend(duplicates);
    deliveries.extend(in_order_of_sending(&mut rng, requests));
    deliveries
}

fn delay_some(rng: &mut ChaCha8Rng, drafts: &mut [Draft]) {
    for draft in drafts {
        draft.sent_at_ms += if rng.random_ratio(1, LATE_ONE_IN) {
            rng.random_range(1_000..LATE_AT_MOST_MS)
        } else {
            rng.random_range(0..900)
        };
    }
}

/// Copies to be sent again. An order without an id is not among them: it is known
/// only by its offset, so a second one would rightly be another order.
fn duplicates(rng: &mut ChaCha8Rng, drafts: &[Draft], (some, of): (u32, u32)) -> Vec<Draft> {
    let mut copies = Vec::new();
    for draft in drafts {
        if draft.has_identity() && rng.random_ratio(some, of) {
            let mut copy = draft.clone();
            copy.sent_at_ms += rng.random_range(1..LATE_AT_MOST_MS * 2);
            copy.respelled = rng.random_ratio(1, RESPELLED_ONE_IN);
            copies.push(copy);
        }
    }
    copies
}

fn in_order_of_sending(rng: &mut ChaCha8Rng, mut drafts: Vec<Draft>) -> Vec<Delivery> {
    drafts.sort_by_key(|draft| draft.sent_at_ms);
    drafts
        .into_iter()
        .map(|draft| draft.into_delivery(rng))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::feed;
    use crate::recompute::{Recomputation, Verdict};

    #[test]
    fn a_day_can_be_of_another_size_and_worse() {
        let day = Day {
            seed: 7,
            messages_per_kind: 100,
            customers: 150,
            duplicates: (6, 13),
            malformed: Some(60),
            conflicts: 2,
            redemptions: false,
        };
        let made = day.make();
        let totals = recompute(&made).totals;
        let share = |name: &str| totals[name] * 100 / totals["deliveries"];
        assert!((1_100..1_500).contains(&made.len()), "{}", made.len());
        assert!((25..35).contains(&share("duplicates")), "{totals:?}");
        assert!((3..8).contains(&share("deadLetters")), "{totals:?}");
        assert!(
            made.iter()
                .all(|delivery| delivery.topic != "redeem-events")
        );
        assert!(made == day.make());
        let other = Day { seed: 8, ..day };
        assert!(made != other.make());
    }

    #[test]
    fn the_committed_sample_is_what_the_seed_gives() {
        let committed = feed::read(&feed::committed_sample()).expect("the sample is committed");
        let made = day(SEED);
        assert_eq!(made.len(), committed.len());
        for (line, (made, committed)) in made.iter().zip(&committed).enumerate() {
            assert!(made == committed, "line {} differs", line + 1);
        }

        let mut pass = Recomputation::default();
        let mut verdicts: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
        for delivery in &committed {
            let verdict = match pass.take(delivery) {
                Verdict::Awarded(_) => "awarded".to_owned(),
                other => format!("{other:?}"),
            };
            *verdicts
                .entry(&delivery.topic)
                .or_default()
                .entry(verdict)
                .or_default() += 1;
        }
        let day = pass.finish();

        // Every topic: thousands of messages, and every reason that it can be refused for.
        let refusals = |topic: &str| -> BTreeSet<&str> {
            verdicts[topic]
                .iter()
                .filter(|(_, count)| **count >= 3)
                .filter_map(|(verdict, _)| verdict.strip_prefix("DeadLetter(\""))
                .filter_map(|class| class.strip_suffix("\")"))
                .collect()
        };
        let everywhere = [
            "MALFORMED_JSON",
            "MISSING_FIELD",
            "WRONG_TYPE",
            "INVALID_ID",
            "PAYLOAD_TOO_LARGE",
        ];
        let timed = ["INVALID_TIMESTAMP", "TIMESTAMP_IN_FUTURE", "BODY_CONFLICT"];
        let money = ["INVALID_AMOUNT", "UNKNOWN_CURRENCY"];
        let expected: [(&str, u64, Vec<&str>); 7] = [
            (
                "reward-events",
                8_700,
                [&everywhere[..], &timed, &money, &["UNKNOWN_EVENT_TYPE"]].concat(),
            ),
            (
                "orders",
                2_900,
                [&everywhere[..], &money, &["BODY_CONFLICT"]].concat(),
            ),
            (
                "orders.orderCompleted.v1",
                2_900,
                [&everywhere[..], &["BODY_CONFLICT"]].concat(),
            ),
            (
                "orders.orderCompleted.v2",
                2_900,
                [&everywhere[..], &["BODY_CONFLICT"]].concat(),
            ),
            ("users.userCreated.v1", 2_900, everywhere.to_vec()),
            ("players", 2_900, everywhere.to_vec()),
            (
                "redeem-events",
                2_900,
                [&everywhere[..], &timed, &["INVALID_POINTS"]].concat(),
            ),
        ];
        for (topic, at_least, reasons) in expected {
            assert!(
                day.deliveries[topic] >= at_least,
                "{topic}: {}",
                day.deliveries[topic]
            );
            assert_eq!(refusals(topic), reasons.into_iter().collect(), "{topic}");
        }
        assert!(
            committed
                .iter()
                .any(|delivery| delivery.value.len() == 1_048_576)
        );
        assert!(
            day.tiers.len() == 4 && day.outcomes.len() == 5,
            "{:?} {:?}",
            day.tiers,
            day.outcomes
        );

        // No redemption hangs on the order in which the engine takes them.
        let mut asked: BTreeMap<&str, i64> = BTreeMap::new();
        for outcome in day.redemptions.values() {
            if outcome.reason == Some("INSUFFICIENT_POINTS") {
                assert_eq!(outcome.requested_points, 10_000_000);
            } else {
                *asked.entry(&outcome.customer_id).or_default() += outcome.requested_points;
            }
        }
        for (customer, points) in asked {
            assert!(
                points * 10 <= day.customers[customer].awarded * 9,
                "{customer}"
            );
        }
    }
}
