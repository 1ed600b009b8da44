//! The step behind the relay: what waits in the outbox is published, and marked once Kafka has it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use faultpoint::bug;
use futures::StreamExt;
use rdkafka::{
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer, PurgeConfig},
};
use store::{
    PgPool,
    relay::{ShardFront, Waiting},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use workflows::contract::{RelayProgress, definition};

use crate::{backoff::Backoff, kafka::Kafka, measures, traces};

/// How many messages of a shard are published in one go; after a round of so many the next one begins
/// at once.
const FRONT_MESSAGES: u16 = 500;
/// How many bytes of bodies, about; one larger message still goes.
const FRONT_BYTES: i64 = 8 * 1024 * 1024;
/// How many shards are published at the same time.
const SHARDS_AT_A_TIME: usize = 4;
/// How often the outbox is looked at when nobody says that there is something.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How far apart rounds begin that had little to publish: what comes in between goes in one
/// transaction of its shard. Whatever comes after a pause goes at once.
const PACE: Duration = Duration::from_millis(20);
/// How often Temporal is told that the relay is alive.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// After this long without an acknowledgement messages count as not published and are sent again,
/// in order. The shard's transaction is idle meanwhile, which the database bears for longer.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(10);
/// How long messages under way may take to be acknowledged when the relay has to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Publishes the outbox.
pub struct OutboxRelay {
    pool: PgPool,
    publisher: Publisher,
    outbox_written: Arc<Notify>,
    stop: CancellationToken,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("a message for {topic} (outbox {outbox_id}) was not acknowledged: {source}")]
    NotAcknowledged {
        topic: String,
        outbox_id: i64,
        source: KafkaError,
    },
    #[error("Kafka's producer cannot be made: {0}")]
    NoProducer(KafkaError),
}

impl OutboxRelay {
    /// A relay from this database to this Kafka. It works until its shift is over or `stop` says
    /// that the process ends.
    ///
    /// # Errors
    /// When a Kafka property is unknown or invalid.
    pub fn new(
        pool: PgPool,
        kafka: Kafka,
        outbox_written: Arc<Notify>,
        stop: CancellationToken,
    ) -> KafkaResult<Self> {
        Ok(Self {
            pool,
            publisher: Publisher::new(kafka)?,
            outbox_written,
            stop,
        })
    }
}

#[activities]
impl OutboxRelay {
    /// Publishes for a shift, then hands over.
    #[activity(definition = definition::PublishOutbox)]
    pub async fn publish_outbox(
        self: Arc<Self>,
        ctx: ActivityContext,
        shift_seconds: u64,
    ) -> Result<RelayProgress, ActivityError> {
        let before: RelayProgress = ctx
            .heartbeat_details()
            .deserialize()
            .ok()
            .flatten()
            .unwrap_or_default();
        let published = AtomicU64::new(before.published);
        let over = CancellationToken::new();
        let work = self.work(&published, &over);
        tokio::pin!(work);
        let shift_ends = Instant::now() + Duration::from_secs(shift_seconds);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        let cancelled = loop {
            tokio::select! {
                () = &mut work => break false,
                () = self.stop.cancelled() => break false,
                () = ctx.cancelled() => break true,
                () = tokio::time::sleep_until(shift_ends) => break false,
                _ = heartbeat.tick() => {
                    let published = published.load(Ordering::Relaxed);
                    if let Err(error) = ctx.record_heartbeat(RelayProgress { published }).await {
                        tracing::warn!(%error, "the relay's heartbeat was not written");
                    }
                }
            }
        };
        // What is under way may be acknowledged and marked, so that it is not published again.
        over.cancel();
        if tokio::time::timeout(STOP_WITHIN, work).await.is_err() {
            // Nothing of it may be sent once somebody else publishes.
            self.publisher.give_up();
        }
        if cancelled && !self.stop.is_cancelled() {
            return Err(ActivityError::cancelled());
        }
        Ok(RelayProgress {
            published: published.load(Ordering::Relaxed),
        })
    }
}

