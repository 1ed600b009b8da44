//! A batch of requests to redeem on its way: rows first, then their workflows.

use std::{sync::Arc, time::Duration};

use domain::{Command, RedeemRequest, Refusal, RefusalClass};
use store::{
    PgPool,
    redemptions::{Accepted, Origin},
};
use tokio::sync::{Notify, Semaphore};
use tracing::Instrument;

use super::writing::{self, Rows};
use crate::{
    flows::{Flows, RedemptionToStart},
    measures,
    record::Record,
};

/// How many workflows are started at the same time.
const STARTS_AT_A_TIME: usize = 16;
/// How many starts may wait for their turn; beyond that the starter does them later.
const STARTS_WAITING: usize = 2_000;

/// Takes requests to redeem in.
#[derive(Clone)]
pub struct Redeeming {
    pool: PgPool,
    flows: Flows,
    outbox_written: Arc<Notify>,
    starting: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// What became of a batch.
#[derive(Default)]
pub struct Counts {
    new: Vec<RedemptionToStart>,
    same: u32,
    refused: Vec<RefusalClass>,
}

impl Redeeming {
    /// Rows into this database, workflows by these flows.
    pub fn new(pool: PgPool, flows: Flows, outbox_written: Arc<Notify>) -> Self {
        Self {
            pool,
            flows,
            outbox_written,
            starting: Arc::new(Semaphore::new(STARTS_AT_A_TIME)),
            waiting: Arc::new(Semaphore::new(STARTS_WAITING)),
        }
    }

    /// Sees to it that a batch of requests is written. Comes back only then. Their workflows are
    /// started meanwhile; when that fails, the starter finds the rows.
    pub async fn accept(self, records: Vec<Record>) {
        writing::write_all(&self, &records).await;
    }
}

impl Rows for Redeeming {
    type Command = RedeemRequest;
    type Counts = Counts;
    const ONLY: &'static str = "redemptions";

    fn of(command: Command) -> Option<Self::Command> {
        match command {
            Command::Redeem(asked) => Some(asked),
            Command::Award(_) | Command::Notify(_) => None,
        }
    }

    async fn write(
        &self,
        records: &[Record],
        readings: &[Result<RedeemRequest, Refusal>],
    ) -> Result<Counts, store::Error> {
        let requests: Vec<RedeemRequest> = readings
            .iter()
            .filter_map(|reading| reading.as_ref().ok().cloned())
            .collect();
        let mut transaction = store::transaction::begin(&self.pool).await?;
        let answers = if requests.is_empty() {
            Vec::new()
        } else {
            store::redemptions::accept(&mut transaction, &requests, Origin::Kafka).await?
        };
        let mut counts = Counts::default();
        let mut letters = Vec::new();
        let mut answers = answers.into_iter();
        for (record, reading) in records.iter().zip(readings) {
            let refusal = match reading {
                Err(refusal) => refusal.clone(),
                Ok(request) => match answers.next() {
                    Some(Accepted::New) => {
                        counts.new.push(to_start(request));
                        continue;
                    }
                    Some(Accepted::Conflict) => Refusal::new(
                        RefusalClass::BodyConflict,
                        format!(
                            "redeem {} was seen before with another body",
                            request.redeem_request_id
                        ),
                    ),
                    Some(Accepted::Same) | None => {
                        counts.same += 1;
                        continue;
                    }
                },
            };
            counts.refused.push(refusal.class);
            letters.push(record.dead_letter(&refusal));
        }
        store::dead_letters::write(&mut transaction, &letters).await?;
        store::transaction::commit(transaction, "intake").await?;
        Ok(counts)
    }

    fn done(&self, topic: &str, counts: Counts) {
        if !counts.refused.is_empty() {
            self.outbox_written.notify_one();
        }
        let new = u32::try_from(counts.new.len()).unwrap_or(u32::MAX);
        measures::taken_in(topic, new, counts.same, &counts.refused);
        for redemption in counts.new {
            let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
                // Too many wait already; the starter finds the rest.
                return;
            };
            let (flows, starting) = (self.flows.clone(), Arc::clone(&self.starting));
            let start = async move {
                let _waiting = waiting;
                let Ok(_turn) = starting.acquire().await else {
                    return;
                };
                if let Err(error) = flows.start_redeem_once(&redemption).await {
                    let redeem_request_id = redemption.id.as_str();
                    tracing::info!(%error, redeem_request_id, "left to the starter");
                    // Not all of the others at once, when the server is away.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::spawn(start.in_current_span());
        }
    }
}

fn to_start(request: &RedeemRequest) -> RedemptionToStart {
    RedemptionToStart {
        id: request.redeem_request_id.clone(),
        customer: request.customer_id.clone(),
        merchant: request.merchant_id.clone(),
        points: request.points,
        traceparent: None,
    }
}
