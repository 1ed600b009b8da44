//! The message shapes, one function each.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    Message, cloud_event,
    object::{Object, not_in_future},
};
use crate::{
    Award, CustomerId, EventId, EventType, Fact, Facts, MerchantId, OrderId, RedeemRequest,
    RedeemRequestId, Refusal, RefusalClass, SourceKind, digest::Digest, json::Json,
    refusal::printable,
};

pub(super) const REWARD_EVENT_FIELDS: [&str; 5] =
    ["eventId", "eventType", "customerId", "timestamp", "payload"];
pub(super) const REDEEM_FIELDS: [&str; 5] = [
    "redeemRequestId",
    "customerId",
    "requestedPoints",
    "merchantContext",
    "timestamp",
];
pub(super) const MERCHANT_CONTEXT_FIELDS: [&str; 2] = ["merchantId", "orderId"];

/// `{eventId, eventType, customerId, timestamp, payload}`.
pub(super) fn reward_event(body: &Object<'_>, now: DateTime<Utc>) -> Result<Award, Refusal> {
    let event_id = body.id("eventId", EventId::new)?;
    let kind = body.text("eventType")?;
    let event_type = EventType::parse(kind)
        .filter(|kind| kind.has_payload())
        .ok_or_else(|| {
            Refusal::new(
                RefusalClass::UnknownEventType,
                format!(
                    "eventType is \"{}\", none of HOTEL_STAY, DINING, CASINO_SPEND",
                    printable(kind, 60)
                ),
            )
        })?;
    let customer_id = body.id("customerId", CustomerId::new)?;
    let occurred_at = body.timestamp("timestamp", now)?;
    let facts = payload(event_type, &body.object("payload")?)?;
    Ok(Award {
        source: SourceKind::RewardEvent,
        event_id,
        customer_id,
        event_type,
        occurred_at,
        facts,
    })
}

fn payload(event_type: EventType, payload: &Object<'_>) -> Result<Facts, Refusal> {
    let nights = if event_type.has_nights() {
        Some(payload.nights("nights")?)
    } else {
        None
    };
    // What a stay costs earns nothing, so it may be left out.
    let amount = if event_type == EventType::HotelStay {
        payload.optional_amount("amount")?
    } else {
        Some(payload.amount("amount")?)
    };
    let currency = payload.optional_currency("currency")?;

    let read_above = |name: &str| {
        matches!(name, "amount" | "currency") || (name == "nights" && event_type.has_nights())
    };
    let others: Vec<(&String, &Json)> = payload
        .members()
        .filter(|(name, value)| !read_above(name) && **value != Json::Null)
        .collect();
    let fields: BTreeMap<String, Fact> = others
        .iter()
        .filter_map(|(name, value)| {
            let fact = match value {
                Json::Text(text) => Fact::Text(text.clone()),
                Json::Number(number) => Fact::Number(number.clone()),
                Json::Flag(flag) => Fact::Flag(*flag),
                Json::Null | Json::List(_) | Json::Object(_) => return None,
            };
            Some(((*name).clone(), fact))
        })
        .collect();
    let rest = if others.is_empty() {
        [0; 32]
    } else {
        let mut digest = Digest::new("payload");
        digest.members(others.into_iter());
        digest.finish()
    };
    Ok(Facts {
        amount,
        currency,
        nights,
        fields,
        rest,
    })
}

/// `{customerId, amount, currency?, orderId?}`. Without an order id, its place in the topic is the
/// order's identity.
pub(super) fn order(
    body: &Object<'_>,
    message: &Message<'_>,
    now: DateTime<Utc>,
) -> Result<Award, Refusal> {
    let customer_id = body.id("customerId", CustomerId::new)?;
    let facts = Facts {
        amount: Some(body.amount("amount")?),
        currency: body.optional_currency("currency")?,
        ..Facts::default()
    };
    let origin = message.origin()?;
    let (source, event_id) = match body.optional_id("orderId", OrderId::new)? {
        Some(order_id) => (SourceKind::Order, EventId::new(order_id.as_str())),
        None => (
            SourceKind::OrderAt,
            EventId::new(format!(
                "{}-{}-{}",
                origin.topic, origin.partition, origin.offset
            )),
        ),
    };
    let event_id =
        event_id.map_err(|error| Refusal::new(RefusalClass::InvalidId, error.to_string()))?;
    let occurred_at = not_in_future("Kafka's timestamp of the order", origin.timestamp, now)?;
    Ok(Award {
        source,
        event_id,
        customer_id,
        event_type: EventType::Order,
        occurred_at,
        facts,
    })
}

