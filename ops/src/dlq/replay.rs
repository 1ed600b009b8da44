//! `meed dlq replay`: letters go back to where they came from, and are known as the same messages.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use boot::settings::KafkaSettings;
use chrono::Utc;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};
use serde_json::json;
use store::{PgPool, audit, dead_letters};
use uuid::Uuid;

use super::{
    Replay as Arguments,
    letter::{Letter, Prospect, ReplayMessage},
    list,
    progress::Progress,
    reader::Reader,
    select::Place,
};
use crate::{addresses, kafka};

/// How many letters are sent before their acknowledgements are waited for.
const LETTERS_AT_A_TIME: usize = 200;
/// How many bytes of bodies, about.
const BYTES_AT_A_TIME: usize = 8 * 1024 * 1024;
/// How long Kafka may take to acknowledge one.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// How many letters are told of one by one.
const LINES: usize = 50;

/// Replays what was chosen.
///
/// # Errors
/// When Kafka or the database does not answer, a letter that was named does not exist or cannot be
/// replayed, or Kafka does not take one. What was acknowledged before is remembered.
pub async fn run(
    reader: &Reader,
    pool: &PgPool,
    kafka: &KafkaSettings,
    arguments: &Arguments,
) -> Result<()> {
    let choice = &arguments.choice;
    let mut run = Run {
        reader,
        pool,
        producer: producer(kafka)?,
        arguments,
        partitions: HashMap::new(),
        report: Report::default(),
    };
    let done = if choice.ids.is_empty() {
        run.chosen().await
    } else {
        run.named(&choice.ids).await
    };
    // What was sent was sent, whatever happened after it.
    let remembered = run.remember().await;
    let report = run.report;
    report.print(arguments);
    done?;
    remembered?;
    if !choice.ids.is_empty() && report.refused() > 0 {
        bail!("{} of the letters cannot be replayed", report.refused());
    }
    Ok(())
}

fn producer(kafka: &KafkaSettings) -> Result<FutureProducer> {
    kafka::client(kafka)?
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set(
            "message.timeout.ms",
            ACKNOWLEDGE_WITHIN.as_millis().to_string(),
        )
        // More than any letter; the topic's own limit decides.
        .set("message.max.bytes", "8388608")
        .set("linger.ms", "1")
        .create()
        .context(kafka::UNUSABLE)
}

struct Run<'a> {
    reader: &'a Reader,
    pool: &'a PgPool,
    producer: FutureProducer,
    arguments: &'a Arguments,
    /// Of each topic that something was sent to.
    partitions: HashMap<String, Vec<i32>>,
    report: Report,
}

