//! Messages to publish, written in the transaction of what they tell of.

use chrono::{DateTime, Utc};
use domain::{
    CustomerId,
    message::{
        Notification, PlayerRegistered, PointsAdded, RedeemConfirmed, RewardConfirmed,
        TierUpgraded, topic,
    },
};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Error,
    trace::{self, TRACEPARENT},
};

/// Over how many shards the outbox is spread; a customer's messages are all in one.
pub const SHARDS: u32 = 16;

/// A message that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The topic.
    pub topic: String,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl OutboxMessage {
    fn json<T: Serialize>(
        topic: &str,
        customer: &CustomerId,
        headers: Vec<(String, Vec<u8>)>,
        body: &T,
    ) -> Result<Self, Error> {
        Ok(Self {
            topic: topic.to_owned(),
            key: Some(customer.as_str().as_bytes().to_vec()),
            headers,
            body: serde_json::to_vec(body)
                .map_err(|e| Error::Inconsistent(format!("a message cannot be written: {e}")))?,
        })
    }

    /// `reward-confirmed`.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn reward_confirmed(message: &RewardConfirmed, version: i64) -> Result<Self, Error> {
        let headers = plain_headers(version);
        Self::json(
            topic::REWARD_CONFIRMED,
            &message.customer_id,
            headers,
            message,
        )
    }

    /// `redeem-confirmed`.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn redeem_confirmed(message: &RedeemConfirmed, version: i64) -> Result<Self, Error> {
        let headers = plain_headers(version);
        Self::json(
            topic::REDEEM_CONFIRMED,
            &message.customer_id,
            headers,
            message,
        )
    }

    /// `loyalty.pointsAdded.v2`, a CloudEvent in binary mode.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn points_added(
        message: &PointsAdded,
        version: i64,
        at: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let id = format!("{}-{version}", message.user_id);
        let headers = cloud_event_headers(topic::POINTS_ADDED, &id, version, at);
        Self::json(topic::POINTS_ADDED, &message.user_id, headers, message)
    }

    /// `loyalty.tierUpgraded.v1`, a CloudEvent in binary mode.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn tier_upgraded(message: &TierUpgraded, version: i64) -> Result<Self, Error> {
        let id = format!("{}-{}", message.user_id, message.new_tier);
        let headers = cloud_event_headers(topic::TIER_UPGRADED, &id, version, message.upgraded_at);
        Self::json(topic::TIER_UPGRADED, &message.user_id, headers, message)
    }

    /// What Meed tells of a player on the topic `players`.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn player_registered(message: &PlayerRegistered) -> Result<Self, Error> {
        let headers = vec![header("content-type", "application/json")];
        Self::json(topic::PLAYERS, &message.user_id, headers, message)
    }

    /// What a player is told on `notifications` of a promotion, a CloudEvent in binary mode. Its id
    /// follows from promotion and player, so that readers can tell it from another one.
    ///
    /// # Errors
    /// Never for a message that can be written as JSON.
    pub fn promotion_assigned(
        message: &Notification,
        version: i64,
        at: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let id = format!(
            "promotion-assigned/{}/{}",
            message.content.id, message.user_id
        );
        let headers = cloud_event_headers(topic::NOTIFICATIONS, &id, version, at);
        Self::json(topic::NOTIFICATIONS, &message.user_id, headers, message)
    }

    fn shard(&self) -> i16 {
        // FNV-1a: spreads well, needs nothing, and never changes.
        let hash = self
            .key
            .as_deref()
            .unwrap_or_default()
            .iter()
            .fold(0x811c_9dc5_u32, |h, b| {
                (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
            });
        i16::try_from(hash % SHARDS).unwrap_or_default()
    }

    /// The headers, with the trace that the message was made in unless it has one: a dead letter
    /// keeps its sender's.
    fn headers_json(&self, trace: Option<&str>) -> serde_json::Value {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let has_one = self.headers.iter().any(|(name, _)| name == TRACEPARENT);
        let trace = trace.filter(|_| !has_one).map(str::as_bytes);
        let own = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        own.chain(trace.map(|trace| (TRACEPARENT, trace)))
            .map(|(name, value)| serde_json::json!([name, BASE64_STANDARD.encode(value)]))
            .collect()
    }
}

/// The id of a message about one event: the same each time it is made.
pub(crate) fn message_id(kind: &str, source: &str, event_id: &str) -> String {
    Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("meed:{kind}/{source}/{event_id}").as_bytes(),
    )
    .to_string()
}

fn header(name: &str, value: impl AsRef<str>) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_ref().as_bytes().to_vec())
}

fn plain_headers(version: i64) -> Vec<(String, Vec<u8>)> {
    vec![
        header("content-type", "application/json"),
        header("meed-account-version", version.to_string()),
    ]
}

fn cloud_event_headers(
    kind: &str,
    id: &str,
    version: i64,
    at: DateTime<Utc>,
) -> Vec<(String, Vec<u8>)> {
    vec![
        header("content-type", "application/json"),
        header("ce_specversion", "1.0"),
        header("ce_id", id),
        header("ce_source", "/meed"),
        header("ce_type", kind),
        header(
            "ce_time",
            at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        ),
        header("meed-account-version", version.to_string()),
    ]
}

/// Writes messages in order. Whoever writes for a customer holds that customer's row lock.
///
/// # Errors
/// What the database reports.
#[tracing::instrument(
    level = "debug", name = "outbox.write", skip_all,
    fields(otel.kind = "client", db.system.name = "postgresql")
)]
pub async fn write(conn: &mut PgConnection, messages: &[OutboxMessage]) -> Result<(), Error> {
    if messages.is_empty() {
        return Ok(());
    }
    let shards: Vec<i16> = messages.iter().map(OutboxMessage::shard).collect();
    let topics: Vec<&str> = messages.iter().map(|m| m.topic.as_str()).collect();
    let keys: Vec<Option<&[u8]>> = messages.iter().map(|m| m.key.as_deref()).collect();
    let trace = trace::current();
    let headers: Vec<serde_json::Value> = messages
        .iter()
        .map(|message| message.headers_json(trace.as_deref()))
        .collect();
    let bodies: Vec<&[u8]> = messages.iter().map(|m| m.body.as_slice()).collect();
    sqlx::query(
        "WITH written AS (
             INSERT INTO outbox_messages (topic, message_key, headers, body)
             SELECT topic, message_key, headers, body
             FROM unnest($2::text[], $3::bytea[], $4::jsonb[], $5::bytea[])
                  WITH ORDINALITY AS m (topic, message_key, headers, body, position)
             ORDER BY position
             RETURNING outbox_id)
         INSERT INTO outbox_state (outbox_id, shard)
         SELECT outbox_id, shard
         FROM (SELECT outbox_id, row_number() OVER (ORDER BY outbox_id) AS position FROM written)
              AS written
         JOIN unnest($1::smallint[]) WITH ORDINALITY AS s (shard, position) USING (position)
         ORDER BY outbox_id",
    )
    .bind(shards)
    .bind(topics)
    .bind(keys)
    .bind(headers)
    .bind(bodies)
    .execute(conn)
    .await?;
    Ok(())
}
