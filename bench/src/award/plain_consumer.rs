//! What one would write without Temporal: a consumer that posts each event in a transaction of its
//! own, confirms it and commits its offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use domain::Programme;
use futures::future::try_join_all;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::json;
use sqlx::PgPool;
use stack::Progress;
use tokio::runtime::Handle;

use super::kafka::{self, Producer};
use super::ledger_alone::post;
use super::orders::{self, Orders};
use super::{Run, per_second};
use crate::system::System;

const EVENTS: &str = "bench.events";
const CONFIRMATIONS: &str = "bench.confirmations";
/// How long whoever sends many events waits for more of them.
const LINGER: Duration = Duration::from_millis(5);
/// How long no event may come before something must be wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// What each partition's consumer has.
#[derive(Clone)]
struct Desk {
    pool: PgPool,
    programme: Arc<Programme>,
    confirmations: FutureProducer,
    done: Arc<AtomicUsize>,
    wanted: usize,
}

/// Sends orders to a topic of its own and works on its partitions side by side, until each is
/// posted, confirmed and acknowledged.
///
/// # Errors
/// When one is not.
pub async fn measure(
    system: &System,
    programme: &Arc<Programme>,
    orders: &Orders,
    partitions: usize,
) -> Result<Run> {
    let task = Progress::shown().task("(b) a plain consumer, one transaction per event");
    let brokers = &system.brokers;
    kafka::create_topics(brokers, &[EVENTS, CONFIRMATIONS], partitions).await?;
    let desk = Desk {
        pool: system.pool.clone(),
        programme: Arc::clone(programme),
        confirmations: kafka::client(brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()?,
        done: Arc::default(),
        wanted: orders.count,
    };
    let ends = tokio::task::block_in_place(|| kafka::ends(brokers, EVENTS))?;
    let mut consumers = Vec::new();
    for (partition, end) in ends {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(EVENTS, partition, Offset::Offset(end))?;
        let consumer = kafka::reader(brokers)?;
        consumer.assign(&partitions)?;
        consumers.push(consumer);
    }
    let producer = Producer::new(brokers, LINGER)?;
    let watching = system.watch()?;
    let began = Instant::now();
    let consumers = consumers.into_iter().map(|consumer| {
        let desk = desk.clone();
        tokio::task::spawn_blocking(move || desk.work(&consumer, &Handle::current()))
    });
    let working = async { try_join_all(consumers).await.context("a consumer panicked") };
    let ((), ended) = tokio::try_join!(producer.send_all(EVENTS, orders), working)?;
    let ended: Vec<Option<Instant>> = ended.into_iter().collect::<Result<_>>()?;
    let last = ended.into_iter().flatten().max().context("no event came")?;
    let (uses, _) = watching.stop(orders.count);
    let done = desk.done.load(Ordering::Relaxed);
    ensure!(
        done == orders.count,
        "{done} of {} events were posted",
        orders.count
    );
    let per_second = per_second(orders.count, last - began);
    task.done(&format!("{per_second:.0} events/s"));
    Ok(Run { per_second, uses })
}

impl Desk {
    /// Works on one partition until all events of all are done: when its last one was.
    fn work(&self, consumer: &BaseConsumer, runtime: &Handle) -> Result<Option<Instant>> {
        let (mut last, mut moved) = (None, Instant::now());
        while self.done.load(Ordering::Relaxed) < self.wanted {
            ensure!(
                moved.elapsed() < STALLED_AFTER,
                "no event for {STALLED_AFTER:?}"
            );
            let Some(message) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let message = message?;
            let body = message.payload().context("an event without a body")?;
            runtime.block_on(self.award(body))?;
            consumer.commit_message(&message, CommitMode::Async)?;
            self.done.fetch_add(1, Ordering::Relaxed);
            moved = Instant::now();
            last = Some(moved);
        }
        Ok(last)
    }

    async fn award(&self, event: &[u8]) -> Result<()> {
        let award = orders::read(event)?;
        let id = award.event_id.to_string();
        let customer = award.customer_id.to_string();
        post(
            &self.pool,
            &self.programme,
            "bench/plain-consumer",
            &[award],
        )
        .await?;
        let body = json!({ "customerId": customer, "sourceEventId": id }).to_string();
        let record = FutureRecord::to(CONFIRMATIONS)
            .key(&customer)
            .payload(&body);
        let sent = self.confirmations.send(record, Timeout::Never).await;
        sent.map_err(|(error, _)| error)
            .context("a confirmation is not sent")?;
        Ok(())
    }
}
