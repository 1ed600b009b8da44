//! Kafka events against ledger: every message that the intake has passed has had its effect.
//!
//! Missing effects are safe to make up for, because posting is idempotent: the same flow is
//! started for the same messages, or the same rows are written, as the intake does. Not for a
//! customer whose transfers do not follow from each other, where it might give points twice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::Utc;
use domain::{
    Command, Comparison,
    inbound::{self, topic},
};
use store::reconcile::{
    balances,
    events::{self, Effect, Expected},
    findings::{self, Found},
    marks,
};
use workflows::contract::MessageRange;

use super::{
    Steps,
    reading::{self, Held, Reader, blocking},
    work::{Trouble, Work},
};
use crate::record::Record;

const MISSING: &str = "EVENT_MISSING";
const EXPIRED: &str = "EVENTS_EXPIRED";
/// How many messages are looked at together.
const AT_A_TIME: usize = 500;
/// How many messages before the mark are looked at again.
const OVERLAP: i64 = 200;
/// How long making up for some messages may take.
const REPAIR_WITHIN: Duration = Duration::from_secs(60);

/// Per topic and partition, the next offset to look at.
type Cursor = BTreeMap<String, i64>;

/// Looks at every topic that the intake reads.
pub async fn compare(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    let mut cursor: Cursor = work.cursor().unwrap_or_default();
    for name in topic::ALL {
        let kafka = steps.kafka.clone();
        let held = blocking(move || reading::partitions(&kafka.reader()?, name)).await?;
        for held in held {
            compare_partition(steps, work, &mut cursor, name, held).await?;
        }
    }
    let kinds = [MISSING, EXPIRED];
    let started_at = work.input.started_at;
    findings::end_unseen(&work.pool, Comparison::Events, &kinds, started_at, None).await?;
    Ok(())
}

async fn compare_partition(
    steps: &Steps,
    work: &mut Work,
    cursor: &mut Cursor,
    topic: &'static str,
    held: Held,
) -> Result<(), Trouble> {
    let subject = format!("{topic}/{}", held.partition);
    let kafka = steps.kafka.clone();
    let since = work.input.since;
    let (committed, at_since) = blocking(move || {
        let consumer = kafka.reader()?;
        let committed = reading::committed(&consumer, topic, held.partition)?;
        let at = since.map(|since| reading::offset_at(&consumer, topic, held, since));
        Ok((committed, at.transpose()?))
    })
    .await?;
    let mark = marks::position(&work.pool, Comparison::Events, &subject).await?;
    // A mark beyond the end is of a topic that was made anew.
    let mark = mark.filter(|mark| *mark <= held.high);
    let again = open_before(work, &subject, held).await?;
    if let Some(mark) = mark.filter(|mark| *mark < held.low) {
        work.found(&expired(topic, held, mark)).await?;
    }
    let Some(until) = committed.map(|committed| committed.min(held.high)) else {
        return Ok(());
    };
    let begin = match (at_since, mark) {
        (Some(at), _) => at,
        (None, Some(mark)) => mark - OVERLAP,
        (None, None) => held.low,
    };
    let begin = again.map_or(begin, |again| again.min(begin)).max(held.low);
    let mut from = cursor.get(&subject).copied().unwrap_or(begin);
    if from < until {
        let kafka = steps.kafka.clone();
        let partition = held.partition;
        let open = move || Reader::open(&kafka, topic, partition, from, until);
        let mut reader = blocking(open).await?;
        loop {
            let (back, records) = reader.chunk(AT_A_TIME).await?;
            reader = back;
            if records.is_empty() {
                break;
            }
            compare_records(steps, work, &records).await?;
            from = reader.next_offset();
            cursor.insert(subject.clone(), from);
            work.reached(cursor);
        }
        blocking(move || {
            drop(reader);
            Ok(())
        })
        .await?;
    }
    // Report-only runs and those that began later than the mark leave it where it is; what could
    // not be repaired is found again, because open findings are looked at wherever they are.
    if work.input.repair && begin <= mark.unwrap_or(held.low).max(held.low) {
        marks::set_position(&work.pool, Comparison::Events, &subject, until).await?;
    }
    Ok(())
}

