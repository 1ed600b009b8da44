//! The intake: messages from Kafka, in batches, into flows.
//!
//! Per partition what waits becomes one batch, one batch is in flight, and the offset is committed
//! when the batch is done. The partitions give the parallelism.

mod assignment;
mod awarding;
mod buffer;
mod lane;
mod notifying;
mod redeeming;
mod writing;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use domain::inbound::topic;
use faultpoint::bug;
use futures::FutureExt;
use rdkafka::{
    Message as _,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::{Offset, TopicPartitionList},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use assignment::IntakeHealth;
use assignment::{Assignment, Change};
pub use buffer::BatchBuffer;
pub use lane::BatchLimits;
use lane::{Flow, Lane};
pub use notifying::Notifying;
pub use redeeming::Redeeming;

use crate::{flows::Flows, kafka::Kafka, measures, record::Record, traces};

/// How many messages are taken from the consumer before anything else is looked at.
const MESSAGES_AT_A_TIME: usize = 1_000;
/// The consumer is asked at least so often, also if nothing says that it has something.
const ASK_AGAIN_EVERY: Duration = Duration::from_millis(200);
/// How long batches in flight may take to finish when the process is told to stop.
const DRAIN_SECONDS: u64 = 10;

/// What the intake needs.
pub struct Intake {
    /// Where the messages are.
    pub kafka: Kafka,
    /// Starts the award batches.
    pub flows: Flows,
    /// Where the posting activity finds them.
    pub buffer: Arc<BatchBuffer>,
    /// Takes the requests to redeem.
    pub redeeming: Redeeming,
    /// Takes the notifications.
    pub notifying: Notifying,
    /// How large batches may be.
    pub limits: BatchLimits,
    /// How many award batches may be in flight over all partitions. More of them only wait for
    /// each other's customers.
    pub awards_at_a_time: usize,
    /// Told whether messages can come in.
    pub health: Arc<IntakeHealth>,
}

/// A batch that is done.
struct Done {
    topic: Arc<str>,
    partition: i32,
    epoch: u64,
    last_offset: i64,
}

struct AssignedLane {
    lane: Lane,
    running: Option<AbortHandle>,
}

/// The intake at work.
struct Run {
    intake: Intake,
    consumer: StreamConsumer<Assignment>,
    lanes: HashMap<Arc<str>, BTreeMap<i32, AssignedLane>>,
    in_flight: JoinSet<Done>,
    /// Free places for award batches.
    places: Arc<Semaphore>,
    /// Partitions whose next award batch waits for its turn, first come first served.
    line: VecDeque<(Arc<str>, i32)>,
    epoch: u64,
}

impl Intake {
    /// Takes messages in until told to stop; then lets the batches in flight finish, commits
    /// their offsets and leaves the group.
    ///
    /// # Errors
    /// When a Kafka property is unknown or invalid, or a batch could not be worked on at all.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let assignment = Assignment::new(Arc::clone(&self.health));
        let consumer: StreamConsumer<Assignment> = self.kafka.intake_consumer(assignment)?;
        consumer.subscribe(&topic::ALL)?;
        let mut run = Run {
            places: Arc::new(Semaphore::new(self.awards_at_a_time)),
            intake: self,
            consumer,
            lanes: HashMap::new(),
            in_flight: JoinSet::new(),
            line: VecDeque::new(),
            epoch: 0,
        };
        let outcome = run.take_in(&stop).await;
        run.drain().await;
        // Closing the consumer waits for the group, so it must not hold up the runtime.
        if tokio::task::spawn_blocking(move || drop(run.consumer))
            .await
            .is_err()
        {
            tracing::warn!("the consumer did not close cleanly");
        }
        outcome
    }
}

