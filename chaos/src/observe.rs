//! Reads what came of a run: the database by statements of its own, every topic from its
//! beginning, and the merchants' books.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use samples::feed::Delivery;
use serde::Deserialize;
use sqlx::FromRow;

use crate::acknowledger::Acknowledgement;
use crate::load::Answer;
use crate::merchants::MERCHANTS;
use crate::system::System;
use crate::topics::{INPUTS, OUTPUTS};

const KAFKA_LIMIT: Duration = Duration::from_secs(15);

/// A message as it stands on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key.
    pub key: String,
    /// The headers; the last of a name counts.
    pub headers: BTreeMap<String, String>,
    /// The value.
    pub value: Vec<u8>,
}

/// A transfer of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Transfer {
    /// Its number.
    pub transfer_id: i64,
    /// The kind of what it is for.
    pub source: String,
    /// The id of what it is for.
    pub source_event_id: String,
    /// Which of its transfers.
    pub leg: String,
    /// The account it is taken from.
    pub debit: String,
    /// The account it is given to.
    pub credit: String,
    /// Whose account.
    pub customer_id: String,
    /// Whose settlement account.
    pub merchant_id: Option<String>,
    /// Points.
    pub amount: i64,
    /// The customer's version after it.
    pub customer_version: i64,
    /// The customer's available points after it.
    pub available_after: i64,
    /// The customer's held points after it.
    pub held_after: i64,
}

/// A customer's balance.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Customer {
    /// Who.
    pub customer_id: String,
    /// Points to spend.
    pub available: i64,
    /// Points reserved.
    pub held: i64,
    /// Points ever earned.
    pub lifetime_earned: i64,
    /// How many transfers touched the account.
    pub version: i64,
    /// The tier.
    pub tier: String,
    /// How often it has changed.
    pub tier_version: i64,
}

/// An event that was processed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Processed {
    /// Its kind.
    pub source: String,
    /// Its id.
    pub event_id: String,
    /// Whose.
    pub customer_id: String,
    /// What it gave.
    pub points: i64,
}

/// A redemption's row.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Redemption {
    /// Its id.
    pub redeem_request_id: String,
    /// Whose points.
    pub customer_id: String,
    /// Where.
    pub merchant_id: String,
    /// For what.
    pub order_id: String,
    /// How many points.
    pub points: i64,
    /// Where it stands.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Points deducted.
    pub points_deducted: i64,
    /// The available balance when it ended.
    pub balance_after: Option<i64>,
    /// Its hold's limit has passed.
    pub hold_is_over: bool,
}

/// An order to look at a tier.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TierOrder {
    /// Its number.
    pub order_id: i64,
    /// Whose tier.
    pub customer_id: String,
    /// It is done.
    pub is_closed: bool,
    /// The tier before, when it gave one.
    pub previous_tier: Option<String>,
    /// The tier that it gave.
    pub new_tier: Option<String>,
    /// The notification was acknowledged.
    pub is_notified: bool,
    /// The callback of the notification.
    pub callback_id: Option<String>,
}

/// A redemption in a merchant's book.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Booked {
    /// The merchant.
    #[serde(skip)]
    pub merchant: String,
    /// The redemption.
    pub redeem_request_id: String,
    /// For what, when it was posted.
    pub order_id: Option<String>,
    /// How many points, when it was posted.
    pub points: Option<i64>,
    /// What the merchant has decided.
    pub status: Option<String>,
    /// How often it was posted.
    pub posts: u32,
    /// Every status it had.
    pub changes: Vec<Change>,
}

/// One status of a booked redemption.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// What it became.
    pub status: String,
}

/// Everything that the oracle judges by.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What Kafka acknowledged to the runner.
    pub sent: Vec<Delivery>,
    /// What stands on the topics that Meed reads, in the order of offsets within a partition.
    pub inputs: Vec<Record>,
    /// What stands on the topics that Meed publishes, likewise.
    pub published: Vec<Record>,
    /// The ledger, in its order.
    pub transfers: Vec<Transfer>,
    /// The balances.
    pub customers: Vec<Customer>,
    /// The processed events.
    pub processed: Vec<Processed>,
    /// The redemptions.
    pub redemptions: Vec<Redemption>,
    /// The tier orders, in their order.
    pub tier_orders: Vec<TierOrder>,
    /// The merchants' books.
    pub books: Vec<Booked>,
    /// What the api answered.
    pub answers: Vec<Answer>,
    /// What the api said to acknowledgements.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Rows of the outbox that are not published.
    pub unpublished: i64,
    /// Merchants that never answer, also at the end.
    pub deaf: Vec<String>,
}

