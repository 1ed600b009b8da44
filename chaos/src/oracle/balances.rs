//! Balances: what the transfers add up to, and never below zero.

use std::collections::{BTreeMap, HashMap};

use super::Property;
use super::requests::is_final;
use crate::observe::{Observed, Transfer};

fn change(transfer: &Transfer, account: &str) -> i64 {
    let given = i64::from(transfer.credit == account);
    let taken = i64::from(transfer.debit == account);
    (given - taken) * transfer.amount
}

/// Each transfer's balances follow from those before it, and the last are the customer's.
pub(super) fn fold(observed: &Observed) -> Property {
    let mut property = Property::new(
        "balances fold",
        "balances are what the transfers add up to, after each of them and at the end",
    );
    let mut transfers: Vec<&Transfer> = observed.transfers.iter().collect();
    transfers.sort_by_key(|t| (&t.customer_id, t.customer_version));
    let mut folded: HashMap<&str, (i64, i64, i64)> = HashMap::new();
    for transfer in transfers {
        let (available, held, version) = folded.entry(&transfer.customer_id).or_default();
        *available += change(transfer, "AVAILABLE");
        *held += change(transfer, "HELD");
        *version += 1;
        let is_so = (*available, *held, *version)
            == (
                transfer.available_after,
                transfer.held_after,
                transfer.customer_version,
            );
        property.expect(is_so, || {
            format!(
                "transfer {} of {}: {available} available and {held} held in version {version} by addition, {} and {} in {} as written",
                transfer.transfer_id,
                transfer.customer_id,
                transfer.available_after,
                transfer.held_after,
                transfer.customer_version
            )
        });
    }
    for customer in &observed.customers {
        let sum = folded.remove(&*customer.customer_id).unwrap_or_default();
        let is_so = sum == (customer.available, customer.held, customer.version);
        property.expect(is_so, || format!("{customer:?} has by addition {sum:?}"));
    }
    for (customer, sum) in folded {
        property.expect(false, || {
            format!("{customer} has {sum:?} by addition and no balance")
        });
    }
    property
}

/// What customers have and merchants got is what was issued.
pub(super) fn sum(observed: &Observed) -> Property {
    let mut property = Property::new("accounts sum to zero", "all accounts together are zero");
    let mut accounts: BTreeMap<&str, i64> = BTreeMap::new();
    for transfer in &observed.transfers {
        *accounts.entry(&transfer.debit).or_default() -= transfer.amount;
        *accounts.entry(&transfer.credit).or_default() += transfer.amount;
    }
    let available = observed.customers.iter().map(|c| c.available).sum();
    let held = observed.customers.iter().map(|c| c.held).sum();
    for (name, by_balances) in [("AVAILABLE", available), ("HELD", held)] {
        let by_transfers = accounts.get(name).copied().unwrap_or(0);
        property.expect(by_transfers == by_balances, || {
            format!("{name} is {by_transfers} by transfers and {by_balances} by balances")
        });
        accounts.insert(name, by_balances);
    }
    property.looked_at += accounts.len();
    let sum: i64 = accounts.values().sum();
    property.expect(sum == 0, || format!("they are {sum}: {accounts:?}"));
    property
}

/// No balance is or ever was negative.
pub(super) fn never_negative(observed: &Observed) -> Property {
    let mut property = Property::new("nothing is negative", "no balance is or was below zero");
    for transfer in &observed.transfers {
        let lowest = transfer.available_after.min(transfer.held_after);
        property.expect(lowest >= 0 && transfer.amount > 0, || {
            format!(
                "transfer {} of {} left {lowest}",
                transfer.transfer_id, transfer.customer_id
            )
        });
    }
    for customer in &observed.customers {
        let lowest = customer.available.min(customer.held);
        property.expect(lowest >= 0, || {
            format!("{} has {lowest}", customer.customer_id)
        });
    }
    property
}

/// A hold is closed by the time its limit has passed, unless the merchant does not answer; and
/// what is held belongs to an open redemption.
pub(super) fn holds(observed: &Observed) -> Property {
    let mut property = Property::new(
        "no hold outlives its limit",
        "what is held belongs to open redemptions, and none is over its limit but at merchants that do not answer",
    );
    let mut open: HashMap<&str, i64> = HashMap::new();
    for row in observed.redemptions.iter().filter(|row| !is_final(row)) {
        let is_deaf = observed.deaf.contains(&row.merchant_id);
        if is_deaf {
            property.listed.push(format!(
                "{} is {} at {}, which does not answer{}",
                row.redeem_request_id,
                row.state,
                row.merchant_id,
                if row.hold_is_over {
                    "; its hold is over"
                } else {
                    ""
                }
            ));
        }
        property.expect(is_deaf || !row.hold_is_over, || {
            format!(
                "the hold of {} ({}) is over",
                row.redeem_request_id, row.state
            )
        });
        let is_held = observed
            .transfers
            .iter()
            .any(|t| t.leg == "hold" && t.source_event_id == row.redeem_request_id);
        if is_held {
            *open.entry(&row.customer_id).or_default() += row.points;
        }
    }
    for customer in &observed.customers {
        let by_rows = open.get(&*customer.customer_id).copied().unwrap_or(0);
        property.expect(customer.held == by_rows, || {
            format!(
                "{} points of {} are held, {by_rows} by open redemptions",
                customer.held, customer.customer_id
            )
        });
    }
    property
}