impl Run<'_> {
    /// Those that were named, one by one: whoever names a letter wants it sent.
    async fn named(&mut self, places: &[Place]) -> Result<()> {
        let mut progress = Progress::new(places.len() as u64);
        for (position, place) in (1..).zip(places) {
            let letter = self.reader.one(*place)?;
            self.work_on(vec![letter], true).await?;
            progress.at(position, || self.report.in_short());
        }
        Ok(())
    }

    /// Those that a filter takes, in the order in which they stand: of a customer, that is the
    /// order in which they were refused.
    async fn chosen(&mut self) -> Result<()> {
        let filter = &self.arguments.choice.filter;
        let mut scan = self.reader.scan(filter.since)?;
        let mut progress = Progress::new(scan.length);
        let (mut letters, mut bytes) = (Vec::new(), 0);
        loop {
            let letter = scan.next()?;
            let over = letter.is_none();
            if let Some(letter) = letter.filter(|letter| filter.takes(letter)) {
                bytes += letter.body.len();
                letters.push(letter);
            }
            if over || letters.len() >= LETTERS_AT_A_TIME || bytes >= BYTES_AT_A_TIME {
                self.work_on(std::mem::take(&mut letters), self.arguments.again)
                    .await?;
                bytes = 0;
            }
            progress.at(scan.length - scan.remaining(), || self.report.in_short());
            if over {
                return Ok(());
            }
        }
    }

    /// Sends letters, waits until Kafka has acknowledged each, and remembers them.
    async fn work_on(&mut self, letters: Vec<Letter>, again: bool) -> Result<()> {
        let ids: Vec<String> = letters.iter().map(Letter::id).collect();
        let replayed = dead_letters::replayed(self.pool, &ids).await?;
        let mut under_way: Vec<(Letter, ReplayMessage, String, DeliveryFuture)> = Vec::new();
        let mut failure = None;
        for (letter, id) in letters.into_iter().zip(ids) {
            let before = replayed.get(&id);
            if let Some(before) = before.filter(|_| !again) {
                let words = list::in_words(before);
                self.report.skipped += 1;
                self.report
                    .line(|| format!("{} was replayed before: {words}", letter.place));
                continue;
            }
            let (message, what) = match self.message(&letter)? {
                Ok(message) => message,
                Err(refusal) => {
                    self.report.refuse(letter.place, refusal);
                    continue;
                }
            };
            if self.arguments.dry_run {
                self.report.sent += 1;
                let topic = &message.origin.topic;
                self.report
                    .line(|| format!("{} would be sent to {topic}: {what}", letter.place));
                continue;
            }
            match self.producer.send_result(self.record(&message)) {
                Ok(delivery) => under_way.push((letter, message, what, delivery)),
                Err((error, _)) => {
                    failure = Some((letter.place, error));
                    break;
                }
            }
        }
        let mut sent = Vec::new();
        for (letter, message, what, delivery) in under_way {
            let error = match delivery.await {
                Ok(Ok(delivered)) => {
                    self.report.sent += 1;
                    let (place, topic) = (letter.place, message.origin.topic);
                    self.report.line(|| {
                        format!(
                            "{place} was sent to {topic}, partition {}, offset {}: {what}",
                            delivered.partition, delivered.offset
                        )
                    });
                    sent.push(dead_letters::Replay {
                        letter_id: letter.id(),
                        letter_place: place.to_string(),
                        topic,
                        partition: delivered.partition,
                        offset: delivered.offset,
                    });
                    continue;
                }
                Ok(Err((error, _))) => error,
                Err(_) => rdkafka::error::KafkaError::Canceled,
            };
            failure = failure.or(Some((letter.place, error)));
        }
        if !sent.is_empty() {
            let mut conn = self.pool.acquire().await.map_err(store::Error::from)?;
            dead_letters::record_replays(&mut conn, &addresses::operator(), &sent)
                .await
                .context("what was sent could not be remembered; sending it again does no harm")?;
        }
        match failure {
            None => Ok(()),
            Some((place, error)) => Err(error).with_context(|| {
                format!(
                    "Kafka did not acknowledge dead letter {place}; the same command goes on with \
                     what is left"
                )
            }),
        }
    }

    /// What to send for a letter and what would come of it, or why it is refused.
    fn message(&mut self, letter: &Letter) -> Result<Result<(ReplayMessage, String), Refused>> {
        let message = match letter.replay() {
            Ok(message) => message,
            Err(why) => {
                return Ok(Err(Refused {
                    kind: "cannot be replayed".to_owned(),
                    why,
                }));
            }
        };
        let topic = &message.origin.topic;
        if !self.partitions.contains_key(topic) {
            let partitions = self.reader.partitions_of(topic)?;
            self.partitions.insert(topic.clone(), partitions);
        }
        if self.partitions[topic].is_empty() {
            return Ok(Err(Refused {
                kind: "its topic is gone".to_owned(),
                why: format!("Kafka has no topic {topic}"),
            }));
        }
        let what = match message.prospect(Utc::now()) {
            Prospect::Read(what) => what,
            Prospect::RefusedAgain(refusal) if self.arguments.anyway => {
                format!("it will be refused again, {refusal}")
            }
            Prospect::RefusedAgain(refusal) => {
                return Ok(Err(Refused {
                    kind: format!("would be refused again: {}", refusal.class),
                    why: format!("it would be refused again, {refusal} (--anyway sends it)"),
                }));
            }
        };
        Ok(Ok((message, what)))
    }

    /// The record: to the partition in which the message first stood, because the sender chose it
    /// for the customer; where that is gone, the key decides.
    fn record<'m>(&self, message: &'m ReplayMessage) -> FutureRecord<'m, [u8], [u8]> {
        let headers = message.headers.iter().fold(
            OwnedHeaders::new_with_capacity(message.headers.len()),
            |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        );
        let mut record = FutureRecord::to(&message.origin.topic).headers(headers);
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.partition = self.partitions[&message.origin.topic]
            .contains(&message.origin.partition)
            .then_some(message.origin.partition);
        record
    }

    /// Writes to the audit record what was done.
    async fn remember(&self) -> Result<()> {
        if self.arguments.dry_run || self.report.sent == 0 {
            return Ok(());
        }
        let mut conn = self.pool.acquire().await.map_err(store::Error::from)?;
        let change = audit::Change {
            actor: &addresses::operator(),
            action: "dead-letters.replay",
            subject: &self.arguments.choice.to_string(),
            request_id: &Uuid::new_v4().to_string(),
            address: None,
            detail: json!({
                "sent": self.report.sent,
                "skipped": self.report.skipped,
                "refused": self.report.refused(),
            }),
        };
        Ok(audit::write(&mut conn, &change).await?)
    }
}

