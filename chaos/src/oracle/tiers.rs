//! Tiers: each upgrade once, upwards, told once, and what the points are due.

use std::collections::{BTreeMap, HashMap, HashSet};

use samples::recompute::tier;

use super::Property;
use crate::observe::{Observed, Record, TierOrder};
use crate::topics::TIER_UPGRADED;

const TIERS: [&str; 4] = ["BRONZE", "SILVER", "GOLD", "PLATINUM"];

fn rank(tier: &str) -> Option<usize> {
    TIERS.iter().position(|name| *name == tier)
}

/// The orders of each customer that gave a tier, in their order.
fn upgrades(observed: &Observed) -> BTreeMap<&str, Vec<&TierOrder>> {
    let mut all: BTreeMap<&str, Vec<&TierOrder>> = BTreeMap::new();
    for order in observed.tier_orders.iter().filter(|o| o.new_tier.is_some()) {
        all.entry(&order.customer_id).or_default().push(order);
    }
    all
}

/// Each upgrade leads from the tier before to a higher one, the last to the customer's, and each
/// was told with one content.
pub(super) fn once(observed: &Observed) -> Property {
    let mut property = Property::new(
        "upgrades happen once",
        "every upgrade leads upwards from the one before, and has one loyalty.tierUpgraded.v1",
    );
    let mut told: HashMap<String, Vec<&Record>> = HashMap::new();
    let mut contents: HashSet<(String, String)> = HashSet::new();
    for record in observed
        .published
        .iter()
        .filter(|r| r.topic == TIER_UPGRADED)
    {
        let said: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let all = told.entry(text("callbackId")).or_default();
        if all.is_empty() {
            let is_new = contents.insert((text("userId"), text("newTier")));
            property.expect(is_new, || {
                format!("{} was told of {} twice", text("userId"), text("newTier"))
            });
        }
        all.push(record);
    }
    let mut upgrades = upgrades(observed);
    for customer in &observed.customers {
        let id = &*customer.customer_id;
        let mut tier = "BRONZE";
        let given = upgrades.remove(id).unwrap_or_default();
        let count = given.len();
        for order in given {
            let new = order.new_tier.as_deref().unwrap_or_default();
            property.expect(
                order.previous_tier.as_deref() == Some(tier) && rank(new) > rank(tier),
                || format!("{order:?} follows {tier}"),
            );
            tier = new;
            let records = order.callback_id.as_ref().and_then(|id| told.remove(id));
            let records = records.unwrap_or_default();
            property.expect(!records.is_empty(), || format!("{order:?} was not told"));
            for record in records {
                property.expect(says(record, order), || {
                    format!(
                        "{} is not {order:?}",
                        String::from_utf8_lossy(&record.value)
                    )
                });
            }
        }
        let changes = i64::try_from(count).unwrap_or(i64::MAX);
        property.expect(
            customer.tier == tier && customer.tier_version == changes,
            || format!("{customer:?} was upgraded {count} times, to {tier}"),
        );
    }
    for (customer, orders) in upgrades {
        property.expect(false, || {
            format!("{customer} has no account and {orders:?}")
        });
    }
    for (callback, records) in told {
        property.expect(false, || {
            let said = String::from_utf8_lossy(&records[0].value);
            format!("callback {callback} is of no upgrade: {said}")
        });
    }
    property
}

fn says(record: &Record, order: &TierOrder) -> bool {
    let said: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
    record.key == order.customer_id
        && said["userId"] == *order.customer_id
        && said["newTier"].as_str() == order.new_tier.as_deref()
        && said["previousTier"].as_str() == order.previous_tier.as_deref()
}

/// At the end nobody is due more than they have, nobody has more than they ever were due, and no
/// order to look is open.
pub(super) fn due(observed: &Observed) -> Property {
    let mut property = Property::new(
        "tiers are what is due",
        "nobody is due a higher tier, nobody has one that their points never reached, no order is open",
    );
    let mut most: HashMap<&str, i64> = HashMap::new();
    for transfer in &observed.transfers {
        let current = transfer.available_after + transfer.held_after;
        let most = most.entry(&transfer.customer_id).or_default();
        *most = (*most).max(current);
    }
    for customer in &observed.customers {
        let now = tier(customer.available + customer.held);
        let ever = tier(most.get(&*customer.customer_id).copied().unwrap_or(0));
        let has = rank(&customer.tier);
        property.expect(rank(now) <= has && has <= rank(ever), || {
            format!("{customer:?} is due {now} now, and {ever} at most")
        });
    }
    for order in &observed.tier_orders {
        property.expect(order.is_closed, || format!("{order:?} is open"));
    }
    property
}

/// An acknowledgement that was taken is recorded, and nothing else is.
pub(super) fn acknowledged(observed: &Observed) -> Property {
    let mut property = Property::new(
        "acknowledgements count",
        "an upgrade is notified when its acknowledgement was taken, and only then",
    );
    let mut answers: HashMap<&str, Vec<(bool, Option<u16>)>> = HashMap::new();
    for said in &observed.acknowledgements {
        let all = answers.entry(&said.callback_id).or_default();
        all.push((said.success, said.status));
        let is_known = matches!(said.status, None | Some(200 | 409 | 410));
        property.expect(is_known, || format!("{said:?}"));
    }
    for order in observed.tier_orders.iter().filter(|o| o.is_closed) {
        let Some(callback) = order.callback_id.as_deref() else {
            continue;
        };
        let said = answers.remove(callback).unwrap_or_default();
        let taken = |wanted: bool| said.contains(&(wanted, Some(200)));
        let in_doubt = said.iter().any(|(_, status)| status.is_none());
        property.expect(
            in_doubt || (order.is_notified == taken(true) && !(taken(true) && taken(false))),
            || format!("{order:?} was answered {said:?}"),
        );
    }
    for (callback, said) in answers {
        let taken = said.iter().any(|(_, status)| *status == Some(200));
        property.expect(!taken, || {
            format!("callback {callback} is of no closed order: {said:?}")
        });
    }
    property
}
