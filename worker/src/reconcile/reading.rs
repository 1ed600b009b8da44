//! Reading topics for comparison: partitions, offsets, messages, without joining any group.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem},
};

use super::work::Trouble;
use crate::{kafka::Kafka, record::Record};

/// How long a broker may take to tell something.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// How long the next message may take.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// A partition, and which messages it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The partition.
    pub partition: i32,
    /// The first offset that it still has.
    pub low: i64,
    /// The offset after its last one.
    pub high: i64,
}

/// Work that waits for a broker, beside the runtime.
///
/// # Errors
/// What the broker reports.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> KafkaResult<T> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Trouble::CutOff(error.to_string())),
    }
}

/// The partitions of a topic; none when it does not exist.
///
/// # Errors
/// What the broker reports.
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> KafkaResult<Vec<Held>> {
    let metadata = consumer.fetch_metadata(Some(topic), TELL_WITHIN)?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
        return Ok(Vec::new());
    };
    let mut held = Vec::new();
    for partition in found.partitions() {
        let partition = partition.id();
        let (low, high) = consumer.fetch_watermarks(topic, partition, TELL_WITHIN)?;
        held.push(Held {
            partition,
            low,
            high,
        });
    }
    Ok(held)
}

/// The offset that the intake has committed, if any.
///
/// # Errors
/// What the broker reports.
pub fn committed(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<Option<i64>> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let answer = consumer.committed_offsets(list, TELL_WITHIN)?;
    Ok(answer
        .elements()
        .first()
        .and_then(|e| e.offset().to_raw())
        .filter(|offset| *offset >= 0))
}

/// The first offset of a partition with a message of that time or later; its end when there is
/// none.
///
/// # Errors
/// What the broker reports.
pub fn offset_at(
    consumer: &BaseConsumer,
    topic: &str,
    held: Held,
    at: DateTime<Utc>,
) -> KafkaResult<i64> {
    let mut list = TopicPartitionList::new();
    let time = Offset::Offset(at.timestamp_millis().max(0));
    list.add_partition_offset(topic, held.partition, time)?;
    let answer = consumer.offsets_for_times(list, TELL_WITHIN)?;
    let found = answer
        .elements()
        .first()
        .map(TopicPartitionListElem::offset);
    Ok(match found {
        Some(Offset::Offset(offset)) => offset.clamp(held.low, held.high),
        _ => held.high,
    })
}

/// Reads a stretch of a partition, some messages at a time.
pub struct Reader {
    consumer: BaseConsumer,
    topic: Arc<str>,
    next: i64,
    until: i64,
}

impl Reader {
    /// A reader of the offsets from `from` up to, and without, `until`.
    ///
    /// # Errors
    /// What the broker reports.
    pub fn open(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        from: i64,
        until: i64,
    ) -> KafkaResult<Self> {
        let consumer = kafka.reader()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
        consumer.assign(&assignment)?;
        Ok(Self {
            consumer,
            topic: Arc::from(topic),
            next: from,
            until,
        })
    }

    /// The next offset that will be read.
    pub const fn next_offset(&self) -> i64 {
        self.next
    }

    /// The next messages, at most `limit`; none when the stretch has been read.
    fn read(&mut self, limit: usize) -> KafkaResult<Vec<Record>> {
        let mut records = Vec::new();
        let deadline = Instant::now() + READ_WITHIN;
        while records.len() < limit && self.next < self.until {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::OperationTimedOut,
                ));
            };
            match self.consumer.poll(left) {
                None => {}
                Some(Ok(message)) => {
                    let record = Record::of(&message, Arc::clone(&self.topic));
                    self.next = record.offset + 1;
                    if record.offset < self.until {
                        records.push(record);
                    }
                }
                // What is left are offsets without messages.
                Some(Err(KafkaError::PartitionEOF(_))) => self.next = self.until,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        RDKafkaErrorCode::BrokerTransportFailure
                        | RDKafkaErrorCode::AllBrokersDown
                        | RDKafkaErrorCode::OperationTimedOut,
                    ) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(records)
    }

    /// The next messages, at most `limit`; none when the stretch has been read.
    ///
    /// # Errors
    /// What the broker reports.
    pub async fn chunk(mut self, limit: usize) -> Result<(Self, Vec<Record>), Trouble> {
        blocking(move || {
            let records = self.read(limit)?;
            Ok((self, records))
        })
        .await
    }
}