/// The first offset with an open finding. Those of messages that are not there any more cannot be
/// looked at again, and stay.
async fn open_before(work: &Work, subject: &str, held: Held) -> Result<Option<i64>, Trouble> {
    let mut first = None;
    for finding in findings::open(&work.pool, Some(Comparison::Events)).await? {
        let place = finding.subject.strip_prefix(subject);
        let Some(place) = place.and_then(|place| place.strip_prefix('/')) else {
            continue;
        };
        match place.parse::<i64>() {
            Ok(offset) if offset >= held.low && finding.kind == MISSING => {
                first = Some(first.map_or(offset, |first: i64| first.min(offset)));
            }
            _ => {
                let started_at = work.input.started_at;
                findings::keep(&work.pool, finding.finding_id, started_at).await?;
            }
        }
    }
    Ok(first)
}

fn expired(topic: &str, held: Held, mark: i64) -> Found {
    let Held { partition, low, .. } = held;
    Found {
        comparison: Comparison::Events,
        kind: EXPIRED,
        subject: format!("{topic}/{partition}/{mark}-{low}"),
        detail: format!(
            "messages {mark} to {} of {topic}, partition {partition}, left Kafka before they were \
             compared",
            low - 1
        ),
        fix: "meed reconcile --accept FINDING --reason \"compared with the sender's own records\""
            .to_owned(),
        happened_at: None,
        evidence: serde_json::json!({}),
    }
}

/// What a message must have led to; nothing for one of a kind that Meed has no use for.
fn expected(record: &Record) -> Option<Expected> {
    let effect = match inbound::read(&record.as_message(), Utc::now()) {
        Ok(None) => return None,
        Ok(Some(Command::Award(award))) => Effect::Event {
            source: award.source.as_str(),
            event_id: award.event_id.to_string(),
            body_hash: award.body_hash().to_vec(),
        },
        Ok(Some(Command::Redeem(request))) => Effect::Redemption {
            redeem_request_id: request.redeem_request_id.to_string(),
            body_hash: request.body_hash().to_vec(),
        },
        Ok(Some(Command::Notify(notification))) => Effect::Notification {
            body_hash: notification.body_hash().to_vec(),
            identity: notification.identity,
        },
        Err(_) => Effect::DeadLetter,
    };
    let letter_id = record.letter_id();
    Some(Expected { effect, letter_id })
}

/// Those of the messages that have not had their effect.
async fn missing<'a>(work: &Work, records: &'a [Record]) -> Result<Vec<&'a Record>, Trouble> {
    let (wanted, expected): (Vec<&Record>, Vec<Expected>) = records
        .iter()
        .filter_map(|record| Some((record, expected(record)?)))
        .unzip();
    let had = events::have_had_effect(&work.pool, &expected).await?;
    Ok(wanted
        .into_iter()
        .zip(had)
        .filter(|(_, had)| !had)
        .map(|(record, _)| record)
        .collect())
}

async fn compare_records(
    steps: &Steps,
    work: &mut Work,
    records: &[Record],
) -> Result<(), Trouble> {
    let lost = missing(work, records).await?;
    work.looked_at(records.len(), records.len() - lost.len());
    if lost.is_empty() {
        return Ok(());
    }
    let lost: Vec<Record> = lost.into_iter().cloned().collect();
    if work.input.repair {
        let mut safe = Vec::new();
        for record in &lost {
            if may_be_posted(work, record).await? {
                safe.push(record.clone());
            }
        }
        make_up_for(steps, safe).await;
    }
    let still: Vec<i64> = missing(work, &lost)
        .await?
        .iter()
        .map(|r| r.offset)
        .collect();
    for record in &lost {
        let found = found(record);
        if still.contains(&record.offset) {
            work.found(&found).await?;
        } else {
            work.repaired(&found).await?;
        }
    }
    Ok(())
}

