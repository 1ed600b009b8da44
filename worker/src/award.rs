//! The step behind an award batch: messages become ledger entries, or dead letters.

use std::{sync::Arc, time::Duration};

use activities::activity_error;
use boot::LiveProgramme;
use chrono::Utc;
use domain::{
    Award, Command, CustomerId, PromotionType, Refusal, RefusalClass, SourceKind, inbound,
};
use store::{PgConnection, PgPool, ledger::Posting};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::sync::Notify;
use workflows::contract::{BatchOutcome, MessageRange, definition};

use crate::{
    bisection::Bisection,
    intake::BatchBuffer,
    kafka::{Kafka, RangeError},
    measures,
    record::Record,
};

/// How often a failure that is neither the data's nor the connection's fault is met with the same
/// messages before it counts as theirs.
pub const SAME_WAY_ATTEMPTS: u32 = 3;
/// The pause between those attempts.
const SAME_WAY_PAUSE: Duration = Duration::from_millis(50);
/// How many refusals a workflow's history tells in words.
const REFUSALS_TOLD: usize = 5;

/// Posts batches of awards.
pub struct AwardPosting {
    /// The ledger.
    pub pool: PgPool,
    /// The rules.
    pub programme: Arc<LiveProgramme>,
    /// The messages of this process's intake.
    pub buffer: Arc<BatchBuffer>,
    /// Where to read the messages of another process's intake.
    pub kafka: Kafka,
    /// Wakes the relay.
    pub outbox_written: Arc<Notify>,
    /// The type of the promotion that is assigned to whoever registers.
    pub welcome_type: PromotionType,
}

/// What a message is, once read.
enum Reading {
    /// The next of the batch's awards.
    Award,
    /// Of no use to Meed.
    Ignored,
    /// A dead letter.
    Refused(Refusal),
}

/// A batch, read: awards lie apart, in order, because the ledger takes them together.
struct Batch<'a> {
    records: &'a [Record],
    readings: Vec<Reading>,
    awards: Vec<Award>,
}

impl<'a> Batch<'a> {
    fn read(records: &'a [Record]) -> Self {
        let now = Utc::now();
        let mut awards = Vec::with_capacity(records.len());
        let readings = records
            .iter()
            .map(|record| match inbound::read(&record.as_message(), now) {
                Ok(Some(Command::Award(award))) => {
                    awards.push(award);
                    Reading::Award
                }
                Ok(None) => Reading::Ignored,
                Ok(Some(Command::Redeem(_) | Command::Notify(_))) => {
                    Reading::Refused(Refusal::new(
                        RefusalClass::UnknownEventType,
                        "only events belong into this topic",
                    ))
                }
                Err(refusal) => Reading::Refused(refusal),
            })
            .collect();
        Self {
            records,
            readings,
            awards,
        }
    }

    /// The awards among the messages of a part.
    fn awards_of(&self, part: &std::ops::Range<usize>) -> &[Award] {
        let count = |readings: &[Reading]| {
            readings
                .iter()
                .filter(|reading| matches!(reading, Reading::Award))
                .count()
        };
        let before = count(&self.readings[..part.start]);
        &self.awards[before..before + count(&self.readings[part.clone()])]
    }
}

#[activities]
impl AwardPosting {
    /// Posts every event of the range and sends each refused one to the dead letters.
    #[activity(definition = definition::PostBatch)]
    pub async fn post_batch(
        self: Arc<Self>,
        _ctx: ActivityContext,
        range: MessageRange,
    ) -> Result<BatchOutcome, ActivityError> {
        let records = self.records(&range).await?;
        let workflow_id = workflows::id::award(&range);
        self.post(&workflow_id, &records).await.map_err(|error| {
            tracing::warn!(%error, workflow_id, "the batch is not posted yet");
            activity_error(error)
        })
    }
}

