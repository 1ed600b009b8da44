//! Messages that become rows without a flow that waits for them: written in one transaction, unless
//! the database refuses some of them.

use chrono::Utc;
use domain::{Command, Refusal, RefusalClass, inbound};

use crate::{award::SAME_WAY_ATTEMPTS, backoff::Backoff, bisection::Bisection, record::Record};

/// What a kind of message becomes.
pub trait Rows {
    /// What a message asks for.
    type Command: Send + Sync;
    /// What became of some of them.
    type Counts: Send;
    /// What alone belongs into the topic, in the words of a refusal.
    const ONLY: &'static str;

    /// What a message asks for, if it is of this kind.
    fn of(command: Command) -> Option<Self::Command>;

    /// Writes what is asked for, and a dead letter for each refusal, in one transaction. There is a
    /// reading for each record.
    fn write(
        &self,
        records: &[Record],
        readings: &[Result<Self::Command, Refusal>],
    ) -> impl Future<Output = Result<Self::Counts, store::Error>> + Send;

    /// It is committed.
    fn done(&self, topic: &str, counts: Self::Counts);
}

/// Sees to it that all of a batch is written: comes back only then. What cannot be read and what the
/// database refuses goes to the dead letters alone.
pub async fn write_all<R: Rows + Sync>(rows: &R, records: &[Record]) {
    let now = Utc::now();
    let read = |record: &Record| {
        inbound::read(&record.as_message(), now)?
            .and_then(R::of)
            .ok_or_else(|| {
                Refusal::new(
                    RefusalClass::UnknownEventType,
                    format!("only {} belong into this topic", R::ONLY),
                )
            })
    };
    let mut readings: Vec<Result<R::Command, Refusal>> = records.iter().map(read).collect();
    let mut backoff = Backoff::short();
    let mut plan = Bisection::new(records.len());
    let mut same_way = 0;
    while let Some(part) = plan.next_part() {
        match rows
            .write(&records[part.clone()], &readings[part.clone()])
            .await
        {
            Ok(counts) => {
                plan.posted();
                same_way = 0;
                backoff.reset();
                rows.done(&records[part.start].topic, counts);
            }
            Err(error) if is_theirs(&error, &mut same_way) => {
                same_way = 0;
                let topic = &records[part.start].topic;
                tracing::warn!(%error, %topic, ?part, "some messages were refused");
                if let Some(offender) = plan.refused() {
                    let refusal = Refusal::new(RefusalClass::DataError, error.to_string());
                    readings[offender] = Err(refusal);
                    let one = offender..offender + 1;
                    insist(rows, &records[one.clone()], &readings[one]).await;
                }
            }
            Err(error) => {
                let topic = &records[part.start].topic;
                tracing::warn!(%error, %topic, "messages are not written yet");
                backoff.pause().await;
            }
        }
    }
}

/// Writes what nothing but an outage can stop.
async fn insist<R: Rows + Sync>(
    rows: &R,
    records: &[Record],
    readings: &[Result<R::Command, Refusal>],
) {
    let mut backoff = Backoff::short();
    loop {
        match rows.write(records, readings).await {
            Ok(counts) => return rows.done(&records[0].topic, counts),
            Err(error) => {
                tracing::warn!(%error, "a dead letter is not written yet");
                backoff.pause().await;
            }
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