impl Run {
    async fn take_in(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let served = self.consumer.context().served();
        let mut again = tokio::time::interval(ASK_AGAIN_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = served.notified() => {}
                _ = again.tick() => {}
                Some(done) = self.in_flight.join_next(), if !self.in_flight.is_empty() => {
                    match done {
                        Ok(done) => self.complete(&done),
                        Err(error) if error.is_panic() => {
                            return Err(error).context("a batch could not be worked on");
                        }
                        // Its partition was revoked.
                        Err(_) => {}
                    }
                    self.dispatch_line();
                }
                received = self.consumer.recv() => {
                    let received = received.map(|message| self.copy(&message));
                    self.receive(received);
                    self.receive_what_is_there();
                }
            }
            self.follow_changes();
        }
    }

    /// Takes what the consumer has ready, without waiting for more.
    fn receive_what_is_there(&mut self) {
        for _ in 1..MESSAGES_AT_A_TIME {
            let Some(received) = self.consumer.recv().now_or_never() else {
                break;
            };
            let received = received.map(|message| self.copy(&message));
            self.receive(received);
        }
        // Only now, so that what came together goes together.
        let ready: Vec<(Arc<str>, i32)> = self
            .lanes
            .iter_mut()
            .flat_map(|(topic, lanes)| lanes.iter_mut().map(move |(p, a)| (topic, *p, a)))
            .filter_map(|(topic, p, a)| a.lane.get_in_line().then(|| (Arc::clone(topic), p)))
            .collect();
        for (topic, partition) in ready {
            self.line_up(topic, partition);
        }
        self.dispatch_line();
    }

    /// What becomes rows goes at once: it must not wait behind awards that Temporal's absence holds
    /// up. Award batches wait for their turn.
    fn line_up(&mut self, topic: Arc<str>, partition: i32) {
        if [topic::REDEEM_EVENTS, topic::NOTIFICATIONS].contains(&&*topic) {
            self.dispatch(&topic, partition, None);
        } else {
            self.line.push_back((topic, partition));
        }
    }

    fn dispatch_line(&mut self) {
        while !self.line.is_empty() {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                return;
            };
            let Some((topic, partition)) = self.line.pop_front() else {
                return;
            };
            self.dispatch(&topic, partition, Some(place));
        }
    }

    fn copy(&self, message: &BorrowedMessage<'_>) -> Record {
        let topic = self.lanes.get_key_value(message.topic()).map_or_else(
            || Arc::from(message.topic()),
            |(topic, _)| Arc::clone(topic),
        );
        Record::of(message, topic)
    }

    fn receive(&mut self, received: KafkaResult<Record>) {
        // A change comes before the messages that follow it.
        self.follow_changes();
        match received {
            Ok(record) => {
                let (topic, partition) = (Arc::clone(&record.topic), record.partition);
                let Some(assigned) = self
                    .lanes
                    .get_mut(&topic)
                    .and_then(|lanes| lanes.get_mut(&partition))
                else {
                    tracing::debug!(%topic, partition, "a message of a partition that is not ours");
                    return;
                };
                let flow = assigned.lane.push(record);
                self.tell_consumer(flow, &topic, partition);
            }
            // The client logs it too, and goes on by itself when it can.
            Err(error) => tracing::debug!(%error, "the intake cannot read"),
        }
    }

    fn follow_changes(&mut self) {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Assigned(partitions) => {
                    self.epoch += 1;
                    tracing::info!(?partitions, "partitions assigned");
                    for (topic, partition) in partitions {
                        let topic: Arc<str> = Arc::from(topic);
                        let lane = Lane::new(self.epoch, self.intake.limits);
                        self.lanes.entry(Arc::clone(&topic)).or_default().insert(
                            partition,
                            AssignedLane {
                                lane,
                                running: None,
                            },
                        );
                        // It may have been paused when it was ours before.
                        self.tell_consumer(Flow::Resume, &topic, partition);
                    }
                }
                Change::Revoked(partitions) => {
                    tracing::info!(?partitions, "partitions revoked");
                    for (topic, partition) in partitions {
                        // Whoever has it now says what it has to.
                        measures::lag(&topic, partition, 0);
                        let lanes = self.lanes.get_mut(topic.as_str());
                        let assigned = lanes.and_then(|lanes| lanes.remove(&partition));
                        if let Some(running) = assigned.and_then(|assigned| assigned.running) {
                            running.abort();
                        }
                    }
                }
            }
        }
        measures::batches_in_flight(self.in_flight.len());
    }

    fn tell_consumer(&self, flow: Flow, topic: &str, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let told = match flow {
            Flow::Unchanged => return,
            Flow::Pause => self.consumer.pause(&list),
            Flow::Resume => self.consumer.resume(&list),
        };
        if let Err(error) = told {
            tracing::warn!(%error, topic, partition, ?flow, "the consumer did not follow");
        }
    }

    /// Sends the partition's next batch off, if there is one and none is in flight. An award batch
    /// keeps its place until it ends, whichever way.
    fn dispatch(&mut self, topic: &Arc<str>, partition: i32, place: Option<OwnedSemaphorePermit>) {
        let Some(assigned) = self
            .lanes
            .get_mut(topic)
            .and_then(|lanes| lanes.get_mut(&partition))
        else {
            return;
        };
        let Some(records) = assigned.lane.next_batch() else {
            return;
        };
        let Some(last_offset) = records.last().map(|record| record.offset) else {
            return;
        };
        measures::batch_begins(records.len());
        let done = Done {
            topic: Arc::clone(topic),
            partition,
            epoch: assigned.lane.epoch(),
            last_offset,
        };
        let flows = self.intake.flows.clone();
        let buffer = Arc::clone(&self.intake.buffer);
        let redeeming = self.intake.redeeming.clone();
        let headers = records.iter().map(|record| &record.headers[..]);
        let first_offset = records.first().map_or(0, |record| record.offset);
        let group = self.intake.kafka.group();
        let span = traces::process(topic, partition, first_offset, group, headers);
        let notifying = self.intake.notifying.clone();
        let work = async move {
            match place {
                Some(_place) => awarding::award(flows, buffer, records).await,
                None if *done.topic == *topic::NOTIFICATIONS => notifying.accept(records).await,
                None => redeeming.accept(records).await,
            }
            done
        };
        let running = self.in_flight.spawn(work.instrument(span));
        assigned.running = Some(running);
        let flow = assigned.lane.relieve();
        self.tell_consumer(flow, topic, partition);
        if faultpoint::planted(bug::OFFSET_ORDER) {
            self.commit(topic, partition, last_offset + 1);
            let _ = self.consumer.commit_consumer_state(CommitMode::Sync);
        }
    }

    /// Has a finished batch committed and sends the next one off.
    fn complete(&mut self, done: &Done) {
        // A rebalance that the consumer has already told of comes first.
        self.follow_changes();
        if let Some(offset) = self.finish(done) {
            self.commit(&done.topic, done.partition, offset);
            let lanes = self.lanes.get_mut(&done.topic);
            let assigned = lanes.and_then(|lanes| lanes.get_mut(&done.partition));
            if assigned.is_some_and(|assigned| assigned.lane.get_in_line()) {
                self.line_up(Arc::clone(&done.topic), done.partition);
            }
        }
    }

    /// The offset that a finished batch allows to commit, if its partition is still ours.
    fn finish(&mut self, done: &Done) -> Option<i64> {
        let assigned = self.lanes.get_mut(&done.topic)?.get_mut(&done.partition)?;
        let offset = assigned.lane.complete(done.epoch, done.last_offset)?;
        assigned.running = None;
        Some(offset)
    }

    /// Hands the offset to the consumer, which commits it a moment later with those of other
    /// partitions, and again until that succeeds.
    fn commit(&self, topic: &str, partition: i32, offset: i64) {
        faultpoint::reach("offset", "before-commit");
        let mut list = TopicPartitionList::new();
        let stored = list
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.store_offsets(&list));
        if let Err(error) = stored {
            // The messages come again, which changes nothing.
            tracing::warn!(%error, topic, partition, offset, "an offset was not taken");
        }
    }

    async fn drain(&mut self) {
        let under_way = self.in_flight.len();
        tracing::info!(under_way, "the intake stops; batches in flight may finish");
        let finished = tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS), async {
            while let Some(done) = self.in_flight.join_next().await {
                if let Ok(done) = done
                    && let Some(offset) = self.finish(&done)
                {
                    self.commit(&done.topic, done.partition, offset);
                }
            }
        });
        if finished.await.is_err() {
            let left = self.in_flight.len();
            tracing::warn!(left, "batches that did not finish will be read again");
            self.in_flight.abort_all();
        }
        let committed =
            tokio::task::block_in_place(|| self.consumer.commit_consumer_state(CommitMode::Sync));
        match committed {
            // There may be nothing new to commit.
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => tracing::warn!(%error, "offsets were not committed"),
        }
        self.consumer.unsubscribe();
    }
}