/// Why a letter is not sent.
#[derive(Debug)]
struct Refused {
    /// By which refusals are counted.
    kind: String,
    /// In words.
    why: String,
}

/// What was done, or would be.
#[derive(Debug, Default)]
struct Report {
    sent: u64,
    skipped: u64,
    refused: BTreeMap<String, u64>,
    lines: Vec<String>,
    more_lines: u64,
}

impl Report {
    fn line(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < LINES {
            self.lines.push(line());
        } else {
            self.more_lines += 1;
        }
    }

    fn refuse(&mut self, place: Place, refused: Refused) {
        self.line(|| format!("{place} is refused: {}", refused.why));
        *self.refused.entry(refused.kind).or_default() += 1;
    }

    fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    fn in_short(&self) -> String {
        format!(
            "{} sent, {} replayed before, {} refused",
            self.sent,
            self.skipped,
            self.refused()
        )
    }

    fn print(&self, arguments: &Arguments) {
        if arguments.json {
            println!(
                "{}",
                json!({
                    "dryRun": arguments.dry_run,
                    "sent": self.sent,
                    "replayedBefore": self.skipped,
                    "refused": self.refused(),
                    "refusedBecause": self.refused,
                    "letters": self.lines,
                })
            );
            return;
        }
        for line in &self.lines {
            println!("{line}");
        }
        if self.more_lines > 0 {
            println!("and {} more", self.more_lines);
        }
        for (kind, count) in &self.refused {
            println!("{count} refused: {kind}");
        }
        if arguments.dry_run {
            println!("Nothing was done. It would be: {}.", self.in_short());
        } else {
            println!("{}.", self.in_short());
            if self.skipped > 0 {
                println!("--again sends those too that were replayed before.");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_all_and_tells_some() {
        let mut report = Report::default();
        for offset in 0..60 {
            let place = Place {
                partition: 0,
                offset,
            };
            report.refuse(
                place,
                Refused {
                    kind: if offset % 2 == 0 { "even" } else { "odd" }.to_owned(),
                    why: "for some reason".to_owned(),
                },
            );
        }
        assert_eq!(report.refused(), 60);
        assert_eq!(
            report.refused,
            [("even".to_owned(), 30), ("odd".to_owned(), 30)].into()
        );
        assert_eq!((report.lines.len(), report.more_lines), (LINES, 10));
        assert_eq!(report.lines[7], "0-7 is refused: for some reason");
        assert_eq!(report.in_short(), "0 sent, 0 replayed before, 60 refused");
    }
}