/// CloudEvent `{userId, orderNumber}` or `{userId, orderId}`; `number` is the field's name.
pub(super) fn order_completed(
    message: &Message<'_>,
    body: Object<'_>,
    number: &str,
    now: DateTime<Utc>,
) -> Result<Award, Refusal> {
    let event = cloud_event::open(message, body, now)?;
    Ok(Award {
        source: SourceKind::OrderCompleted,
        customer_id: event.data.id("userId", CustomerId::new)?,
        event_id: event.data.id(number, EventId::new)?,
        event_type: EventType::OrderCompleted,
        occurred_at: event.occurred_at,
        facts: Facts::default(),
    })
}

/// CloudEvent `{userId}`.
pub(super) fn user_created(
    message: &Message<'_>,
    body: Object<'_>,
    now: DateTime<Utc>,
) -> Result<Award, Refusal> {
    let event = cloud_event::open(message, body, now)?;
    let customer_id = event.data.id("userId", CustomerId::new)?;
    known_once(
        SourceKind::UserCreated,
        EventType::UserCreated,
        customer_id,
        event.occurred_at,
    )
}

/// `{eventType: PLAYER_REGISTERED, user_id}`; other types are of no interest.
pub(super) fn player(
    body: &Object<'_>,
    message: &Message<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Award>, Refusal> {
    if body.text("eventType")? != EventType::PlayerRegistered.as_str() {
        return Ok(None);
    }
    let customer_id = body.id_or_number("user_id", CustomerId::new)?;
    let occurred_at = not_in_future(
        "Kafka's timestamp of the message",
        message.origin()?.timestamp,
        now,
    )?;
    known_once(
        SourceKind::PlayerRegistered,
        EventType::PlayerRegistered,
        customer_id,
        occurred_at,
    )
    .map(Some)
}

/// What happens once in a customer's life has the customer's id.
fn known_once(
    source: SourceKind,
    event_type: EventType,
    customer_id: CustomerId,
    occurred_at: DateTime<Utc>,
) -> Result<Award, Refusal> {
    let event_id = EventId::new(customer_id.as_str())
        .map_err(|error| Refusal::new(RefusalClass::InvalidId, error.to_string()))?;
    Ok(Award {
        source,
        event_id,
        customer_id,
        event_type,
        occurred_at,
        facts: Facts::default(),
    })
}

/// `{redeemRequestId, customerId, requestedPoints, merchantContext: {merchantId, orderId},
/// timestamp}`; the timestamp may be absent where there is another to take.
pub(super) fn redeem(
    body: &Object<'_>,
    without_timestamp: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<RedeemRequest, Refusal> {
    let redeem_request_id = body.id("redeemRequestId", RedeemRequestId::new)?;
    let customer_id = body.id("customerId", CustomerId::new)?;
    let points = body.points("requestedPoints")?;
    let context = body.object("merchantContext")?;
    let requested_at = match (
        body.optional_timestamp("timestamp", now)?,
        without_timestamp,
    ) {
        (Some(at), _) | (None, Some(at)) => at,
        (None, None) => body.timestamp("timestamp", now)?,
    };
    Ok(RedeemRequest {
        redeem_request_id,
        customer_id,
        points,
        merchant_id: context.id("merchantId", MerchantId::new)?,
        order_id: context.id("orderId", OrderId::new)?,
        requested_at,
    })
}