impl AwardPosting {
    async fn records(&self, range: &MessageRange) -> Result<Arc<[Record]>, ActivityError> {
        if let Some(records) = self.buffer.get(range) {
            return Ok(records);
        }
        match self.kafka.read_again(range.clone()).await {
            Ok(records) => Ok(records.into()),
            Err(error) => {
                let vanished = matches!(error, RangeError::Vanished { .. });
                tracing::error!(%error, "the range cannot be read");
                let name = if vanished {
                    "RangeVanished"
                } else {
                    "KafkaUnavailable"
                };
                Err(ActivityError::application(
                    ApplicationFailure::builder(error)
                        .type_name(name.to_owned())
                        .non_retryable(vanished)
                        .build(),
                ))
            }
        }
    }

    /// Posts a batch: in one transaction, unless the database refuses some of it.
    async fn post(
        &self,
        workflow_id: &str,
        records: &[Record],
    ) -> Result<BatchOutcome, store::Error> {
        let mut batch = Batch::read(records);
        let mut outcome = BatchOutcome::default();
        let mut plan = Bisection::new(records.len());
        while let Some(part) = plan.next_part() {
            match self.post_part(workflow_id, &batch, &part).await {
                Ok(posted) => {
                    add(&mut outcome, posted);
                    plan.posted();
                }
                Err(error) if error.is_retryable() || error.is_schema_fault() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, workflow_id, ?part, "a part of the batch was refused");
                    let Some(offender) = plan.refused() else {
                        continue;
                    };
                    let refusal = Refusal::new(RefusalClass::DataError, error.to_string());
                    refuse(&mut batch, offender, refusal);
                    let one = offender..offender + 1;
                    add(
                        &mut outcome,
                        self.post_part(workflow_id, &batch, &one).await?,
                    );
                }
            }
        }
        self.outbox_written.notify_one();
        measures::batch_posted(records, &outcome);
        Ok(outcome)
    }

    /// Posts some messages in one transaction, again where that can help.
    async fn post_part(
        &self,
        workflow_id: &str,
        batch: &Batch<'_>,
        part: &std::ops::Range<usize>,
    ) -> Result<BatchOutcome, store::Error> {
        let mut attempt = 1;
        loop {
            match self.post_once(workflow_id, batch, part).await {
                Err(store::Error::Raced) if attempt < SAME_WAY_ATTEMPTS => {}
                Err(error)
                    if attempt < SAME_WAY_ATTEMPTS
                        && !error.is_retryable()
                        && !error.is_data()
                        && !error.is_schema_fault() =>
                {
                    tracing::warn!(%error, workflow_id, attempt, "posting is tried again");
                    tokio::time::sleep(SAME_WAY_PAUSE).await;
                }
                result => return result,
            }
            attempt += 1;
        }
    }

    async fn post_once(
        &self,
        workflow_id: &str,
        batch: &Batch<'_>,
        part: &std::ops::Range<usize>,
    ) -> Result<BatchOutcome, store::Error> {
        let programme = self.programme.current();
        let mut transaction = store::transaction::begin(&self.pool).await?;
        let awards = batch.awards_of(part);
        let postings =
            store::ledger::post_awards(&mut transaction, &programme, workflow_id, awards).await?;
        if postings.len() != awards.len() {
            let (got, asked) = (postings.len(), awards.len());
            return Err(store::Error::Inconsistent(format!(
                "{got} postings for {asked} awards"
            )));
        }
        self.welcome(&mut transaction, awards, &postings).await?;
        let mut outcome = BatchOutcome::default();
        let mut letters = Vec::new();
        let mut awarded = Vec::new();
        let mut refused = |outcome: &mut BatchOutcome, record: &Record, refusal: &Refusal| {
            *outcome
                .refused
                .entry(refusal.class.as_str().to_owned())
                .or_default() += 1;
            if outcome.refusals.len() < REFUSALS_TOLD {
                outcome
                    .refusals
                    .push(format!("offset {}: {refusal}", record.offset));
            }
            letters.push(record.dead_letter(refusal));
        };
        let mut postings = postings.into_iter();
        for index in part.clone() {
            let record = &batch.records[index];
            match &batch.readings[index] {
                Reading::Ignored => outcome.ignored += 1,
                Reading::Refused(refusal) => refused(&mut outcome, record, refusal),
                Reading::Award => match postings.next() {
                    Some(Posting::Posted(points)) => {
                        outcome.posted += 1;
                        outcome.points = outcome.points.saturating_add(points.get());
                        awarded.push(points);
                    }
                    Some(Posting::Refused(refusal)) => refused(&mut outcome, record, &refusal),
                    Some(Posting::Duplicate) | None => outcome.duplicates += 1,
                },
            }
        }
        store::dead_letters::write(&mut transaction, &letters).await?;
        store::transaction::commit(transaction, "award").await?;
        measures::points_awarded(&awarded, programme.version());
        Ok(outcome)
    }

    /// Assigns the active welcome promotion to those whose registration is posted now. A batch
    /// without registrations asks the database nothing.
    async fn welcome(
        &self,
        conn: &mut PgConnection,
        awards: &[Award],
        postings: &[Posting],
    ) -> Result<(), store::Error> {
        let registered: Vec<&CustomerId> = awards
            .iter()
            .zip(postings)
            .filter(|(award, posting)| {
                award.source == SourceKind::PlayerRegistered
                    && matches!(posting, Posting::Posted(_))
            })
            .map(|(award, _)| &award.customer_id)
            .collect();
        if registered.is_empty() {
            return Ok(());
        }
        store::assignments::welcome(conn, &self.welcome_type, &registered).await?;
        Ok(())
    }
}

