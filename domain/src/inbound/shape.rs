//! The message shapes, one function each.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Message, cloud_event,
    object::{Object, not_in_future},
};
use crate::{
    Award, CustomerId, EventId, EventType, Fact, Facts, MerchantId, Notification, NotificationKind,
    OrderId, RedeemRequest, RedeemRequestId, Refusal, RefusalClass, SourceKind, digest::Digest,
    json::Json, refusal::printable,
};

/// The longest content of a notification, in bytes. It is shown in lists and pushed to many at once.
pub const NOTIFICATION_CONTENT_MAX_BYTES: usize = 16_384;
/// The longest `ce_source` of a notification, in characters.
const SOURCE_MAX_CHARS: usize = 256;

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

/// `{user_id, eventType, content}`; what it is known by stands in the headers. `value` is the message
/// of which `body` was read.
pub(super) fn notification(
    body: &Object<'_>,
    message: &Message<'_>,
    value: &[u8],
) -> Result<Notification, Refusal> {
    #[derive(Deserialize)]
    struct AsWritten<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
    }

    let user_id = body.id_or_number("user_id", CustomerId::new)?;
    let kind = body.id("eventType", NotificationKind::new)?;
    let members = body.object("content")?;
    let written: AsWritten<'_> = serde_json::from_slice(value)
        .map_err(|error| Refusal::new(RefusalClass::MalformedJson, error.to_string()))?;
    let content = written.content.get();
    if content.len() > NOTIFICATION_CONTENT_MAX_BYTES {
        let bytes = content.len();
        return Err(Refusal::new(
            RefusalClass::PayloadTooLarge,
            format!("content has {bytes} bytes, more than {NOTIFICATION_CONTENT_MAX_BYTES}"),
        ));
    }
    let mut digest = Digest::new("content");
    digest.members(members.members());
    Ok(Notification {
        identity: identity(message)?,
        user_id,
        kind,
        content: content.to_owned(),
        content_hash: digest.finish(),
    })
}

/// A CloudEvent is known by its source and its id together. Neither the empty source nor the place
/// of a message without an id can be taken for another one's.
fn identity(message: &Message<'_>) -> Result<String, Refusal> {
    let refused = |reason: String| Refusal::new(RefusalClass::InvalidId, reason);
    let text = |name: &str| {
        message
            .header(name)
            .map(|value| str::from_utf8(value).map_err(|_| refused(format!("{name} is not UTF-8"))))
            .transpose()
    };
    let Some(id) = text("ce_id")? else {
        let origin = message.origin()?;
        if origin.topic != message.topic {
            return Err(refused(format!(
                "the message first stood in {}, where no notification can",
                printable(&origin.topic, 100)
            )));
        }
        let (topic, partition, offset) = (origin.topic, origin.partition, origin.offset);
        return Ok(format!("{topic}-{partition}-{offset}"));
    };
    // Longer than the ids of events: it may be made of two of them.
    let is_short = id.chars().count() <= SOURCE_MAX_CHARS;
    if !is_short || id.trim().is_empty() || id.chars().any(char::is_control) {
        return Err(refused(format!(
            "ce_id is not 1 to {SOURCE_MAX_CHARS} characters that can be printed"
        )));
    }
    let source = text("ce_source")?.unwrap_or_default();
    let is_short = source.chars().count() <= SOURCE_MAX_CHARS;
    if !is_short || source.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refused(format!(
            "ce_source is not a URI reference of at most {SOURCE_MAX_CHARS} characters"
        )));
    }
    Ok(format!("{source} {id}"))
}