impl OutboxRelay {
    async fn work(&self, published: &AtomicU64, over: &CancellationToken) {
        let mut backoff = Backoff::short();
        while !over.is_cancelled() {
            let began = Instant::now();
            match self.round(published, over).await {
                Ok(0) => {
                    backoff.reset();
                    tokio::select! {
                        () = over.cancelled() => {}
                        () = self.outbox_written.notified() => {}
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                Ok(count) => {
                    backoff.reset();
                    if count < usize::from(FRONT_MESSAGES) {
                        tokio::select! {
                            () = over.cancelled() => {}
                            () = tokio::time::sleep_until(began + PACE) => {}
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox waits");
                    tokio::select! {
                        () = over.cancelled() => {}
                        () = backoff.pause() => {}
                    }
                }
            }
        }
    }

    /// Publishes the front of every shard that has something: how many messages.
    async fn round(
        &self,
        published: &AtomicU64,
        over: &CancellationToken,
    ) -> Result<usize, RelayError> {
        let shards = store::relay::waiting_shards(&self.pool).await?;
        let mut results = futures::stream::iter(shards)
            .take_while(|_| futures::future::ready(!over.is_cancelled()))
            .map(|shard| self.publish_front(shard, published))
            .buffer_unordered(SHARDS_AT_A_TIME);
        let (mut count, mut failure) = (0, None);
        while let Some(result) = results.next().await {
            match result {
                Ok(published) => count += published,
                // One shard's trouble is not another's; the first is told.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(count), Err)
    }

    async fn publish_front(&self, shard: i16, published: &AtomicU64) -> Result<usize, RelayError> {
        let front =
            store::relay::lock_front(&self.pool, shard, FRONT_MESSAGES.into(), FRONT_BYTES).await?;
        let Some(front) = front else { return Ok(0) };
        if faultpoint::planted(bug::OUTBOX_MARK) {
            store::relay::mark_unpublished(&self.pool, &front).await?;
        }
        let sending = spans(&front);
        faultpoint::reach("relay", "before-publish");
        let (acknowledged, failure) = self.publisher.publish(&front).await?;
        faultpoint::reach("relay", "after-publish");
        drop(sending);
        let mut by_topic: BTreeMap<&str, u64> = BTreeMap::new();
        for waiting in &front.messages[..acknowledged] {
            *by_topic.entry(&waiting.message.topic).or_default() += 1;
        }
        for (topic, count) in by_topic {
            measures::published(topic, count);
        }
        front.mark_published(acknowledged).await?;
        faultpoint::reach("relay", "after-mark");
        published.fetch_add(acknowledged as u64, Ordering::Relaxed);
        failure.map_or(Ok(acknowledged), Err)
    }
}

/// The producer, replaced when it has given up on a message: what was behind that message must
/// not be delivered before it.
struct Publisher {
    kafka: Kafka,
    current: Mutex<Option<FutureProducer>>,
}

impl Publisher {
    fn new(kafka: Kafka) -> KafkaResult<Self> {
        let producer = kafka.producer()?;
        Ok(Self {
            kafka,
            current: Mutex::new(Some(producer)),
        })
    }

    fn producer(&self) -> Result<FutureProducer, RelayError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*current {
            return Ok(producer.clone());
        }
        let producer = self.kafka.producer().map_err(RelayError::NoProducer)?;
        *current = Some(producer.clone());
        Ok(producer)
    }

    /// Sends nothing more of what it was given; the next message goes through a new producer.
    fn give_up(&self) {
        let producer = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(producer) = producer {
            producer.purge(PurgeConfig::default().queue().inflight());
            // Dropping the last one waits for its thread.
            tokio::task::spawn_blocking(move || drop(producer));
        }
    }

    /// Publishes in order: how many, from the front, Kafka has acknowledged, and what went wrong
    /// after them.
    async fn publish(&self, front: &ShardFront) -> Result<(usize, Option<RelayError>), RelayError> {
        let producer = self.producer()?;
        let deadline = Instant::now() + ACKNOWLEDGE_WITHIN;
        let mut deliveries = Vec::with_capacity(front.messages.len());
        let mut failure = None;
        for waiting in &front.messages {
            match producer.send_result(record(waiting)) {
                Ok(delivery) => deliveries.push(delivery),
                Err((error, _)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // When one message is refused, the producer is as good for the other shards as before,
        // unless it is broken. A message that may still be under way is another matter.
        let mut over = failure.is_some() && producer.client().fatal_error().is_some();
        let mut acknowledged = 0;
        for delivery in deliveries {
            let delivered = match tokio::time::timeout_at(deadline, delivery).await {
                Ok(Ok(Ok(_))) => Ok(()),
                Ok(Ok(Err((error, _)))) => Err(error),
                // The producer was given up by another shard before it could say.
                Ok(Err(_)) => Err(KafkaError::Canceled),
                Err(_) => Err(KafkaError::MessageProduction(
                    RDKafkaErrorCode::MessageTimedOut,
                )),
            };
            match delivered {
                Ok(()) => acknowledged += 1,
                Err(error) => {
                    failure = Some(error);
                    over = true;
                    break;
                }
            }
        }
        if over {
            self.give_up();
        }
        let failure = failure.map(|source| {
            let waiting = &front.messages[acknowledged];
            RelayError::NotAcknowledged {
                topic: waiting.message.topic.clone(),
                outbox_id: waiting.outbox_id,
                source,
            }
        });
        Ok((acknowledged, failure))
    }
}

/// One for each topic that messages go to.
fn spans(front: &ShardFront) -> Vec<Span> {
    type Headers = [(String, Vec<u8>)];
    let mut by_topic: BTreeMap<&str, Vec<&Headers>> = BTreeMap::new();
    for Waiting { message, .. } in &front.messages {
        let headers = by_topic.entry(&message.topic).or_default();
        headers.push(&message.headers);
    }
    by_topic
        .into_iter()
        .map(|(topic, headers)| traces::send(topic, headers.into_iter()))
        .collect()
}

fn record(waiting: &Waiting) -> FutureRecord<'_, [u8], [u8]> {
    let message = &waiting.message;
    let headers = message.headers.iter().fold(
        OwnedHeaders::new_with_capacity(message.headers.len()),
        |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        },
    );
    let record = FutureRecord::to(&message.topic)
        .payload(&message.body[..])
        .headers(headers);
    match &message.key {
        Some(key) => record.key(&key[..]),
        None => record,
    }
}