/// Takes a message out of the awards and makes it a dead letter.
fn refuse(batch: &mut Batch<'_>, index: usize, refusal: Refusal) {
    if matches!(batch.readings[index], Reading::Award) {
        let place = batch.readings[..index]
            .iter()
            .filter(|r| matches!(r, Reading::Award))
            .count();
        batch.awards.remove(place);
    }
    batch.readings[index] = Reading::Refused(refusal);
}

fn add(sum: &mut BatchOutcome, part: BatchOutcome) {
    sum.posted += part.posted;
    sum.points = sum.points.saturating_add(part.points);
    sum.duplicates += part.duplicates;
    sum.ignored += part.ignored;
    for (class, count) in part.refused {
        *sum.refused.entry(class).or_default() += count;
    }
    sum.refusals.extend(part.refusals);
    sum.refusals.truncate(REFUSALS_TOLD);
}

#[cfg(test)]
mod tests {
    use boot::settings::KafkaSettings;

    use super::*;
    use crate::record::tests::record;

    fn order(offset: i64, value: &str) -> Record {
        Record {
            value: Some(value.as_bytes().to_vec()),
            ..record(offset)
        }
    }

    fn records() -> Vec<Record> {
        vec![
            order(0, r#"{"customerId":"C0","amount":100}"#),
            order(1, "not json"),
            order(2, r#"{"customerId":"C2","amount":100}"#),
            order(3, r#"{"customerId":"C3","amount":100}"#),
        ]
    }

    fn customers(awards: &[Award]) -> Vec<&str> {
        awards
            .iter()
            .map(|award| award.customer_id.as_str())
            .collect()
    }

    #[test]
    fn a_part_has_the_awards_of_its_messages() {
        let records = records();
        let batch = Batch::read(&records);
        assert_eq!(customers(batch.awards_of(&(0..4))), ["C0", "C2", "C3"]);
        assert_eq!(customers(batch.awards_of(&(1..3))), ["C2"]);
        assert_eq!(customers(batch.awards_of(&(1..2))), Vec::<&str>::new());
        assert_eq!(customers(batch.awards_of(&(3..4))), ["C3"]);
    }

    #[test]
    fn a_refused_message_leaves_the_awards_and_the_others_stay() {
        let records = records();
        let mut batch = Batch::read(&records);
        refuse(
            &mut batch,
            2,
            Refusal::new(RefusalClass::DataError, "said the database"),
        );
        assert_eq!(customers(batch.awards_of(&(0..4))), ["C0", "C3"]);
        assert!(batch.awards_of(&(2..3)).is_empty());
        assert_eq!(customers(batch.awards_of(&(3..4))), ["C3"]);
    }

    #[test]
    fn outcomes_add_up_and_stay_small() {
        let part = |class: &str| BatchOutcome {
            posted: 1,
            points: 10,
            duplicates: 2,
            ignored: 3,
            refused: [(class.to_owned(), 1)].into(),
            refusals: vec![class.to_owned(); 3],
        };
        let mut sum = BatchOutcome::default();
        for class in ["A", "A", "B"] {
            add(&mut sum, part(class));
        }
        assert_eq!(
            (sum.posted, sum.points, sum.duplicates, sum.ignored),
            (3, 30, 6, 9)
        );
        assert_eq!(
            sum.refused,
            [("A".to_owned(), 2), ("B".to_owned(), 1)].into()
        );
        assert_eq!(sum.refusals.len(), REFUSALS_TOLD);
    }

    fn posting(database: &store::testing::TestDatabase) -> AwardPosting {
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../programme.toml");
        AwardPosting {
            pool: database.pool.clone(),
            programme: Arc::new(LiveProgramme::load(rules.as_ref()).expect("the default rules")),
            buffer: Arc::default(),
            kafka: Kafka::new(KafkaSettings {
                brokers: "127.0.0.1:1".to_owned(),
                group: "none".to_owned(),
                tls: None,
            })
            .expect("it names no files"),
            outbox_written: Arc::default(),
            welcome_type: PromotionType::welcome(),
        }
    }

    /// Makes the database refuse every event with an id that ends in `-bad`, in this way.
    async fn refuse_bad_events(database: &store::testing::TestDatabase, sql_state: &str) {
        let sql = format!(
            "CREATE FUNCTION refuse_bad() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no % here', NEW.event_id USING ERRCODE = '{sql_state}'; END $$;
             CREATE TRIGGER refuse_bad BEFORE INSERT ON processed_events FOR EACH ROW
             WHEN (NEW.event_id LIKE '%-bad') EXECUTE FUNCTION refuse_bad();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&database.pool)
            .await
            .expect("a trigger");
    }

    fn orders(ids: &[&str]) -> Vec<Record> {
        ids.iter()
            .enumerate()
            .map(|(i, id)| {
                let offset = i64::try_from(i).expect("few");
                order(
                    offset,
                    &format!(r#"{{"customerId":"C","orderId":"{id}","amount":250}}"#),
                )
            })
            .collect()
    }

    async fn dead_letters(database: &store::testing::TestDatabase) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox WHERE topic = 'dead-letter'")
            .fetch_one(&database.pool)
            .await
            .expect("a count")
    }

    #[tokio::test]
    async fn only_what_the_database_refuses_goes_to_the_dead_letters() {
        // A data error, and a fault that nothing is known of and that stays the same.
        for sql_state in ["22003", "P0001"] {
            let database = store::testing::database().await;
            refuse_bad_events(&database, sql_state).await;
            let records = orders(&["1", "2-bad", "3", "4", "5-bad"]);
            let posting = posting(&database);
            let outcome = posting
                .post("award/t/0/0-4", &records)
                .await
                .expect("posted");
            assert_eq!((outcome.posted, outcome.points), (3, 6), "{sql_state}");
            assert_eq!(
                outcome.refused,
                [("DATA_ERROR".to_owned(), 2)].into(),
                "{sql_state}"
            );
            assert_eq!(dead_letters(&database).await, 2, "{sql_state}");

            let again = posting.post("award/t/0/0-4", &records).await;
            let again = again.expect("posted");
            assert_eq!(
                (again.posted, again.duplicates),
                (0, 3),
                "posting again changes nothing"
            );
            assert_eq!(
                dead_letters(&database).await,
                2,
                "nor are there new letters"
            );
        }
    }

    #[tokio::test]
    async fn a_fault_of_the_schema_or_an_outage_refuses_nobody() {
        let database = store::testing::database().await;
        let posting = posting(&database);
        sqlx::raw_sql("ALTER TABLE processed_events RENAME TO elsewhere")
            .execute(&database.pool)
            .await
            .expect("renamed");
        let error = posting
            .post("award/t/0/0-0", &orders(&["1"]))
            .await
            .expect_err("no table");
        assert!(error.is_schema_fault(), "{error}");
        assert_eq!(dead_letters(&database).await, 0);

        database.pool.close().await;
        let error = posting
            .post("award/t/0/0-0", &orders(&["1"]))
            .await
            .expect_err("closed");
        assert!(error.is_retryable(), "{error}");
    }
}
