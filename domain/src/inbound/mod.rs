//! The anti-corruption layer: every message shape that comes in, turned into one [`Command`].
//!
//! The rest of Meed knows only commands. Fields that are not known are ignored in messages, since
//! formats grow, and refused over HTTP, where they are a client's mistake.

mod cloud_event;
mod object;
mod shape;

use chrono::{DateTime, Utc};

pub use crate::json::{MESSAGE_MAX_BYTES, NESTING_MAX};
use crate::{Award, Command, RedeemRequest, Refusal, RefusalClass, json::Json, refusal::printable};
use object::Object;
pub use object::TIMESTAMP_AHEAD_MAX_HOURS;
pub use shape::NOTIFICATION_CONTENT_MAX_BYTES;

/// The topics Meed reads.
pub mod topic {
    /// Partners' events.
    pub const REWARD_EVENTS: &str = "reward-events";
    /// Orders.
    pub const ORDERS: &str = "orders";
    /// Completed orders, first version.
    pub const ORDER_COMPLETED_V1: &str = "orders.orderCompleted.v1";
    /// Completed orders, second version.
    pub const ORDER_COMPLETED_V2: &str = "orders.orderCompleted.v2";
    /// New users.
    pub const USER_CREATED: &str = "users.userCreated.v1";
    /// What players do.
    pub const PLAYERS: &str = "players";
    /// Requests to redeem.
    pub const REDEEM_EVENTS: &str = "redeem-events";
    /// What players are to be told.
    pub const NOTIFICATIONS: &str = "notifications";

    /// All of them.
    pub const ALL: [&str; 8] = [
        REWARD_EVENTS,
        ORDERS,
        ORDER_COMPLETED_V1,
        ORDER_COMPLETED_V2,
        USER_CREATED,
        PLAYERS,
        REDEEM_EVENTS,
        NOTIFICATIONS,
    ];
}

/// The headers that a dead letter, and so its replay, carries beside the original ones.
pub mod header {
    /// `true` on a message that was sent again from the dead letters.
    pub const REPLAY: &str = "meed-replay";
    /// The topic the message first stood in.
    pub const DLQ_TOPIC: &str = "meed-dlq-topic";
    /// The partition it first stood in.
    pub const DLQ_PARTITION: &str = "meed-dlq-partition";
    /// The offset it first had.
    pub const DLQ_OFFSET: &str = "meed-dlq-offset";
    /// Kafka's timestamp of it: Unix milliseconds, or RFC 3339.
    pub const DLQ_TIMESTAMP: &str = "meed-dlq-timestamp";
    /// The class it was refused with.
    pub const DLQ_CLASS: &str = "meed-dlq-class";
    /// The reason it was refused for.
    pub const DLQ_REASON: &str = "meed-dlq-reason";
    /// The dead letter's identity: the same each time the same message is refused at the same place.
    pub const DLQ_ID: &str = "meed-dlq-id";
    /// `true` on the dead letter of a message that had no value, which is not the same as an empty
    /// one.
    pub const DLQ_NO_VALUE: &str = "meed-dlq-no-value";
    /// `true` on a dead letter that is not the whole message.
    pub const DLQ_TRUNCATED: &str = "meed-dlq-truncated";
    /// How many bytes the whole value has, when it was cut.
    pub const DLQ_ORIGINAL_BYTES: &str = "meed-dlq-original-bytes";
    /// The SHA-256 of the whole value, in hexadecimal, when it was cut.
    pub const DLQ_SHA256: &str = "meed-dlq-sha256";
    /// On a replay, and on the dead letter of a replay that was refused: the identity of the dead
    /// letter that was replayed.
    pub const REPLAY_OF: &str = "meed-replay-of";

    /// Whether a header is one of these, and not the sender's.
    pub fn is_ours(name: &str) -> bool {
        [
            REPLAY,
            DLQ_TOPIC,
            DLQ_PARTITION,
            DLQ_OFFSET,
            DLQ_TIMESTAMP,
            DLQ_CLASS,
            DLQ_REASON,
            DLQ_ID,
            DLQ_NO_VALUE,
            DLQ_TRUNCATED,
            DLQ_ORIGINAL_BYTES,
            DLQ_SHA256,
            REPLAY_OF,
        ]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
    }
}

/// A message as it came from Kafka.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [(String, Vec<u8>)],
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Kafka's timestamp.
    pub timestamp: DateTime<Utc>,
}

/// Where a message first stood, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Kafka's timestamp there.
    pub timestamp: DateTime<Utc>,
}