fn found(record: &Record) -> Found {
    let what = match expected(record).map(|expected| expected.effect) {
        Some(Effect::Event {
            source, event_id, ..
        }) => format!("{source} {event_id} is not in the ledger"),
        Some(Effect::Redemption {
            redeem_request_id, ..
        }) => format!("redemption {redeem_request_id} does not exist"),
        Some(Effect::Notification { identity, .. }) => {
            format!("notification {identity} is not stored")
        }
        Some(Effect::DeadLetter) | None => "it is no event and has no dead letter".to_owned(),
    };
    let Record {
        topic,
        partition,
        offset,
        timestamp,
        ..
    } = record;
    Found {
        comparison: Comparison::Events,
        kind: MISSING,
        subject: format!("{topic}/{partition}/{offset}"),
        detail: format!(
            "message {offset} of {topic}, partition {partition}, had no effect: {what}"
        ),
        fix: format!(
            "meed reconcile --repair --since {}",
            timestamp.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        ),
        happened_at: Some(*timestamp),
        evidence: serde_json::json!({}),
    }
}

/// Whether the customer's transfers follow from each other, so that a missing event is really
/// missing in the balance too.
async fn may_be_posted(work: &Work, record: &Record) -> Result<bool, Trouble> {
    let Ok(Some(Command::Award(award))) = inbound::read(&record.as_message(), Utc::now()) else {
        return Ok(true);
    };
    let customer = award.customer_id.as_str();
    let account = balances::one(&work.pool, customer).await?;
    Ok(
        account
            .is_none_or(|(account, broken)| broken.is_none() && account.stored == account.folded),
    )
}

/// Does what the intake does with these messages. Whether it came to anything is looked at
/// afterwards.
async fn make_up_for(steps: &Steps, records: Vec<Record>) {
    let Some(first) = records.first() else { return };
    if *first.topic == *topic::REDEEM_EVENTS {
        let accepted = steps.redeeming.clone().accept(records);
        if tokio::time::timeout(REPAIR_WITHIN, accepted).await.is_err() {
            tracing::warn!("requests to redeem could not be made up for in time");
        }
        return;
    }
    if *first.topic == *topic::NOTIFICATIONS {
        let stored = steps.notifying.clone().accept(records);
        if tokio::time::timeout(REPAIR_WITHIN, stored).await.is_err() {
            tracing::warn!("notifications could not be made up for in time");
        }
        return;
    }
    for range in ranges(&records) {
        let posted = async {
            if let Err(error) = steps.flows.start_award(&range).await {
                tracing::warn!(%error, ?range, "a batch could not be started again");
                return;
            }
            if let Err(error) = steps.flows.award_outcome(&range).await {
                tracing::warn!(%error, ?range, "a batch that was started again did not succeed");
            }
        };
        if tokio::time::timeout(REPAIR_WITHIN, posted).await.is_err() {
            tracing::warn!(?range, "a batch that was started again takes too long");
        }
    }
}

/// Consecutive messages of one partition, as ranges.
fn ranges(records: &[Record]) -> Vec<MessageRange> {
    let mut ranges: Vec<MessageRange> = Vec::new();
    for record in records {
        match ranges.last_mut() {
            Some(range) if range.last_offset + 1 == record.offset => {
                range.last_offset = record.offset;
                range.messages += 1;
            }
            _ => ranges.push(MessageRange {
                topic: Arc::clone(&record.topic).to_string(),
                partition: record.partition,
                first_offset: record.offset,
                last_offset: record.offset,
                messages: 1,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn what_is_consecutive_is_one_range() {
        let records: Vec<Record> = [3, 4, 5, 9, 11, 12].map(record).to_vec();
        let ranges: Vec<_> = ranges(&records)
            .iter()
            .map(|r| (r.first_offset, r.last_offset, r.messages))
            .collect();
        assert_eq!(ranges, [(3, 5, 3), (9, 9, 1), (11, 12, 2)]);
    }
}
