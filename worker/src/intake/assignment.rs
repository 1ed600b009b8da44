//! What the consumer group tells this process, passed on from the consumer's callbacks.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientContext, Statistics,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};

use tokio::sync::Notify;

use crate::measures;

/// Partitions by topic and number.
pub type Partitions = Vec<(String, i32)>;

/// A change that the intake has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These partitions are ours from now on.
    Assigned(Partitions),
    /// These are not ours any more.
    Revoked(Partitions),
}

/// Whether messages can come in, for the readiness check.
#[derive(Debug, Default)]
pub struct IntakeHealth {
    assigned: AtomicBool,
    out_of_reach: AtomicBool,
}

impl IntakeHealth {
    /// Whether the group has given this process its partitions and a broker answers.
    pub fn is_ready(&self) -> bool {
        self.assigned.load(Ordering::Relaxed) && !self.out_of_reach.load(Ordering::Relaxed)
    }
}

/// The consumer's callbacks. They run while the intake polls, so that a change is always seen
/// before the first message that follows it.
pub struct Assignment {
    changes: Arc<Mutex<Vec<Change>>>,
    health: Arc<IntakeHealth>,
    served: Arc<Notify>,
}

impl Assignment {
    /// Callbacks that report to this health.
    pub fn new(health: Arc<IntakeHealth>) -> Self {
        Self {
            changes: Arc::default(),
            health,
            served: Arc::default(),
        }
    }

    /// Told when something other than a message was taken from the consumer's queue. Its stream
    /// then waits although the queue may hold more, and is woken only when an empty queue fills
    /// (rdkafka 0.39, `EventConsumed`), so it has to be asked again.
    pub fn served(&self) -> Arc<Notify> {
        Arc::clone(&self.served)
    }

    /// The changes since the last time, oldest first.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, change: Change) {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(change);
    }
}

fn partitions(list: &TopicPartitionList) -> Partitions {
    list.elements()
        .iter()
        .map(|e| (e.topic().to_owned(), e.partition()))
        .collect()
}

impl ClientContext for Assignment {
    fn stats(&self, statistics: Statistics) {
        self.served.notify_one();
        if statistics
            .brokers
            .values()
            .any(|broker| broker.state == "UP")
        {
            self.health.out_of_reach.store(false, Ordering::Relaxed);
        }
        for (topic, statistics) in &statistics.topics {
            for (number, partition) in &statistics.partitions {
                if *number >= 0 && partition.consumer_lag >= 0 {
                    measures::lag(topic, *number, partition.consumer_lag);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.notify_one();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.out_of_reach.store(true, Ordering::Relaxed);
        }
        tracing::debug!(%error, reason, "Kafka reports");
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.served.notify_one();
        match rebalance {
            Rebalance::Revoke(list) => self.tell(Change::Revoked(partitions(list))),
            Rebalance::Assign(list) => {
                self.tell(Change::Assigned(partitions(list)));
                self.health.assigned.store(true, Ordering::Relaxed);
                self.health.out_of_reach.store(false, Ordering::Relaxed);
            }
            Rebalance::Error(error) => tracing::error!(%error, "the consumer group reports"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.served.notify_one();
        if let Err(error) = result {
            tracing::warn!(%error, "offsets were not committed yet");
        } else {
            faultpoint::reach("offset", "after-commit");
        }
    }
}
