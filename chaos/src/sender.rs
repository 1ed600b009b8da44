//! Sends messages to Kafka in order, until each is acknowledged, through whatever happens to Kafka.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use samples::feed::Delivery;

/// How many messages may wait for their acknowledgement.
const WINDOW: usize = 400;
/// How long a producer that failed for good is left alone before another is made.
const PAUSE: Duration = Duration::from_millis(300);

/// An ordered stream of messages. Should the producer fail for good, all that is not acknowledged
/// is sent again in its order by another: duplicates, never gaps.
pub struct Sender {
    brokers: String,
    producer: FutureProducer,
    waiting: VecDeque<(Delivery, DeliveryFuture)>,
}

impl Sender {
    /// Connects when the first message is sent.
    pub fn new(brokers: &str) -> Result<Self> {
        Ok(Self {
            brokers: brokers.to_owned(),
            producer: producer(brokers)?,
            waiting: VecDeque::new(),
        })
    }

    /// Sends one; waits while too many are not acknowledged.
    pub async fn send(&mut self, delivery: Delivery) -> Result<()> {
        while self.waiting.len() >= WINDOW {
            self.settle_first().await?;
        }
        if let Ok(future) = enqueue(&self.producer, &delivery) {
            self.waiting.push_back((delivery, future));
            return Ok(());
        }
        let mut all: Vec<Delivery> = self.waiting.drain(..).map(|(d, _)| d).collect();
        all.push(delivery);
        self.again(all).await
    }

    /// Waits until all are acknowledged.
    pub async fn flush(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.settle_first().await?;
        }
        Ok(())
    }

    async fn settle_first(&mut self) -> Result<()> {
        let Some((delivery, future)) = self.waiting.pop_front() else {
            return Ok(());
        };
        if let Ok(Ok(_)) = future.await {
            return Ok(());
        }
        let mut all = vec![delivery];
        all.extend(self.waiting.drain(..).map(|(delivery, _)| delivery));
        self.again(all).await
    }

    async fn again(&mut self, all: Vec<Delivery>) -> Result<()> {
        loop {
            self.producer
                .purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            tokio::time::sleep(PAUSE).await;
            self.producer = producer(&self.brokers)?;
            let sent: KafkaResult<VecDeque<_>> = all
                .iter()
                .map(|delivery| Ok((delivery.clone(), enqueue(&self.producer, delivery)?)))
                .collect();
            if let Ok(sent) = sent {
                self.waiting = sent;
                return Ok(());
            }
        }
    }
}

fn producer(brokers: &str) -> Result<FutureProducer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "chaos")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // Never given up on one by one: what is behind it would overtake it.
        .set("message.timeout.ms", "0")
        .set("message.max.bytes", "2097152")
        .set("reconnect.backoff.max.ms", "1000")
        .set("linger.ms", "2")
        .set("partitioner", "murmur2_random")
        .create()
        .context("a producer")
}

fn enqueue(producer: &FutureProducer, delivery: &Delivery) -> KafkaResult<DeliveryFuture> {
    let headers = delivery
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |all, (name, value)| {
            all.insert(Header {
                key: name,
                value: Some(value),
            })
        });
    let record = FutureRecord::to(&delivery.topic)
        .key(&delivery.key)
        .headers(headers)
        .payload(&delivery.value);
    producer.send_result(record).map_err(|(error, _)| error)
}
