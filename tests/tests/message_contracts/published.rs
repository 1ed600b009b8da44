//! What the engine writes is what the contracts promise.

use std::collections::BTreeSet;

use domain::message::{
    Notification, PlayerRegistered, PointsAdded, Recommendation, RedeemConfirmed, RewardConfirmed,
    TierUpgraded, topic,
};
use domain::promotion::Terms;
use domain::redemption::{FailureReason, RedemptionState};
use domain::{
    CustomerId, Points, Promotion, PromotionId, PromotionType, RefusalClass, Tier, money::Amount,
};
use serde_json::Value;
use store::outbox::OutboxMessage;

use crate::{Contract, contracts, validator};

fn contract(topic: &str) -> Contract {
    let contract = contracts()
        .into_iter()
        .find(|contract| contract.topic == topic);
    contract.expect("the topic has a contract")
}

#[track_caller]
fn keeps_its_contract(message: Result<OutboxMessage, store::Error>) {
    let message = message.expect("messages are JSON");
    assert_eq!(message.key.as_deref(), Some(&b"100042"[..]));
    let contract = contract(&message.topic);
    let body = serde_json::from_slice(&message.body).expect("messages are JSON");
    satisfies(&message.topic, &contract.payload, &body);
    let text = |value| Value::from(String::from_utf8(value).expect("headers are text"));
    let headers = message.headers.into_iter();
    let headers = headers.map(|(name, value)| (name, text(value))).collect();
    satisfies(&message.topic, &contract.headers, &headers);
}

#[track_caller]
fn satisfies(topic: &str, schema: &Value, instance: &Value) {
    if let Err(error) = validator(schema).validate(instance) {
        panic!("{topic}: {error} in {instance}");
    }
    let described = schema["properties"].as_object().expect("fields");
    for field in instance.as_object().expect("an object").keys() {
        assert!(
            described.contains_key(field),
            "{topic}: {field} is not described"
        );
    }
}

fn customer() -> CustomerId {
    CustomerId::new("100042").expect("an id")
}

fn points(points: i64) -> Points {
    Points::new(points).expect("not negative")
}

#[test]
fn a_registration_keeps_its_contract() {
    let message = PlayerRegistered::new(customer());
    keeps_its_contract(OutboxMessage::player_registered(&message));
}

#[test]
fn every_published_message_keeps_its_contract() {
    let at = "2026-03-14T11:20:00.310Z".parse().expect("an instant");
    keeps_its_contract(OutboxMessage::reward_confirmed(
        &RewardConfirmed {
            event_id: "reward-event/HS-00017".to_owned(),
            customer_id: customer(),
            points_awarded: points(0),
            balance_after: points(1240),
            source_event_id: "HS-00017".to_owned(),
            timestamp: at,
        },
        17,
    ));
    keeps_its_contract(OutboxMessage::points_added(
        &PointsAdded {
            user_id: customer(),
            total_points: Points::MAX,
            difference: -40,
        },
        17,
        at,
    ));
    let reasons = FailureReason::ALL.into_iter().map(Some);
    for reason in reasons.chain([None]) {
        let (status, deducted) = match reason {
            None => (RedemptionState::Success, 40),
            Some(_) => (RedemptionState::Failed, 0),
        };
        keeps_its_contract(OutboxMessage::redeem_confirmed(
            &RedeemConfirmed {
                redeem_request_id: "RD-00429".to_owned(),
                customer_id: customer(),
                points_deducted: points(deducted),
                balance_after: points(1200),
                status,
                reason,
                timestamp: at,
            },
            17,
        ));
    }
    for steps in Tier::ALL.windows(2) {
        let product = Recommendation {
            product_id: "P-7".to_owned(),
            name: "Espresso cups".to_owned(),
            price: "24.90".to_owned(),
        };
        keeps_its_contract(OutboxMessage::tier_upgraded(
            &TierUpgraded {
                user_id: customer(),
                previous_tier: steps[0],
                new_tier: steps[1],
                current_points: points(540),
                upgraded_at: at,
                recommendations: vec![product; 3],
                callback_id: "7b6c1f0e9a2d4c58b1f3e5d7a9c0b2d4".to_owned(),
            },
            17,
        ));
    }
}

#[test]
fn a_promotion_that_was_assigned_keeps_its_contract() {
    let at = "2026-03-14T11:20:00.310Z".parse().expect("an instant");
    for amount in ["50.00", "0.000000001", "999999999999999999"] {
        let promotion = Promotion {
            promotion_id: PromotionId::new("0193f4a2-8c1e-7d30-9b5a-3f2e1d0c9b8a").expect("an id"),
            terms: Terms {
                kind: PromotionType::welcome(),
                title: "Welcome".to_owned(),
                description: String::new(),
                amount: Amount::parse(amount).expect("an amount"),
                currency: None,
                starts_at: at,
                ends_at: at + chrono::TimeDelta::days(1),
                is_active: true,
            },
            is_exclusive: true,
            created_at: at,
        };
        let message = Notification::assigned(&promotion, customer());
        keeps_its_contract(OutboxMessage::promotion_assigned(&message, 17, at));
    }
}

#[test]
fn reasons_and_error_classes_are_listed_in_full() {
    fn listed(schema: &Value) -> BTreeSet<&str> {
        let names = schema["x-open-enum"].as_array().expect("a list of values");
        names.iter().filter_map(Value::as_str).collect()
    }
    let confirmed = contract(topic::REDEEM_CONFIRMED).payload;
    assert_eq!(
        listed(&confirmed["properties"]["reason"]),
        FailureReason::ALL.map(FailureReason::as_str).into()
    );
    let headers = contract(topic::DEAD_LETTER).headers;
    assert_eq!(
        listed(&headers["properties"]["meed-dlq-class"]),
        RefusalClass::ALL.map(RefusalClass::as_str).into()
    );
}
