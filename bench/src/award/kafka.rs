//! Kafka, as whoever sends events and reads confirmations uses it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use domain::message::topic::REWARD_CONFIRMED;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use stack::Task;
use tokio_util::sync::CancellationToken;

use super::orders::{Order, Orders};

/// How long Kafka may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long confirmations may stay away before something must be wrong.
const STALLED_AFTER: Duration = Duration::from_secs(90);
/// How often it is looked whether all are there. When the last one came is not known any less
/// exactly by it.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long it is waited for confirmations that should not come.
const NONE_MORE_WITHIN: Duration = Duration::from_millis(300);
/// How long a client that cannot do something yet is left alone.
const PAUSE: Duration = Duration::from_millis(2);

/// What every client of this program begins with.
pub fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "bench");
    config
}

/// A consumer that belongs to no group and is given its partitions.
///
/// # Errors
/// When it cannot be made.
pub fn reader(brokers: &str) -> Result<BaseConsumer> {
    client(brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .create()
        .context("a consumer")
}

/// Where each partition of a topic ends now.
///
/// # Errors
/// When Kafka does not answer.
pub fn ends(brokers: &str, topic: &str) -> Result<Vec<(i32, i64)>> {
    let reader = reader(brokers)?;
    let metadata = reader.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let topic_metadata = metadata.topics().first().context("no metadata")?;
    let partitions = topic_metadata.partitions().iter();
    let ends =
        partitions.map(|partition| Ok((partition.id(), end(&reader, topic, partition.id())?)));
    let ends: Vec<_> = ends.collect::<Result<_>>()?;
    ensure!(!ends.is_empty(), "there is no topic {topic}");
    Ok(ends)
}

/// Where a partition ends. A client that is new may not have heard of its leader yet.
fn end(reader: &BaseConsumer, topic: &str, partition: i32) -> Result<i64> {
    let began = Instant::now();
    loop {
        match reader.fetch_watermarks(topic, partition, ANSWER_WITHIN) {
            Ok((_, end)) => return Ok(end),
            Err(_) if began.elapsed() < ANSWER_WITHIN => std::thread::sleep(PAUSE),
            Err(error) => {
                return Err(error).with_context(|| format!("partition {partition} of {topic}"));
            }
        }
    }
}

/// Makes topics with so many partitions, if they are not there.
///
/// # Errors
/// When Kafka refuses.
pub async fn create_topics(brokers: &str, names: &[&str], partitions: usize) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let partitions = i32::try_from(partitions)?;
    let topics: Vec<_> = names
        .iter()
        .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
    for made in admin.create_topics(&topics, &options).await? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("Kafka refuses the topic {name}: {code}"),
        }
    }
    Ok(())
}

/// Counts what was not acknowledged.
#[derive(Default)]
struct Deliveries {
    failed: AtomicUsize,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends orders as fast as Kafka takes them, acknowledged by all replicas.
#[derive(Clone)]
pub struct Producer {
    producer: Arc<ThreadedProducer<Deliveries>>,
}

impl Producer {
    /// A producer that waits so long for more before it sends.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(brokers: &str, linger: Duration) -> Result<Self> {
        let producer = client(brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", linger.as_millis().to_string())
            .set("compression.type", "lz4")
            .create_with_context(Deliveries::default())
            .context("a producer")?;
        Ok(Self {
            producer: Arc::new(producer),
        })
    }

    /// Hands one order over, keyed by its customer.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&self, topic: &str, order: &Order) -> Result<()> {
        let body = order.json();
        let mut record = BaseRecord::to(topic)
            .key(order.customer.as_str())
            .payload(body.as_str());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => return Err(error).context("an order is not sent"),
            }
        }
    }

    /// Sends orders and waits until all are acknowledged.
    ///
    /// # Errors
    /// When one is not.
    pub async fn send_all(&self, topic: &'static str, orders: &Orders) -> Result<()> {
        let (this, orders) = (self.clone(), orders.clone());
        let sending = tokio::task::spawn_blocking(move || {
            for order in orders.all() {
                this.send(topic, &order)?;
            }
            this.producer.flush(ANSWER_WITHIN)?;
            let failed = this.producer.context().failed.load(Ordering::Relaxed);
            ensure!(failed == 0, "{failed} orders were not acknowledged");
            Ok(())
        });
        sending.await?
    }
}

/// What has been confirmed.
#[derive(Default)]
struct Seen {
    count: usize,
    last: Option<Instant>,
    failure: Option<String>,
}

/// Reads the confirmations as they come, on a thread of its own.
pub struct Confirmations {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Confirmations {
    /// Those that come from now on.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn from_now(brokers: &str) -> Result<Self> {
        let reader = reader(brokers)?;
        let mut partitions = TopicPartitionList::new();
        for (partition, end) in ends(brokers, REWARD_CONFIRMED)? {
            partitions.add_partition_offset(REWARD_CONFIRMED, partition, Offset::Offset(end))?;
        }
        reader.assign(&partitions)?;
        let (seen, stop) = (
            Arc::new(Mutex::new(Seen::default())),
            CancellationToken::new(),
        );
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), stop.clone());
            move || read(&reader, &seen, &stop)
        });
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until so many have come: when the last of them did.
    ///
    /// # Errors
    /// When they stay away, or more come than these.
    pub async fn reach(&self, wanted: usize, task: Option<&Task>) -> Result<Instant> {
        let (mut before, mut moved) = (0, Instant::now());
        loop {
            let (count, last) = self.look()?;
            match last {
                Some(last) if count == wanted => return Ok(last),
                _ => ensure!(count <= wanted, "{count} confirmations of {wanted} events"),
            }
            if count > before {
                (before, moved) = (count, Instant::now());
                if let Some(task) = task {
                    task.line(&format!("{count} of {wanted} events are confirmed"));
                }
            }
            ensure!(
                moved.elapsed() < STALLED_AFTER,
                "{count} of {wanted} events were confirmed, and no more for {STALLED_AFTER:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Makes sure that there are so many and no more.
    ///
    /// # Errors
    /// When there are more.
    pub async fn none_but(&self, wanted: usize) -> Result<()> {
        tokio::time::sleep(NONE_MORE_WITHIN).await;
        let (count, _) = self.look()?;
        ensure!(count == wanted, "{count} confirmations of {wanted} events");
        Ok(())
    }

    fn look(&self) -> Result<(usize, Option<Instant>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.failure {
            Some(failure) => Err(anyhow!("confirmations cannot be read: {failure}")),
            None => Ok((seen.count, seen.last)),
        }
    }
}

impl Drop for Confirmations {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread that read confirmations panicked");
        }
    }
}

fn read(reader: &BaseConsumer, seen: &Mutex<Seen>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let Some(message) = reader.poll(Duration::from_millis(100)) else {
            continue;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Ok(_) => {
                seen.count += 1;
                seen.last = Some(Instant::now());
            }
            Err(error) => seen.failure = Some(error.to_string()),
        }
    }
}
