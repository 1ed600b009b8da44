//! How this process speaks with Kafka: clients with the settings that each use needs.

use std::{sync::Arc, time::Duration};

use boot::settings::KafkaSettings;
use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::FutureProducer,
    topic_partition_list::{Offset, TopicPartitionList},
};
use workflows::contract::MessageRange;

use crate::record::Record;

/// How long a broker may take to tell where a partition begins and ends.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long reading a range again may take; it is at most one batch.
const READ_AGAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest message that the producer takes. It must take whatever the outbox can hold; the
/// topics' own limits count what is left of it after compression.
const PUBLISH_MAX_BYTES: &str = "67108864";

/// Where Kafka is, and as whom to read it.
#[derive(Debug, Clone)]
pub struct Kafka {
    settings: KafkaSettings,
}

/// Why a range could not be read again.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It is not there any more: retention has passed or the topic was made anew. Its events
    /// cannot be awarded from here.
    #[error("messages {first} to {last} of {topic}, partition {partition}, have vanished: {reason}",
        first = range.first_offset, last = range.last_offset, topic = range.topic,
        partition = range.partition)]
    Vanished {
        /// The range.
        range: MessageRange,
        /// What was found instead.
        reason: String,
    },
    /// Kafka gave no answer; it may later.
    #[error("Kafka is out of reach: {0}")]
    Unreachable(#[from] KafkaError),
}

impl Kafka {
    /// Kafka as it is configured.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be read.
    pub fn new(settings: KafkaSettings) -> anyhow::Result<Self> {
        boot::kafka::check_files(&settings)?;
        Ok(Self { settings })
    }

    /// The consumer group of the intake.
    pub fn group(&self) -> &str {
        &self.settings.group
    }

    fn client(&self, properties: &[(&str, &str)]) -> ClientConfig {
        let mut config: ClientConfig = boot::kafka::properties(&self.settings)
            .into_iter()
            .collect();
        config
            .set("client.id", "meed-worker")
            // Back within a second when a broker returns.
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config
    }

    /// The intake's consumer.
    ///
    /// # Errors
    /// When a property is unknown or invalid.
    pub fn intake_consumer<C, T>(&self, context: C) -> KafkaResult<T>
    where
        C: rdkafka::consumer::ConsumerContext,
        T: FromClientConfigAndContext<C>,
    {
        self.client(&[
            ("group.id", self.group()),
            // What the intake hands over after its batch was posted, and nothing else. The client
            // tries again by itself; it never tells how a commit ended that was asked for one by one.
            ("enable.auto.commit", "true"),
            ("auto.commit.interval.ms", "100"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            // A rebalance stops only the partitions that move.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // A killed worker's partitions move on after this; brokers allow no less by default.
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            // A resumed partition waits for the fetch under way to return.
            ("fetch.wait.max.ms", "50"),
            ("fetch.queue.backoff.ms", "20"),
            ("queued.max.messages.kbytes", "16384"),
            ("topic.metadata.refresh.interval.ms", "30000"),
            ("statistics.interval.ms", "5000"),
        ])
        .create_with_context(context)
    }

    /// The relay's producer: acknowledged by all replicas, in order, without gaps and repetitions
    /// of its own.
    ///
    /// # Errors
    /// When a property is unknown or invalid.
    pub fn producer(&self) -> KafkaResult<FutureProducer> {
        self.client(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            // Never on its own: what is behind a message that timed out might still be delivered.
            // The relay gives up on all of them at once.
            ("message.timeout.ms", "0"),
            ("message.max.bytes", PUBLISH_MAX_BYTES),
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
        ])
        .create()
    }

    /// A consumer that reads partitions it is given and never joins its group: with the intake's
    /// group it can ask for the offsets that were committed.
    ///
    /// # Errors
    /// When a property is unknown or invalid.
    pub fn reader(&self) -> KafkaResult<BaseConsumer> {
        self.client(&[
            ("group.id", self.group()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("queued.max.messages.kbytes", "16384"),
        ])
        .create()
    }

    /// Reads a range again, with a consumer of its own that is in no group.
    ///
    /// # Errors
    /// [`RangeError`].
    pub async fn read_again(&self, range: MessageRange) -> Result<Vec<Record>, RangeError> {
        let kafka = self.clone();
        let read = tokio::task::spawn_blocking(move || kafka.read_again_blocking(&range)).await;
        read.unwrap_or_else(|e| {
            let error = KafkaError::Canceled;
            tracing::error!(%e, "reading a range again was cut off");
            Err(error.into())
        })
    }

    fn read_again_blocking(&self, range: &MessageRange) -> Result<Vec<Record>, RangeError> {
        // The group's name is only needed to be allowed to assign; it is never joined.
        let group = format!("{}-read-again", self.group());
        let consumer: BaseConsumer = self
            .client(&[("group.id", &group), ("enable.auto.commit", "false")])
            .set("auto.offset.reset", "error")
            .create()?;
        let vanished = |range: &MessageRange, reason: String| RangeError::Vanished {
            range: range.clone(),
            reason,
        };
        let (low, high) =
            match consumer.fetch_watermarks(&range.topic, range.partition, WATERMARK_TIMEOUT) {
                Err(error) if does_not_exist(&error) => {
                    return Err(vanished(range, error.to_string()));
                }
                watermarks => watermarks?,
            };
        if low > range.first_offset || high <= range.last_offset {
            return Err(vanished(
                range,
                format!("the partition holds {low} to {}", high - 1),
            ));
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(
            &range.topic,
            range.partition,
            Offset::Offset(range.first_offset),
        )?;
        consumer.assign(&assignment)?;

        let topic: Arc<str> = Arc::from(range.topic.as_str());
        let deadline = std::time::Instant::now() + READ_AGAIN_TIMEOUT;
        let mut records = Vec::with_capacity(range.messages as usize);
        loop {
            let Some(left) = deadline.checked_duration_since(std::time::Instant::now()) else {
                return Err(
                    KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into(),
                );
            };
            let Some(message) = consumer.poll(left) else {
                continue;
            };
            let record = match message {
                Ok(message) => Record::of(&message, Arc::clone(&topic)),
                Err(error) if does_not_exist(&error) => {
                    return Err(vanished(range, error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, "reading a range again goes on");
                    continue;
                }
            };
            let offset = record.offset;
            if offset <= range.last_offset {
                records.push(record);
            }
            if offset >= range.last_offset {
                break;
            }
        }
        if records.len() == range.messages as usize {
            Ok(records)
        } else {
            let reason = format!("{} of {} messages are left", records.len(), range.messages);
            Err(vanished(range, reason))
        }
    }
}

fn does_not_exist(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::AutoOffsetReset
        )
    )
}
