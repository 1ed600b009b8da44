//! Requests to redeem, sized so that each has one possible outcome.
//!
//! All the affordable requests of a customer together stay within four fifths of
//! what the customer was awarded, so none of them can fail for want of points
//! whatever holds are open; the others ask for ten million.

use std::collections::{BTreeMap, HashMap};

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::body::Body;
use super::customers::Customers;
use super::draft::{DAY_MS, DAY_START_MS, Draft, written_timestamp};
use super::valid::decorate;
use crate::recompute::Standing;

/// More than any customer can have.
const HOPELESS_POINTS: i64 = 10_000_000;
/// Requests that nobody can afford.
const HOPELESS_REQUESTS: usize = 60;
/// Requests per merchant; `M1`, which simply confirms, gets the rest.
const REQUESTS_BY_MERCHANT: [(&str, usize); 7] = [
    ("M2", 240),
    ("M3", 180),
    ("M4", 40),
    ("M5", 20),
    ("M6", 20),
    ("M7", 40),
    ("M-UNKNOWN", 60),
];

/// All valid requests.
pub(super) fn all(
    rng: &mut ChaCha8Rng,
    customers: &Customers,
    awarded: &BTreeMap<String, Standing>,
    count: usize,
) -> Vec<Draft> {
    let mut merchants: Vec<&str> = REQUESTS_BY_MERCHANT
        .iter()
        .flat_map(|(merchant, requests)| std::iter::repeat_n(*merchant, *requests))
        .collect();
    merchants.resize(count, "M1");
    merchants.shuffle(rng);

    let mut left: HashMap<&str, i64> = awarded
        .iter()
        .map(|(customer, standing)| (customer.as_str(), standing.awarded * 4 / 5))
        .collect();
    let mut drafts: Vec<Draft> = merchants
        .into_iter()
        .enumerate()
        .map(|(number, merchant)| {
            let (customer, points) = affordable(rng, customers, &mut left);
            request(rng, &customer, number, points, merchant)
        })
        .collect();
    for number in 0..HOPELESS_REQUESTS {
        let customer = customers.pick(rng).to_owned();
        let number = count + number;
        drafts.push(request(rng, &customer, number, HOPELESS_POINTS, "M1"));
    }
    for draft in &mut drafts {
        decorate(rng, draft);
    }
    drafts
}

fn affordable(
    rng: &mut ChaCha8Rng,
    customers: &Customers,
    left: &mut HashMap<&str, i64>,
) -> (String, i64) {
    loop {
        let customer = customers.pick(rng);
        if let Some(points_left) = left.get_mut(customer)
            && *points_left >= 5
        {
            let points = rng.random_range(5..=40.min(*points_left));
            *points_left -= points;
            return (customer.to_owned(), points);
        }
    }
}

/// One request.
pub(super) fn request(
    rng: &mut ChaCha8Rng,
    customer: &str,
    number: usize,
    points: i64,
    merchant: &str,
) -> Draft {
    let at = DAY_START_MS + rng.random_range(DAY_MS / 3..DAY_MS);
    let context = Body::default()
        .text("merchantId", merchant)
        .text("orderId", &format!("{merchant}-{:05}", 10_000 + number));
    let body = Body::default()
        .text("redeemRequestId", &format!("RD-{number:05}"))
        .text("customerId", customer)
        .raw("requestedPoints", &points.to_string())
        .object("merchantContext", context)
        .text("timestamp", &written_timestamp(rng, at));
    Draft::new("redeem-events", customer, body, at)
}
