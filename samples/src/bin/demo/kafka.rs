//! Sending the day, seeing how far the intake is, and counting dead letters.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use samples::feed::Delivery;

use crate::progress::Progress;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Offsets by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// Dead letters by error class and by the topic they came from, each source record once.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    pub(crate) by_class: BTreeMap<String, u64>,
    pub(crate) by_topic: BTreeMap<String, u64>,
}

/// Kafka as a sender and as an onlooker sees it.
pub(crate) struct Kafka {
    producer: FutureProducer,
    onlooker: BaseConsumer,
}

impl Kafka {
    pub(crate) fn connect(brokers: &str, group: &str) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", "2097152")
            .set("partitioner", "murmur2_random")
            .create()?;
        // It has the intake's group id to read that group's offsets; it never joins the group.
        let onlooker = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "4194304")
            .create()?;
        Ok(Self { producer, onlooker })
    }

    /// Sends in order and waits until Kafka has all of it.
    pub(crate) async fn send(
        &self,
        deliveries: &[&Delivery],
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let mut acknowledgements = Vec::with_capacity(deliveries.len());
        for (sent, delivery) in deliveries.iter().enumerate() {
            acknowledgements.push(self.enqueue(delivery).await?);
            if sent % 1000 == 0 {
                progress.at(0, &format!("{sent} sent"));
            }
        }
        tokio::task::block_in_place(|| self.producer.flush(ANSWER_LIMIT))
            .context("Kafka did not take everything")?;
        for acknowledgement in acknowledgements {
            if let Err((error, message)) = acknowledgement.await? {
                bail!("Kafka refused a message for {}: {error}", message.topic());
            }
        }
        Ok(())
    }

    async fn enqueue(&self, delivery: &Delivery) -> anyhow::Result<DeliveryFuture> {
        let headers = delivery
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let mut record = FutureRecord::to(&delivery.topic)
            .key(&delivery.key)
            .payload(&delivery.value)
            .headers(headers);
        let started = Instant::now();
        loop {
            record = match self.producer.send_result(record) {
                Ok(acknowledgement) => return Ok(acknowledgement),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record))
                    if started.elapsed() < ANSWER_LIMIT =>
                {
                    record
                }
                Err((error, _)) => {
                    return Err(error).context(format!("sending to {}", delivery.topic));
                }
            };
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end of every partition of some topics.
    pub(crate) fn ends(&self, topics: &[&str]) -> anyhow::Result<Offsets> {
        let mut ends = Offsets::new();
        for topic in topics {
            let metadata = self.onlooker.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
            let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            for partition in partitions {
                let (_, end) =
                    self.onlooker
                        .fetch_watermarks(topic, partition.id(), ANSWER_LIMIT)?;
                ends.insert(((*topic).to_owned(), partition.id()), end);
            }
            if !ends.keys().any(|(known, _)| known == topic) {
                bail!("there is no topic {topic}");
            }
        }
        Ok(ends)
    }

    /// How many messages of some topics the intake has still to take in.
    pub(crate) fn lag(&self, topics: &[&str]) -> anyhow::Result<i64> {
        let ends = self.ends(topics)?;
        let mut partitions = TopicPartitionList::new();
        for (topic, partition) in ends.keys() {
            partitions.add_partition(topic, *partition);
        }
        let committed = self
            .onlooker
            .committed_offsets(partitions, ANSWER_LIMIT)?
            .to_topic_map();
        let lag = ends.iter().map(|(place, end)| match committed.get(place) {
            Some(Offset::Offset(done)) => end - done,
            _ => *end,
        });
        Ok(lag.sum())
    }

    /// Counts the dead letters that were written from these offsets on.
    pub(crate) fn dead_letters(&self, from: &Offsets) -> anyhow::Result<DeadLetters> {
        let mut left = self.ends(&["dead-letter"])?;
        left.retain(|place, end| from.get(place).is_none_or(|start| start < end));
        let mut assignment = TopicPartitionList::new();
        for (topic, partition) in left.keys() {
            let start = from.get(&(topic.clone(), *partition)).copied().unwrap_or(0);
            assignment.add_partition_offset(topic, *partition, Offset::Offset(start))?;
        }
        self.onlooker.assign(&assignment)?;

        let mut counted = DeadLetters::default();
        let mut seen = HashSet::new();
        while !left.is_empty() {
            let message = self
                .onlooker
                .poll(ANSWER_LIMIT)
                .context("the dead letters could not be read to their end")??;
            let place = (message.topic().to_owned(), message.partition());
            if left
                .get(&place)
                .is_some_and(|end| message.offset() + 1 >= *end)
            {
                left.remove(&place);
            }
            let source = ["meed-dlq-topic", "meed-dlq-partition", "meed-dlq-offset"]
                .map(|name| header(&message, name));
            let [topic, ..] = source.clone();
            if seen.insert(source) {
                *counted.by_topic.entry(topic).or_default() += 1;
                let class = header(&message, "meed-dlq-class");
                *counted.by_class.entry(class).or_default() += 1;
            }
        }
        self.onlooker.unassign()?;
        Ok(counted)
    }
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> String {
    message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .find(|header| header.key == name)
        .and_then(|header| header.value)
        .map_or_else(
            || format!("no {name}"),
            |value| String::from_utf8_lossy(value).into_owned(),
        )
}
