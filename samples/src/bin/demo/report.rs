//! The tables at the end, and the comparison with the recomputation.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use samples::recompute::Expectation;

use crate::Delivered;
use crate::ledger::Findings;
use crate::partners::Books;

const TIERS: [&str; 4] = ["BRONZE", "SILVER", "GOLD", "PLATINUM"];
const DIFFERENCES_SHOWN: usize = 10;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Prints what was sent, what came of it, and what was refused.
pub(crate) fn print_tables(expectation: &Expectation, findings: &Findings, delivered: &Delivered) {
    let mut sent = table(&["topic", "delivered", "dead letters"]);
    for (topic, count) in &expectation.deliveries {
        let dead = delivered.dead_letters.by_topic.get(topic).unwrap_or(&0);
        sent.add_row([topic.clone(), count.to_string(), dead.to_string()]);
    }
    println!("{sent}");

    let mut outcome = table(&["outcome", "count", "points"]);
    let awarded: i64 = findings.accounts.values().map(|a| a.awarded).sum();
    let credited = findings.accounts.values().filter(|a| a.awarded > 0).count();
    row(&mut outcome, "awarded, customers", credited, awarded);
    let mut results: BTreeMap<String, (usize, i64)> = BTreeMap::new();
    for redemption in findings.redemptions.values() {
        let label = match &redemption.reason {
            None => redemption.state.clone(),
            Some(reason) => format!("{}, {reason}", redemption.state),
        };
        let sum = results.entry(label).or_default();
        sum.0 += 1;
        sum.1 += redemption.deducted;
    }
    for (label, (count, points)) in results {
        let label = match label.as_str() {
            "SUCCESS" => "redeemed".to_owned(),
            other => other.replace("FAILED, ", "failed, "),
        };
        row(&mut outcome, label, count, points);
    }
    for tier in TIERS {
        let members = expectation
            .customers
            .keys()
            .filter_map(|customer| findings.accounts.get(customer))
            .filter(|account| account.tier == tier);
        let count = members.clone().count();
        let points: i64 = members.map(|account| account.lifetime).sum();
        row(&mut outcome, format!("tier {tier}"), count, points);
    }
    println!("{outcome}");

    let mut refused = table(&["dead letters", "count", "expected"]);
    let mut classes: Vec<&str> = expectation.dead_letters.keys().copied().collect();
    classes.extend(delivered.dead_letters.by_class.keys().map(String::as_str));
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let found = delivered.dead_letters.by_class.get(class).unwrap_or(&0);
        let expected = expectation.dead_letters.get(class).unwrap_or(&0);
        row(&mut refused, class, *found, *expected);
    }
    println!("{refused}");

    println!("Awards: {}.", rate(delivered.awards));
    println!("Redemptions: {}.", rate(delivered.redemptions));
}

fn row(table: &mut Table, label: impl Display, count: impl Display, points: impl Display) {
    table.add_row([label.to_string(), count.to_string(), points.to_string()]);
}

fn rate((messages, took): (usize, Duration)) -> String {
    let seconds = took.as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of messages, shown rounded"
    )]
    let per_second = messages as f64 / seconds.max(0.001);
    format!(
        "{messages} messages in {seconds:.1} s, {per_second:.0} per second, until all that follows was done"
    )
}

/// Everything in which the ledger, the dead letters or the merchants' books are not as
/// the recomputation says.
pub(crate) fn differences(
    expectation: &Expectation,
    findings: &Findings,
    delivered: &Delivered,
    books: &Books,
) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: String, expected: String, found: String| {
        if expected != found {
            differences.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    for (customer, expected) in &expectation.customers {
        let Some(found) = findings.accounts.get(customer) else {
            compare(
                format!("customer {customer}"),
                "an account".to_owned(),
                "none".to_owned(),
            );
            continue;
        };
        let show = |awarded: i64, lifetime: i64, tier: &str| {
            format!("awarded {awarded}, lifetime {lifetime}, tier {tier}")
        };
        // Points that others have issued in the same ledger count for lifetime, and may
        // have lifted the tier.
        let lifted = found.awarded_otherwise > 0 && rank(&found.tier) > rank(expected.tier);
        let tier = if lifted {
            found.tier.as_str()
        } else {
            expected.tier
        };
        compare(
            format!("customer {customer}"),
            show(
                expected.awarded,
                expected.lifetime + found.awarded_otherwise,
                tier,
            ),
            show(found.awarded, found.lifetime, &found.tier),
        );
    }
    for (id, expected) in &expectation.redemptions {
        let Some(found) = findings.redemptions.get(id) else {
            compare(
                format!("redemption {id}"),
                "an outcome".to_owned(),
                "none".to_owned(),
            );
            continue;
        };
        let show =
            |customer: &str, status: &str, reason: Option<&str>, deducted: i64, settled: i64| {
                let reason = reason.unwrap_or("no reason");
                format!("{status}, {reason}, {customer} deducted {deducted}, settled {settled}")
            };
        let cost = match expected.reason {
            None => expected.requested_points,
            Some(_) => 0,
        };
        compare(
            format!("redemption {id} at {}", found.merchant_id),
            show(
                &expected.customer_id,
                expected.status,
                expected.reason,
                cost,
                cost,
            ),
            show(
                &found.customer_id,
                &found.state,
                found.reason.as_deref(),
                found.deducted,
                found.settled,
            ),
        );
    }
    if let Some(confirmed) = books {
        for (id, redemption) in &findings.redemptions {
            let goods = confirmed.contains(id);
            let paid = redemption.state == "SUCCESS";
            compare(
                format!("redemption {id} at {}", redemption.merchant_id),
                format!("confirmed by the merchant: {paid}"),
                format!("confirmed by the merchant: {goods}"),
            );
        }
    }
    let mut expected_dead = BTreeMap::new();
    for (class, count) in &expectation.dead_letters {
        expected_dead.insert((*class).to_owned(), *count);
    }
    compare(
        "dead letters".to_owned(),
        format!("{expected_dead:?}"),
        format!("{:?}", delivered.dead_letters.by_class),
    );
    compare(
        "customers whose balance is not the sum of their transfers".to_owned(),
        "0".to_owned(),
        findings.unbalanced.to_string(),
    );
    differences
}

fn rank(tier: &str) -> Option<usize> {
    TIERS.iter().position(|known| *known == tier)
}

/// What a redelivery changed although it must not.
pub(crate) fn changes(delivered: &Delivered) -> Vec<String> {
    let mut changes = Vec::new();
    if delivered.before != delivered.after {
        changes.push(format!(
            "the redelivery changed the ledger: before {:?}, after {:?}",
            delivered.before, delivered.after
        ));
    }
    if delivered.published != 0 {
        changes.push(format!(
            "the redelivery published {} messages about customers",
            delivered.published
        ));
    }
    if changes.is_empty() {
        println!(
            "The redelivery changed nothing: {} transfers moving {} points before and after, nothing published.",
            delivered.after.transfers, delivered.after.moved
        );
    }
    changes
}

/// Says whether all is well.
pub(crate) fn print_verdict(expectation: &Expectation, differences: &[String]) -> bool {
    if differences.is_empty() {
        println!(
            "The ledger agrees with the recomputation: {} customers, {} redemptions, {} points awarded and {} redeemed.",
            expectation.customers.len(),
            expectation.redemptions.len(),
            expectation.totals.get("pointsAwarded").unwrap_or(&0),
            expectation.totals.get("pointsRedeemed").unwrap_or(&0),
        );
        return true;
    }
    println!(
        "The ledger does not agree with the recomputation, {} differences:",
        differences.len()
    );
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        println!("  {difference}");
    }
    false
}
