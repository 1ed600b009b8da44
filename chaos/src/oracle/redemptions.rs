//! Redemptions: one end, one effect, the merchant's word, one answer to the world.

use std::collections::{BTreeMap, HashMap};

use super::Property;
use super::requests::is_final;
use crate::merchants::{self, Ends};
use crate::observe::{Booked, Observed, Record, Redemption, Transfer};
use crate::topics::REDEEM_CONFIRMED;

/// Each ends, and as it can at its merchant.
pub(super) fn one_end(observed: &Observed) -> Property {
    let mut property = Property::new(
        "redemptions end",
        "every redemption ends in SUCCESS or FAILED, but for those at merchants that do not answer",
    );
    for row in &observed.redemptions {
        let id = &row.redeem_request_id;
        let is_deaf = observed.deaf.contains(&row.merchant_id);
        property.expect(is_final(row) || is_deaf, || {
            format!("{id} at {} is {}", row.merchant_id, row.state)
        });
        let ends = merchants::named(&row.merchant_id).map_or(Ends::NeverDeducted, |m| m.ends);
        property.expect(row.state != "SUCCESS" || ends == Ends::Either, || {
            format!("{id} ended with SUCCESS at {}", row.merchant_id)
        });
        let deducted = if row.state == "SUCCESS" {
            row.points
        } else {
            0
        };
        property.expect(
            row.points_deducted == deducted
                && row.reason.is_some() == (row.state == "FAILED")
                && row.balance_after.is_some() == is_final(row),
            || format!("{row:?} contradicts itself"),
        );
    }
    property
}

/// The transfers of each are those of its end.
pub(super) fn one_effect(observed: &Observed) -> Property {
    let mut property = Property::new(
        "redemptions have one effect",
        "points were held once, and then deducted or given back once, as the end says",
    );
    let mut legs: BTreeMap<&str, Vec<&Transfer>> = BTreeMap::new();
    for transfer in observed.transfers.iter().filter(|t| t.debit != "ISSUANCE") {
        let id = &*transfer.source_event_id;
        legs.entry(id).or_default().push(transfer);
    }
    for row in &observed.redemptions {
        let id = &*row.redeem_request_id;
        let mut transfers = legs.remove(id).unwrap_or_default();
        transfers.sort_by_key(|t| t.customer_version);
        let names: Vec<&str> = transfers.iter().map(|t| &*t.leg).collect();
        let is_right = match &*row.state {
            "SUCCESS" => names == ["hold", "settle"],
            "FAILED" => names.is_empty() || names == ["hold", "release"],
            "QUEUED" => names.is_empty(),
            _ => names == ["hold"],
        };
        property.expect(is_right, || format!("{id} is {} with {names:?}", row.state));
        for transfer in transfers {
            let (debit, credit, merchant) = match &*transfer.leg {
                "hold" => ("AVAILABLE", "HELD", None),
                "settle" => ("HELD", "SETTLEMENT", Some(&*row.merchant_id)),
                _ => ("HELD", "AVAILABLE", None),
            };
            let is_right = transfer.amount == row.points
                && transfer.customer_id == row.customer_id
                && transfer.debit == debit
                && transfer.credit == credit
                && transfer.merchant_id.as_deref() == merchant;
            property.expect(is_right, || format!("{transfer:?} is not of {row:?}"));
        }
    }
    for (id, transfers) in legs {
        property.expect(false, || {
            format!("{id} is no redemption and has {transfers:?}")
        });
    }
    property
}

/// SUCCESS where the merchant has confirmed, and only there; FAILED where it cannot any more.
pub(super) fn books(observed: &Observed) -> Property {
    let mut property = Property::new(
        "merchants agree",
        "SUCCESS is CONFIRMED in the merchant's book; FAILED is refused, voided or was never asked there",
    );
    let books: HashMap<(&str, &str), &Booked> = observed
        .books
        .iter()
        .map(|b| ((&*b.merchant, &*b.redeem_request_id), b))
        .collect();
    let rows: HashMap<&str, &Redemption> = observed
        .redemptions
        .iter()
        .map(|row| (&*row.redeem_request_id, row))
        .collect();
    for row in &observed.redemptions {
        let booked = books.get(&(&*row.merchant_id, &*row.redeem_request_id));
        let status = booked.and_then(|b| b.status.as_deref());
        let was_posted = booked.is_some_and(|b| b.posts > 0);
        let agrees = match (&*row.state, status) {
            ("SUCCESS", status) => status == Some("CONFIRMED"),
            ("FAILED", Some(status)) => status == "REFUSED" || status == "VOIDED",
            ("FAILED", None) => !was_posted,
            _ => true,
        };
        property.expect(agrees, || {
            format!(
                "{} is {} ({}), and {} says {status:?}",
                row.redeem_request_id,
                row.state,
                row.reason.as_deref().unwrap_or("no reason"),
                row.merchant_id
            )
        });
    }
    for booked in &observed.books {
        let id = &*booked.redeem_request_id;
        let row = rows
            .get(id)
            .filter(|row| row.merchant_id == booked.merchant);
        let same = row.is_some_and(|row| {
            booked.points.is_none_or(|points| points == row.points)
                && booked
                    .order_id
                    .as_ref()
                    .is_none_or(|order| *order == row.order_id)
        });
        property.expect(same, || format!("{booked:?} was not asked for: {row:?}"));
        let voided = booked.changes.iter().position(|c| c.status == "VOIDED");
        let after = voided.map_or(&[][..], |at| &booked.changes[at..]);
        property.expect(after.iter().all(|c| c.status != "CONFIRMED"), || {
            format!("{id} was confirmed after it was voided")
        });
    }
    property
}

/// Each end is published, always with the same content, which is the row's.
pub(super) fn published(observed: &Observed) -> Property {
    let mut property = Property::new(
        "redemptions are published",
        "every end is published at least once, with the same content each time, and nothing else is",
    );
    let mut told: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in observed
        .published
        .iter()
        .filter(|r| r.topic == REDEEM_CONFIRMED)
    {
        let said: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
        let id = said["redeemRequestId"].as_str().unwrap_or_default();
        told.entry(id.to_owned()).or_default().push(record);
    }
    for row in observed.redemptions.iter().filter(|row| is_final(row)) {
        let id = &row.redeem_request_id;
        let records = told.remove(id).unwrap_or_default();
        property.expect(!records.is_empty(), || {
            format!("{id} ended with {} and nobody was told", row.state)
        });
        for record in records.iter().skip(1) {
            property.expect(record.value == records[0].value, || {
                format!(
                    "{id} was told in two ways: {}",
                    String::from_utf8_lossy(&record.value)
                )
            });
        }
        if let Some(record) = records.first() {
            property.expect(says(record, row), || {
                format!("{} is not {row:?}", String::from_utf8_lossy(&record.value))
            });
        }
    }
    for (id, records) in told {
        property.expect(false, || {
            format!("{id} has not ended and {} were told so", records.len())
        });
    }
    property
}

fn says(record: &Record, row: &Redemption) -> bool {
    let said: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
    said["customerId"] == *row.customer_id
        && record.key == row.customer_id
        && said["status"] == *row.state
        && said["pointsDeducted"] == row.points_deducted
        && said["balanceAfter"].as_i64() == row.balance_after
        && said["reason"].as_str() == row.reason.as_deref()
}
