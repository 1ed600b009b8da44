//! A batch of requests to redeem on its way: rows first, then their workflows.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use domain::{Command, RedeemRequest, Refusal, RefusalClass, inbound};
use store::{
    PgPool,
    redemptions::{Accepted, Origin},
};
use tokio::sync::{Notify, Semaphore};

use crate::{
    award::SAME_WAY_ATTEMPTS,
    backoff::Backoff,
    bisection::Bisection,
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

#[derive(Default)]
struct Counts {
    new: Vec<RedemptionToStart>,
    same: u32,
    refused: u32,
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
        let now = Utc::now();
        let mut readings: Vec<Result<RedeemRequest, Refusal>> = records
            .iter()
            .map(|record| match inbound::read(&record.as_message(), now)? {
                Some(Command::Redeem(request)) => Ok(request),
                Some(Command::Award(_)) | None => Err(Refusal::new(
                    RefusalClass::UnknownEventType,
                    "only redemptions belong into this topic",
                )),
            })
            .collect();
        let mut backoff = Backoff::short();
        let mut plan = Bisection::new(records.len());
        let mut same_way = 0;
        while let Some(part) = plan.next_part() {
            match self
                .write(&records[part.clone()], &readings[part.clone()])
                .await
            {
                Ok(counts) => {
                    plan.posted();
                    same_way = 0;
                    backoff.reset();
                    self.done(&records[part.start].topic, counts);
                }
                Err(error) if is_theirs(&error, &mut same_way) => {
                    same_way = 0;
                    tracing::warn!(%error, ?part, "some requests to redeem were refused");
                    if let Some(offender) = plan.refused() {
                        let refusal = Refusal::new(RefusalClass::DataError, error.to_string());
                        readings[offender] = Err(refusal);
                        let one = offender..offender + 1;
                        self.insist(&records[one.clone()], &readings[one]).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "requests to redeem are not written yet");
                    backoff.pause().await;
                }
            }
        }
    }

    /// Writes what nothing but an outage can stop.
    async fn insist(&self, records: &[Record], readings: &[Result<RedeemRequest, Refusal>]) {
        let mut backoff = Backoff::short();
        loop {
            match self.write(records, readings).await {
                Ok(counts) => return self.done(&records[0].topic, counts),
                Err(error) => {
                    tracing::warn!(%error, "a dead letter is not written yet");
                    backoff.pause().await;
                }
            }
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
        let mut transaction = store::ledger::begin(&self.pool).await?;
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
            counts.refused += 1;
            letters.push(record.dead_letter(&refusal));
        }
        store::dead_letters::write(&mut transaction, &letters).await?;
        store::ledger::commit(transaction, "intake").await?;
        Ok(counts)
    }

    fn done(&self, topic: &str, counts: Counts) {
        if counts.refused > 0 {
            self.outbox_written.notify_one();
        }
        let new = u32::try_from(counts.new.len()).unwrap_or(u32::MAX);
        measures::redemptions_accepted(topic, new, counts.same, counts.refused);
        for redemption in counts.new {
            let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
                // Too many wait already; the starter finds the rest.
                return;
            };
            let (flows, starting) = (self.flows.clone(), Arc::clone(&self.starting));
            tokio::spawn(async move {
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
            });
        }
    }
}

/// Whether a failure is the messages' own: the database refuses the data, or neither it nor this
/// program's schema is at fault and it has been met often enough in a row.
fn is_theirs(error: &store::Error, same_way: &mut u32) -> bool {
    if error.is_retryable() || error.is_schema_fault() {
        *same_way = 0;
        return false;
    }
    *same_way += 1;
    error.is_data() || *same_way >= SAME_WAY_ATTEMPTS
}

fn to_start(request: &RedeemRequest) -> RedemptionToStart {
    RedemptionToStart {
        id: request.redeem_request_id.clone(),
        customer: request.customer_id.clone(),
        merchant: request.merchant_id.clone(),
        points: request.points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_the_messages_own_and_an_outage_never_is() {
        let strange = store::Error::Inconsistent("strange".to_owned());
        let mut same_way = 0;
        let verdicts = [
            &strange,
            &strange,
            &store::Error::Raced,
            &strange,
            &strange,
            &strange,
        ]
        .map(|error| is_theirs(error, &mut same_way));
        assert_eq!(verdicts, [false, false, false, false, false, true]);
    }
}