impl Message<'_> {
    /// The first header of this name. Names differ in case between senders' libraries.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Where the message first stood: its own place, or the one that the headers of a replayed
    /// dead letter tell.
    ///
    /// # Errors
    /// `DATA_ERROR` when it is marked as replayed and the headers cannot be read: taking its new
    /// place for the first one would count it twice.
    pub fn origin(&self) -> Result<Origin, Refusal> {
        if self.header(header::REPLAY) != Some(b"true") {
            return Ok(Origin {
                topic: self.topic.to_owned(),
                partition: self.partition,
                offset: self.offset,
                timestamp: self.timestamp,
            });
        }
        let unreadable = |name: &str| {
            Refusal::new(
                RefusalClass::DataError,
                format!("header {name} of a replayed message is absent or unreadable"),
            )
        };
        let text = |name| {
            self.header(name)
                .and_then(|value| str::from_utf8(value).ok())
                .ok_or_else(|| unreadable(name))
        };
        let timestamp = text(header::DLQ_TIMESTAMP)?;
        let timestamp = match timestamp.parse() {
            Ok(milliseconds) => DateTime::from_timestamp_millis(milliseconds),
            Err(_) => DateTime::parse_from_rfc3339(timestamp)
                .ok()
                .map(|at| at.to_utc()),
        };
        Ok(Origin {
            topic: text(header::DLQ_TOPIC)?.to_owned(),
            partition: text(header::DLQ_PARTITION)?
                .parse()
                .map_err(|_| unreadable(header::DLQ_PARTITION))?,
            offset: text(header::DLQ_OFFSET)?
                .parse()
                .map_err(|_| unreadable(header::DLQ_OFFSET))?,
            timestamp: timestamp.ok_or_else(|| unreadable(header::DLQ_TIMESTAMP))?,
        })
    }
}

/// What to do with top-level fields that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// Refuse them: a request over HTTP.
    Refuse,
    /// Ignore them: a message.
    Ignore,
}

/// Reads a message. `None` for one of a kind that Meed has no use for.
///
/// # Errors
/// A refusal when the message breaks its contract.
pub fn read(message: &Message<'_>, now: DateTime<Utc>) -> Result<Option<Command>, Refusal> {
    let value = message
        .value
        .ok_or_else(|| Refusal::new(RefusalClass::MalformedJson, "the message has no value"))?;
    let json = Json::parse(value)?;
    let body = Object::of_message(&json)?;
    let award = match message.topic {
        topic::REWARD_EVENTS => shape::reward_event(&body, now)?,
        topic::ORDERS => shape::order(&body, message, now)?,
        topic::ORDER_COMPLETED_V1 => shape::order_completed(message, body, "orderNumber", now)?,
        topic::ORDER_COMPLETED_V2 => shape::order_completed(message, body, "orderId", now)?,
        topic::USER_CREATED => shape::user_created(message, body, now)?,
        topic::PLAYERS => match shape::player(&body, message, now)? {
            Some(award) => award,
            None => return Ok(None),
        },
        topic::REDEEM_EVENTS => {
            return shape::redeem(&body, None, now).map(|request| Some(Command::Redeem(request)));
        }
        topic::NOTIFICATIONS => {
            let notification = shape::notification(&body, message, value)?;
            return Ok(Some(Command::Notify(notification)));
        }
        other => {
            return Err(Refusal::new(
                RefusalClass::UnknownEventType,
                format!("no message is expected in topic {}", printable(other, 100)),
            ));
        }
    };
    Ok(Some(Command::Award(award)))
}

/// Reads a partner's event that came over HTTP.
///
/// # Errors
/// A refusal when it breaks its contract or has an unknown field outside its payload.
pub fn read_event(json: &[u8], now: DateTime<Utc>) -> Result<Award, Refusal> {
    let json = Json::parse(json)?;
    let body = Object::of_message(&json)?;
    body.only(&shape::REWARD_EVENT_FIELDS)?;
    shape::reward_event(&body, now)
}

/// Reads a request to redeem. Over HTTP, where unknown fields are refused, the timestamp may be
/// absent and is then `now`.
///
/// # Errors
/// A refusal when it breaks its contract.
pub fn read_redeem(
    json: &[u8],
    now: DateTime<Utc>,
    unknown_fields: UnknownFields,
) -> Result<RedeemRequest, Refusal> {
    let json = Json::parse(json)?;
    let body = Object::of_message(&json)?;
    match unknown_fields {
        UnknownFields::Ignore => shape::redeem(&body, None, now),
        UnknownFields::Refuse => {
            body.only(&shape::REDEEM_FIELDS)?;
            if let Some(context) = body.optional_object("merchantContext")? {
                context.only(&shape::MERCHANT_CONTEXT_FIELDS)?;
            }
            shape::redeem(&body, Some(now), now)
        }
    }
}

#[cfg(test)]
mod tests;
