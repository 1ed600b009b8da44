//! A batch of notifications on its way: into the players' inboxes. They move no points and nobody
//! waits for them, so no flow has to remember how far they are: the rows do.

use std::sync::Arc;

use domain::{Command, Notification, Refusal, RefusalClass};
use store::{PgPool, notifications::Stored};
use tokio::sync::Notify;

use super::writing::{self, Rows};
use crate::{measures, record::Record};

/// Takes notifications in.
#[derive(Clone)]
pub struct Notifying {
    pool: PgPool,
    outbox_written: Arc<Notify>,
}

/// What became of a batch.
#[derive(Default)]
pub struct Counts {
    new: u32,
    same: u32,
    refused: Vec<RefusalClass>,
}

impl Notifying {
    /// Rows into this database.
    pub fn new(pool: PgPool, outbox_written: Arc<Notify>) -> Self {
        Self {
            pool,
            outbox_written,
        }
    }

    /// Sees to it that a batch of notifications is stored. Comes back only then.
    pub async fn accept(self, records: Vec<Record>) {
        writing::write_all(&self, &records).await;
    }
}

impl Rows for Notifying {
    type Command = Notification;
    type Counts = Counts;
    const ONLY: &'static str = "notifications";

    fn of(command: Command) -> Option<Self::Command> {
        match command {
            Command::Notify(asked) => Some(asked),
            Command::Award(_) | Command::Redeem(_) => None,
        }
    }

    async fn write(
        &self,
        records: &[Record],
        readings: &[Result<Notification, Refusal>],
    ) -> Result<Counts, store::Error> {
        let notifications: Vec<Notification> = readings
            .iter()
            .filter_map(|reading| reading.as_ref().ok().cloned())
            .collect();
        let mut transaction = store::transaction::begin(&self.pool).await?;
        let answers = if notifications.is_empty() {
            Vec::new()
        } else {
            store::notifications::write(&mut transaction, &notifications).await?
        };
        let mut counts = Counts::default();
        let mut letters = Vec::new();
        let mut answers = answers.into_iter();
        for (record, reading) in records.iter().zip(readings) {
            let refusal = match reading {
                Err(refusal) => refusal.clone(),
                Ok(notification) => match answers.next() {
                    Some(Stored::New) => {
                        counts.new += 1;
                        continue;
                    }
                    Some(Stored::Conflict) => Refusal::new(
                        RefusalClass::BodyConflict,
                        format!(
                            "notification {} was seen before with another body",
                            notification.identity
                        ),
                    ),
                    Some(Stored::Same) | None => {
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
        measures::taken_in(topic, counts.new, counts.same, &counts.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn notification(offset: i64, id: &str, body: &str) -> Record {
        Record {
            topic: Arc::from("notifications"),
            headers: vec![("ce_id".to_owned(), id.as_bytes().to_vec())],
            value: Some(body.as_bytes().to_vec()),
            ..record(offset)
        }
    }

    async fn stored(pool: &PgPool) -> Vec<(String, i64, String)> {
        sqlx::query_as(
            "SELECT user_id, notification_id, kind FROM notifications
             ORDER BY user_id, notification_id",
        )
        .fetch_all(pool)
        .await
        .expect("rows")
    }

    async fn letters(pool: &PgPool) -> Vec<(i64, String)> {
        sqlx::query_as("SELECT source_offset, error_class FROM dead_letters ORDER BY 1")
            .fetch_all(pool)
            .await
            .expect("rows")
    }

    fn row(user: &str, number: i64, kind: &str) -> (String, i64, String) {
        (user.to_owned(), number, kind.to_owned())
    }

    #[tokio::test]
    async fn what_is_sound_is_stored_once_and_the_rest_goes_to_the_dead_letters() {
        let database = store::testing::database().await;
        let notifying = Notifying::new(database.pool.clone(), Arc::default());
        let batch = vec![
            notification(0, "1", r#"{"user_id":7,"eventType":"A","content":{}}"#),
            notification(1, "2", "not json"),
            notification(2, "3", r#"{"user_id":"8","eventType":"B","content":{}}"#),
            notification(3, "1", r#"{"content":{},"user_id":"7","eventType":"A"}"#),
            notification(4, "1", r#"{"user_id":"7","eventType":"C","content":{}}"#),
            notification(5, "4", r#"{"user_id":"7","eventType":"D","content":{}}"#),
        ];
        for _ in 0..2 {
            notifying.clone().accept(batch.clone()).await;
            assert_eq!(
                stored(&database.pool).await,
                [row("7", 1, "A"), row("7", 2, "D"), row("8", 1, "B")]
            );
            assert_eq!(
                letters(&database.pool).await,
                [
                    (1, "MALFORMED_JSON".to_owned()),
                    (4, "BODY_CONFLICT".to_owned())
                ]
            );
        }
    }

    #[tokio::test]
    async fn what_the_database_refuses_goes_to_the_dead_letters_alone() {
        let database = store::testing::database().await;
        sqlx::raw_sql("ALTER TABLE notifications ADD CHECK (kind <> 'bad')")
            .execute(&database.pool)
            .await
            .expect("a constraint");
        let notifying = Notifying::new(database.pool.clone(), Arc::default());
        let batch = ["ok", "bad", "fine"].iter().zip(0..).map(|(kind, offset)| {
            let body = format!(r#"{{"user_id":"7","eventType":"{kind}","content":{{}}}}"#);
            notification(offset, &offset.to_string(), &body)
        });
        notifying.accept(batch.collect()).await;
        assert_eq!(
            stored(&database.pool).await,
            [row("7", 1, "ok"), row("7", 2, "fine")]
        );
        assert_eq!(
            letters(&database.pool).await,
            [(1, "DATA_ERROR".to_owned())]
        );
    }
}
