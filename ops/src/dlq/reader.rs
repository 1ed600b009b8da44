//! Reading the topic of dead letters, without a group and without a mark on it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use boot::settings::KafkaSettings;
use chrono::{DateTime, Utc};
use domain::message::topic::DEAD_LETTER;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::MetadataPartition,
    topic_partition_list::Offset,
};

use super::{letter::Letter, select::Place};
use crate::kafka::{self, ANSWER_WITHIN};

/// Reads dead letters.
pub struct Reader {
    consumer: BaseConsumer,
    kafka: KafkaSettings,
    partitions: Vec<i32>,
}

/// What is left to read of a topic that was looked at once: letters that come meanwhile are not
/// part of it, so that sending some again does not go on for ever.
pub struct Scan<'a> {
    reader: &'a Reader,
    /// For each partition that has something left: the next offset, and the one to stop before.
    left: BTreeMap<i32, (i64, i64)>,
    /// How many there are to read, about.
    pub length: u64,
    seen: HashSet<String>,
}

impl Reader {
    /// Looks at the topic.
    ///
    /// # Errors
    /// When Kafka does not answer or has no such topic.
    pub fn open(kafka: &KafkaSettings) -> Result<Self> {
        tokio::task::block_in_place(|| kafka::reach(kafka))?;
        let consumer: BaseConsumer = kafka::client(kafka)?
            // Only needed to be allowed to assign; it is never joined.
            .set("group.id", "meed-dlq")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .create()
            .context(kafka::UNUSABLE)?;
        let mut reader = Self {
            consumer,
            kafka: kafka.clone(),
            partitions: Vec::new(),
        };
        reader.partitions = reader.partitions_of(DEAD_LETTER)?;
        if reader.partitions.is_empty() {
            bail!(
                "Kafka at {} has no topic {DEAD_LETTER}: `meed topics apply` creates it",
                kafka.brokers
            );
        }
        Ok(reader)
    }

    /// The partitions of a topic; none when it does not exist.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn partitions_of(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = tokio::task::block_in_place(|| {
            self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)
        })
        .map_err(|error| self.silent(&error))?;
        Ok(metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(MetadataPartition::id))
            .collect())
    }

    fn silent(&self, error: &KafkaError) -> anyhow::Error {
        kafka::silent(&self.kafka, &error.to_string())
    }

    fn ends(&self, partition: i32) -> Result<(i64, i64)> {
        tokio::task::block_in_place(|| {
            self.consumer
                .fetch_watermarks(DEAD_LETTER, partition, ANSWER_WITHIN)
        })
        .map_err(|error| self.silent(&error))
    }

    /// One letter.
    ///
    /// # Errors
    /// When Kafka does not answer, or none stands there.
    pub fn one(&self, place: Place) -> Result<Letter> {
        if !self.partitions.contains(&place.partition) {
            bail!(
                "there is no dead letter {place}: the topic has partitions 0 to {}",
                self.partitions.len() - 1
            );
        }
        let (low, high) = self.ends(place.partition)?;
        if place.offset >= high || place.offset < low {
            let holds = if low < high {
                format!("holds {} to {}", low, high - 1)
            } else {
                "is empty".to_owned()
            };
            bail!(
                "there is no dead letter {place}: partition {} {holds}",
                place.partition
            );
        }
        let mut scan = self.begin([(place.partition, (place.offset, place.offset + 1))].into())?;
        match scan.next()? {
            Some(letter) if letter.place == place => Ok(letter),
            _ => bail!("there is no dead letter {place} any more"),
        }
    }

    /// All letters, or those since some time.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn scan(&self, since: Option<DateTime<Utc>>) -> Result<Scan<'_>> {
        let beginnings = since.map(|since| self.beginnings(since)).transpose()?;
        let mut left = BTreeMap::new();
        for partition in &self.partitions {
            let (low, high) = self.ends(*partition)?;
            let from = match &beginnings {
                None => low,
                Some(beginnings) => beginnings.get(partition).copied().unwrap_or(high).max(low),
            };
            if from < high {
                left.insert(*partition, (from, high));
            }
        }
        self.begin(left)
    }

    /// The first offset of each partition that is not older.
    fn beginnings(&self, since: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        let mut times = TopicPartitionList::new();
        for partition in &self.partitions {
            let milliseconds = Offset::Offset(since.timestamp_millis().max(0));
            times.add_partition_offset(DEAD_LETTER, *partition, milliseconds)?;
        }
        let found =
            tokio::task::block_in_place(|| self.consumer.offsets_for_times(times, ANSWER_WITHIN))
                .map_err(|error| self.silent(&error))?;
        Ok(found
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect())
    }

    fn begin(&self, left: BTreeMap<i32, (i64, i64)>) -> Result<Scan<'_>> {
        let mut assignment = TopicPartitionList::new();
        for (partition, (from, _)) in &left {
            assignment.add_partition_offset(DEAD_LETTER, *partition, Offset::Offset(*from))?;
        }
        self.consumer.assign(&assignment)?;
        let length: i64 = left.values().map(|(from, to)| to - from).sum();
        Ok(Scan {
            reader: self,
            left,
            length: u64::try_from(length).unwrap_or_default(),
            seen: HashSet::new(),
        })
    }
}

impl Scan<'_> {
    /// The next letter; none at the end. One that was published twice comes once.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn next(&mut self) -> Result<Option<Letter>> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        while !self.left.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                bail!(
                    "Kafka at {} does not answer within {} seconds",
                    self.reader.kafka.brokers,
                    ANSWER_WITHIN.as_secs()
                );
            }
            let polled = tokio::task::block_in_place(|| self.reader.consumer.poll(patience));
            let letter = match polled {
                None => continue,
                Some(Ok(message)) => Letter::of(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.left.remove(&partition);
                    continue;
                }
                // The client goes on by itself when it can.
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(error).context("Kafka cannot be read"),
            };
            let Place { partition, offset } = letter.place;
            let Some((next, to)) = self.left.get_mut(&partition) else {
                continue;
            };
            if offset < *next {
                continue;
            }
            *next = offset + 1;
            let (wanted, last) = (offset < *to, offset + 1 >= *to);
            if last {
                self.left.remove(&partition);
            }
            if wanted && self.seen.insert(letter.id()) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// How many are left to read, about.
    pub fn remaining(&self) -> u64 {
        let left: i64 = self.left.values().map(|(next, to)| to - next).sum();
        u64::try_from(left).unwrap_or_default()
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}