/// Reads it all. What was sent and answered is for the caller to add.
pub async fn observe(system: &System) -> Result<Observed> {
    let pool = &system.pool;
    let inputs = read_topics(system, &INPUTS).await?;
    let published = read_topics(system, &OUTPUTS).await?;
    let mut books = Vec::new();
    for merchant in MERCHANTS {
        let url = format!("{}/control/merchants/{}/book", system.partners, merchant.id);
        let book: Vec<Booked> = system.http.get(url).send().await?.json().await?;
        books.extend(book.into_iter().map(|booked| Booked {
            merchant: merchant.id.to_owned(),
            ..booked
        }));
    }
    Ok(Observed {
        inputs,
        published,
        books,
        transfers: sqlx::query_as(
            "SELECT transfer_id, source, source_event_id, leg, debit_account::text AS debit,
                    credit_account::text AS credit, customer_id, merchant_id, amount,
                    customer_version, available_after, held_after
             FROM transfers ORDER BY transfer_id",
        )
        .fetch_all(pool)
        .await?,
        customers: sqlx::query_as(
            "SELECT customer_id, available, held, lifetime_earned, version, tier, tier_version
             FROM customers ORDER BY customer_id",
        )
        .fetch_all(pool)
        .await?,
        processed: sqlx::query_as(
            "SELECT source, event_id, customer_id, points FROM processed_events",
        )
        .fetch_all(pool)
        .await?,
        redemptions: sqlx::query_as(
            "SELECT redeem_request_id, customer_id, merchant_id, order_id, points, state, reason,
                    points_deducted, balance_after,
                    coalesce(hold_expires_at < clock_timestamp(), false) AS hold_is_over
             FROM redemptions ORDER BY redeem_request_id",
        )
        .fetch_all(pool)
        .await?,
        tier_orders: sqlx::query_as(
            "SELECT order_id, customer_id, closed_at IS NOT NULL AS is_closed, previous_tier,
                    new_tier, notified_at IS NOT NULL AS is_notified, callback_id
             FROM tier_orders ORDER BY order_id",
        )
        .fetch_all(pool)
        .await?,
        unpublished: sqlx::query_scalar("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            .fetch_one(pool)
            .await?,
        ..Observed::default()
    })
}

async fn read_topics(system: &System, topics: &'static [&'static str]) -> Result<Vec<Record>> {
    let brokers = system.brokers.clone();
    tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        for topic in topics {
            records.extend(read_topic(&brokers, topic).with_context(|| (*topic).to_owned())?);
        }
        Ok(records)
    })
    .await?
}

/// Reads a topic from its beginning to where it ended when this began.
fn read_topic(brokers: &str, topic: &str) -> Result<Vec<Record>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "chaos-oracle")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.message.max.bytes", "4194304")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_LIMIT)?;
    let found = metadata.topics().first().context("it is missing")?;
    let mut assignment = TopicPartitionList::new();
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for partition in found.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), KAFKA_LIMIT)?;
        if high > low {
            ends.insert(partition.id(), high);
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
        }
    }
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    consumer.assign(&assignment)?;
    let mut records = Vec::new();
    while !ends.is_empty() {
        let message = consumer
            .poll(KAFKA_LIMIT)
            .context("no message where there should be one")??;
        if ends
            .get(&message.partition())
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            ends.remove(&message.partition());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        records.push(Record {
            topic: topic.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key().unwrap_or_default()),
            headers: message
                .headers()
                .map(|headers| {
                    headers
                        .iter()
                        .map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default())))
                        .collect()
                })
                .unwrap_or_default(),
            value: message.payload().unwrap_or_default().to_vec(),
        });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}
