//! Waits until nothing is under way any more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Serialize;

use crate::merchants::DEAF;
use crate::system::System;
use crate::topics::INPUTS;

const LOOK: Duration = Duration::from_millis(400);
const KAFKA_LIMIT: Duration = Duration::from_secs(10);

/// What is still under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Open {
    /// Messages that are not posted.
    pub lag: i64,
    /// Rows that are not published.
    pub outbox: i64,
    /// Redemptions, but for those at the merchant that never answers.
    pub redemptions: i64,
    /// Orders to look at a tier.
    pub tiers: i64,
    /// Callbacks that were answered and not signalled.
    pub callbacks: i64,
}

impl Open {
    /// Nothing is.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Asks Kafka and the database.
pub async fn open(system: &System) -> Result<Open> {
    let brokers = system.brokers.clone();
    let lag = tokio::task::spawn_blocking(move || lag(&brokers)).await??;
    let (outbox, redemptions, tiers, callbacks): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL),
                (SELECT count(*) FROM redemptions
                 WHERE state NOT IN ('SUCCESS', 'FAILED') AND merchant_id <> $1),
                (SELECT count(*) FROM tier_orders WHERE closed_at IS NULL),
                (SELECT count(*) FROM callbacks
                 WHERE answered_at IS NOT NULL AND signalled_at IS NULL)",
    )
    .bind(DEAF)
    .fetch_one(&system.pool)
    .await?;
    Ok(Open {
        lag,
        outbox,
        redemptions,
        tiers,
        callbacks,
    })
}

/// Waits until nothing is open, three times in a row. Gives up when nothing has moved for as long
/// as the patience lasts, and answers what is left.
pub async fn wait(system: &System, patience: Duration, tell: impl Fn(&Open)) -> Result<Open> {
    let mut last = Open::default();
    let mut moved = Instant::now();
    let mut quiet = 0;
    loop {
        let now = match open(system).await {
            Ok(now) => now,
            Err(_) if moved.elapsed() < patience => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        tell(&now);
        quiet = if now.is_nothing() { quiet + 1 } else { 0 };
        if now != last {
            moved = Instant::now();
        }
        if quiet >= 3 || moved.elapsed() > patience {
            return Ok(now);
        }
        last = now;
        tokio::time::sleep(LOOK).await;
    }
}

/// How many messages the intake has not posted.
fn lag(brokers: &str) -> Result<i64> {
    // It has the intake's group id to read that group's offsets; it never joins the group.
    let onlooker: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "meed-intake")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut asked = TopicPartitionList::new();
    let mut ends = 0;
    for topic in INPUTS {
        let metadata = onlooker.fetch_metadata(Some(topic), KAFKA_LIMIT)?;
        let found = metadata.topics().first().context("the topic is missing")?;
        for partition in found.partitions() {
            let (_, end) = onlooker.fetch_watermarks(topic, partition.id(), KAFKA_LIMIT)?;
            ends += end;
            asked.add_partition(topic, partition.id());
        }
    }
    let committed = onlooker.committed_offsets(asked, KAFKA_LIMIT)?;
    let posted: i64 = committed
        .elements()
        .iter()
        .map(|element| match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        })
        .sum();
    Ok(ends - posted)
}
