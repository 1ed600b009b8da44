//! `meed offsets`: how far the intake has come in Kafka, kept with a backup and set back after a restore.
//!
//! Offsets that are older than the ledger only make messages come again, which changes nothing. Newer ones would
//! leave messages out: they are saved before the database is dumped.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use boot::settings::KafkaSettings;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::inbound::topic;
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde::{Deserialize, Serialize};

use crate::kafka::{self, ANSWER_WITHIN};

/// How long a group may be without the broker that has it.
const COORDINATOR_WITHIN: Duration = Duration::from_secs(20);

/// The committed offsets of a consumer group.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    group: String,
    /// When: what was told after this may not be in the ledger that is restored.
    at: DateTime<Utc>,
    /// By topic and partition; nothing where nothing was committed, so that reading begins at the beginning.
    offsets: BTreeMap<String, BTreeMap<i32, Option<i64>>>,
}

fn consumer(kafka: &KafkaSettings, group: &str) -> Result<BaseConsumer> {
    kafka::client(kafka)?
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .context(kafka::UNUSABLE)
}

/// Asks again while the broker that has the group is only taking it over.
fn patiently<T>(ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let deadline = Instant::now() + COORDINATOR_WITHIN;
    loop {
        let answer = ask();
        let code = answer
            .as_ref()
            .err()
            .and_then(KafkaError::rdkafka_error_code);
        let passes = matches!(
            code,
            Some(
                RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::WaitingForCoordinator
            )
        );
        if !passes || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Writes the group's offsets on every topic that is read, to the file or to standard output.
///
/// # Errors
/// When Kafka does not answer, or the file cannot be written.
pub fn save(kafka: &KafkaSettings, group: &str, file: Option<&Path>) -> Result<()> {
    let at = Utc::now();
    let metadata = kafka::reach(kafka)?;
    let consumer = consumer(kafka, group)?;
    let mut asked = TopicPartitionList::new();
    let read = metadata
        .topics()
        .iter()
        .filter(|found| topic::ALL.contains(&found.name()));
    for topic in read {
        for partition in topic.partitions() {
            asked.add_partition(topic.name(), partition.id());
        }
    }
    let committed = patiently(|| consumer.committed_offsets(asked.clone(), ANSWER_WITHIN))
        .context("Kafka does not say how far the intake is")?;
    let mut saved = Saved {
        group: group.to_owned(),
        at,
        offsets: BTreeMap::new(),
    };
    for partition in committed.elements() {
        partition.error().with_context(|| {
            let (topic, number) = (partition.topic(), partition.partition());
            format!("Kafka does not say how far the intake is in {topic}, partition {number}")
        })?;
        let offset = match partition.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let partitions = saved
            .offsets
            .entry(partition.topic().to_owned())
            .or_default();
        partitions.insert(partition.partition(), offset);
    }
    let text = serde_json::to_string_pretty(&saved)? + "\n";
    match file {
        Some(file) => std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display())),
        None => Ok(std::io::stdout().write_all(text.as_bytes())?),
    }
}

/// Sets the group to the offsets of the file. Every worker has to be stopped: Kafka refuses to move a group that reads.
///
/// # Errors
/// When the file cannot be used, Kafka does not answer, or the group has members.
pub fn restore(kafka: &KafkaSettings, group: &str, file: &Path) -> Result<()> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
    let saved: Saved = serde_json::from_str(&text).with_context(|| name.to_string())?;
    if saved.group != group {
        bail!(
            "{name} has the offsets of the group {}, not of {group}",
            saved.group
        );
    }
    kafka::reach(kafka)?;
    let consumer = consumer(kafka, group)?;
    let mut offsets = TopicPartitionList::new();
    for (topic, partitions) in &saved.offsets {
        for (partition, offset) in partitions {
            // What was not read at all at the time of the backup is read from its beginning.
            let offset = match offset {
                Some(offset) => *offset,
                None => {
                    consumer
                        .fetch_watermarks(topic, *partition, ANSWER_WITHIN)
                        .with_context(|| format!("Kafka does not know {topic}, {partition}"))?
                        .0
                }
            };
            offsets.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        }
    }
    match patiently(|| consumer.commit(&offsets, CommitMode::Sync)) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration)
            ) =>
        {
            bail!("the group {group} is being read: stop every worker first")
        }
        Err(error) => return Err(error).context("Kafka does not take the offsets"),
    }
    println!(
        "The group {group} reads on from {name}: {} partitions.",
        offsets.count()
    );
    // Nothing is told any more, as no worker runs.
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    println!(
        "What was told since then may name totals that the restored ledger never has. Once all has \
         been read again, this accepts what is about no points:\n  meed reconcile --accept-kind \
         CONFIRMATION_WITHOUT_EFFECT --since {} --until {} --reason \"told before the restore\"",
        instant(saved.at),
        instant(Utc::now())
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_can_be_read() {
        let saved = Saved {
            group: "g".to_owned(),
            at: DateTime::UNIX_EPOCH,
            offsets: BTreeMap::from([(
                "orders".to_owned(),
                BTreeMap::from([(0, Some(7)), (11, None)]),
            )]),
        };
        let text = serde_json::to_string_pretty(&saved).expect("JSON");
        let read: Saved = serde_json::from_str(&text).expect("read");
        assert_eq!(read, saved);
    }
}
