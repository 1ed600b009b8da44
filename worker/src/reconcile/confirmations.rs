//! Ledger against confirmations: everything that happened was told, is really on Kafka, and
//! nothing else is.
//!
//! A message that the outbox lacks is written again from the ledger; one that Kafka lacks is
//! published again. What Kafka has without an effect in the ledger is reported and never repaired.
//! Time goes by in slices, so that no more than one slice's identities are in memory.

use std::collections::HashSet;

use chrono::{DateTime, Duration, Utc};
use domain::{
    Comparison,
    inbound::header,
    message::{PointsAdded, RedeemConfirmed, RewardConfirmed, topic},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::{
    adjustments,
    reconcile::{
        confirmations::{self, Claim, Published, Untold},
        findings::{self, Found},
        marks,
    },
};

use super::{
    Steps,
    reading::{self, Held, Reader, blocking},
    work::{Trouble, Work},
};
use crate::record::Record;

const UNTOLD: &str = "CONFIRMATION_MISSING";
const UNPUBLISHED: &str = "MESSAGE_NOT_ON_KAFKA";
const STRAY: &str = "CONFIRMATION_WITHOUT_EFFECT";
/// What Meed publishes through the outbox.
const TOPICS: [&str; 6] = [
    topic::REWARD_CONFIRMED,
    topic::POINTS_ADDED,
    topic::REDEEM_CONFIRMED,
    topic::TIER_UPGRADED,
    topic::NOTIFICATIONS,
    topic::DEAD_LETTER,
];
/// How long a slice of time is.
const SLICE: Duration = Duration::minutes(5);
/// What is younger may still be under way.
const YOUNG: Duration = Duration::seconds(10);
/// How much before the mark is looked at again: longer than any transaction.
const OVERLAP: Duration = Duration::minutes(5);
/// How far a message's own time may be from the time at which it was marked as published.
const SKEW: Duration = Duration::minutes(2);
/// How far back Kafka is read where nobody said otherwise; topics keep more.
const KAFKA_AT_MOST: Duration = Duration::hours(24);
/// How many messages are looked at together.
const AT_A_TIME: usize = 1_000;

/// Where a slice begins.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cursor {
    from: DateTime<Utc>,
}

/// Looks at everything since the last time.
pub async fn compare(steps: &Steps, work: &mut Work) -> Result<(), Trouble> {
    strays_again(work).await?;
    let pool = work.pool.clone();
    let until = work.input.started_at - YOUNG;
    let mark = marks::reached(&pool, Comparison::Confirmations, marks::EVERYTHING).await?;
    let beginning = confirmations::beginning(&pool).await?.unwrap_or(until);
    let usual = mark.map_or(beginning, |mark| mark - OVERLAP);
    // What was published long ago is removed from the outbox.
    let pruned_before = confirmations::pruned_before(&pool).await?;
    let begin = work.input.since.unwrap_or(usual).max(pruned_before);
    let kafka_from = match work.input.since {
        Some(_) => begin,
        None => begin.max(until - KAFKA_AT_MOST),
    };
    let mut from = work.cursor::<Cursor>().map_or(begin, |cursor| cursor.from);
    while from < until {
        let to = (from + SLICE).min(until);
        told(work, from, to).await?;
        if to > kafka_from {
            on_kafka(steps, work, from.max(kafka_from), to).await?;
        }
        from = to;
        work.reached(&Cursor { from });
    }
    let started_at = work.input.started_at;
    let kinds = [UNTOLD];
    findings::end_unseen(
        &pool,
        Comparison::Confirmations,
        &kinds,
        started_at,
        Some(begin),
    )
    .await?;
    let kinds = [UNPUBLISHED];
    let seen_from = Some(kafka_from);
    findings::end_unseen(
        &pool,
        Comparison::Confirmations,
        &kinds,
        started_at,
        seen_from,
    )
    .await?;
    findings::end_unseen(&pool, Comparison::Confirmations, &[STRAY], started_at, None).await?;
    if work.input.repair && begin <= mark.unwrap_or(begin).max(pruned_before) {
        let everything = marks::EVERYTHING;
        marks::set_reached(&pool, Comparison::Confirmations, everything, until).await?;
    }
    Ok(())
}

/// What happened in a slice is in the outbox.
async fn told(work: &mut Work, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<(), Trouble> {
    let pool = work.pool.clone();
    let (transfers, untold) = confirmations::untold_transfers(&pool, from, to).await?;
    tell(work, transfers, untold).await?;
    let (redemptions, untold) = confirmations::untold_redemptions(&pool, from, to).await?;
    tell(work, redemptions, untold).await
}

async fn tell(work: &mut Work, expected: u64, untold: Vec<Untold>) -> Result<(), Trouble> {
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    work.looked_at(expected, expected.saturating_sub(untold.len()));
    for untold in untold {
        let found = Found {
            comparison: Comparison::Confirmations,
            kind: UNTOLD,
            subject: untold.subject.clone(),
            detail: format!(
                "{} for customer {} is not in the outbox",
                untold.subject, untold.customer_id
            ),
            fix: repair_since(untold.happened_at),
            happened_at: Some(untold.happened_at),
            evidence: serde_json::json!({}),
        };
        if work.input.repair {
            confirmations::tell_again(&work.pool, &untold).await?;
            work.repaired(&found).await?;
        } else {
            work.found(&found).await?;
        }
    }
    Ok(())
}

fn repair_since(at: DateTime<Utc>) -> String {
    let since = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    format!("meed reconcile --repair --since {since}")
}

// ---------------------------------------------------------------------------------------- Kafka

async fn on_kafka(
    steps: &Steps,
    work: &mut Work,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(), Trouble> {
    for name in TOPICS {
        let (seen, kept_from) = read_slice(steps, work, name, from, to).await?;
        published(work, name, (from, to), &seen, kept_from).await?;
    }
    Ok(())
}

/// What of a topic counts as the same message, however often it is published.
type Identity = [u8; 16];

fn identity<'a>(
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> Identity {
    /// The headers that tell two messages with one body apart.
    const TELLING: [&str; 3] = ["ce_id", "meed-account-version", header::DLQ_ID];
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(key.unwrap_or_default());
    for (name, value) in headers.filter(|(name, _)| TELLING.contains(name)) {
        part(name.as_bytes());
        part(value);
    }
    part(body);
    let mut identity = Identity::default();
    identity.copy_from_slice(&hash.finalize()[..16]);
    identity
}

fn identity_of_record(record: &Record) -> Identity {
    let headers = record.headers.iter();
    identity(
        record.key.as_deref(),
        headers.map(|(name, value)| (name.as_str(), value.as_slice())),
        record.value.as_deref().unwrap_or_default(),
    )
}

fn identity_of_row(row: &Published) -> Identity {
    let headers = row.message.headers.iter();
    identity(
        row.message.key.as_deref(),
        headers.map(|(name, value)| (name.as_str(), value.as_slice())),
        &row.message.body,
    )
}

/// Reads what a topic got in a slice of time and a little around it, and looks whether the ledger
/// bears it out. Comes back with what was seen, and from when on the topic still has everything.
async fn read_slice(
    steps: &Steps,
    work: &mut Work,
    topic: &'static str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(HashSet<Identity>, Option<DateTime<Utc>>), Trouble> {
    let mut seen = HashSet::new();
    let mut kept_from = None;
    let kafka = steps.kafka.clone();
    let stretches = blocking(move || {
        let consumer = kafka.reader()?;
        let mut stretches: Vec<(Held, i64, i64)> = Vec::new();
        for held in reading::partitions(&consumer, topic)? {
            let begin = reading::offset_at(&consumer, topic, held, from - SKEW)?;
            let end = reading::offset_at(&consumer, topic, held, to + SKEW)?;
            stretches.push((held, begin, end));
        }
        Ok(stretches)
    })
    .await?;
    for (held, begin, end) in stretches {
        // Whether retention has taken some of what this slice needs is only a question where the
        // stretch begins with what is left.
        if held.low > 0 && begin == held.low {
            let first = first_time(steps, topic, held).await?;
            kept_from = kept_from.max(first);
        }
        if begin >= end {
            continue;
        }
        let kafka = steps.kafka.clone();
        let open = move || Reader::open(&kafka, topic, held.partition, begin, end);
        let mut reader = blocking(open).await?;
        loop {
            let (back, records) = reader.chunk(AT_A_TIME).await?;
            reader = back;
            if records.is_empty() {
                break;
            }
            seen.extend(records.iter().map(identity_of_record));
            let own = |record: &&Record| record.timestamp >= from && record.timestamp < to;
            let own: Vec<&Record> = records.iter().filter(own).collect();
            borne_out(work, topic, &own).await?;
        }
        blocking(move || {
            drop(reader);
            Ok(())
        })
        .await?;
    }
    Ok((seen, kept_from))
}

/// The time of the first message that a partition still has.
async fn first_time(
    steps: &Steps,
    topic: &'static str,
    held: Held,
) -> Result<Option<DateTime<Utc>>, Trouble> {
    if held.low >= held.high {
        return Ok(None);
    }
    let kafka = steps.kafka.clone();
    let open = move || Reader::open(&kafka, topic, held.partition, held.low, held.high);
    let (reader, first) = blocking(open).await?.chunk(1).await?;
    blocking(move || {
        drop(reader);
        Ok(())
    })
    .await?;
    Ok(first.first().map(|record| record.timestamp))
}

/// What the outbox says was published in a slice is on Kafka.
async fn published(
    work: &mut Work,
    topic: &str,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    seen: &HashSet<Identity>,
    kept_from: Option<DateTime<Utc>>,
) -> Result<(), Trouble> {
    let limit = i64::try_from(AT_A_TIME).unwrap_or(i64::MAX);
    let mut after = 0;
    loop {
        let rows = confirmations::published(&work.pool, topic, from, to, after, limit).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.outbox_id;
        let gone = |row: &Published| {
            kept_from.is_some_and(|kept_from| row.published_at < kept_from + SKEW)
        };
        let absent: Vec<&Published> = rows
            .iter()
            .filter(|row| !seen.contains(&identity_of_row(row)))
            .collect();
        let not_kept = absent.iter().filter(|row| gone(row)).count();
        work.not_compared(not_kept);
        work.looked_at(rows.len() - not_kept, rows.len() - absent.len());
        for row in absent.into_iter().filter(|row| !gone(row)) {
            publish(work, topic, row).await?;
        }
    }
}

async fn publish(work: &mut Work, topic: &str, row: &Published) -> Result<(), Trouble> {
    let found = Found {
        comparison: Comparison::Confirmations,
        kind: UNPUBLISHED,
        subject: format!("outbox {}", row.outbox_id),
        detail: format!(
            "outbox {} for {topic} is marked as published at {}, and Kafka does not have it",
            row.outbox_id, row.published_at
        ),
        fix: repair_since(row.published_at),
        happened_at: Some(row.published_at),
        evidence: serde_json::json!({}),
    };
    if work.input.repair {
        confirmations::publish_again(&work.pool, row).await?;
        work.repaired(&found).await
    } else {
        work.found(&found).await
    }
}

// --------------------------------------------------------------------------- the other way round

/// What a message claims; nothing for one that claims nothing of the ledger.
fn claim(topic: &str, record: &Record) -> Option<Claim> {
    let body = record.value.as_deref().unwrap_or_default();
    let text = |name: &str| {
        let found = record.headers.iter().find(|(n, _)| n == name);
        found.and_then(|(_, value)| str::from_utf8(value).ok())
    };
    let read = match topic {
        topic::REWARD_CONFIRMED => {
            serde_json::from_slice(body)
                .ok()
                .map(|said: RewardConfirmed| Claim::Rewarded {
                    customer: said.customer_id.to_string(),
                    event: said.source_event_id,
                    points: said.points_awarded.get(),
                })
        }
        topic::POINTS_ADDED => serde_json::from_slice(body)
            .ok()
            .and_then(|said: PointsAdded| {
                Some(Claim::Changed {
                    customer: said.user_id.to_string(),
                    version: text("meed-account-version")?.parse().ok()?,
                    difference: said.difference,
                    total: said.total_points.get(),
                })
            }),
        topic::REDEEM_CONFIRMED => {
            serde_json::from_slice(body)
                .ok()
                .map(|said: RedeemConfirmed| Claim::Ended {
                    redemption: said.redeem_request_id,
                    status: said.status.to_string(),
                    points: said.points_deducted.get(),
                })
        }
        _ => return None,
    };
    Some(read.unwrap_or(Claim::Unreadable))
}

async fn borne_out(work: &mut Work, topic: &str, records: &[&Record]) -> Result<(), Trouble> {
    let (records, claims): (Vec<&Record>, Vec<Claim>) = records
        .iter()
        .filter_map(|record| Some((*record, claim(topic, record)?)))
        .unzip();
    if claims.is_empty() {
        return Ok(());
    }
    let truths = confirmations::borne_out(&work.pool, &claims).await?;
    work.looked_at(
        claims.len(),
        truths.iter().filter(|is_true| **is_true).count(),
    );
    for ((record, claim), is_true) in records.into_iter().zip(claims).zip(truths) {
        if is_true {
            continue;
        }
        if answered_for(work, &claim).await? {
            work.looked_at(0, 1);
        } else {
            work.found(&stray(topic, record, &claim)).await?;
        }
    }
    Ok(())
}

/// The adjustment that answers for a reward that was told and never posted.
fn adjustment_id(claim: &Claim) -> Option<String> {
    match claim {
        Claim::Rewarded { event, .. } => Some(format!("confirmed-{event}")),
        _ => None,
    }
}

async fn answered_for(work: &Work, claim: &Claim) -> Result<bool, Trouble> {
    match adjustment_id(claim) {
        Some(id) => Ok(adjustments::exists(&work.pool, &id).await?),
        None => Ok(false),
    }
}

fn stray(topic: &str, record: &Record, claim: &Claim) -> Found {
    let accept = "meed reconcile --accept FINDING --reason \"who was told, and that it is put \
                  right there\"";
    let (says, fix) = match claim {
        Claim::Rewarded {
            customer,
            event,
            points,
        } => (
            format!("that customer {customer} was awarded {points} points for {event}"),
            format!(
                "meed adjust --customer {customer} --points {points} --id confirmed-{event} \
                 --reason \"was told and never posted\""
            ),
        ),
        Claim::Changed {
            customer,
            version,
            difference,
            total,
        } => (
            format!(
                "that customer {customer} has {total} points after a change by {difference} \
                 (version {version})"
            ),
            accept.to_owned(),
        ),
        Claim::Ended {
            redemption,
            status,
            points,
        } => (
            format!("that redemption {redemption} ended {status} with {points} points deducted"),
            accept.to_owned(),
        ),
        Claim::Unreadable => ("nothing that can be read".to_owned(), accept.to_owned()),
    };
    let (partition, offset) = (record.partition, record.offset);
    Found {
        comparison: Comparison::Confirmations,
        kind: STRAY,
        subject: format!("{topic}/{partition}/{offset}"),
        detail: format!(
            "message {offset} of {topic}, partition {partition}, says {says}; the ledger does not"
        ),
        fix,
        happened_at: Some(record.timestamp),
        evidence: serde_json::to_value(claim).unwrap_or_default(),
    }
}

/// Looks again at what was found without an effect: the window has moved on, the message has not.
async fn strays_again(work: &mut Work) -> Result<(), Trouble> {
    for finding in findings::open(&work.pool, Some(Comparison::Confirmations)).await? {
        if finding.kind != STRAY {
            continue;
        }
        let claim = serde_json::from_value(finding.evidence).unwrap_or(Claim::Unreadable);
        let truths = confirmations::borne_out(&work.pool, std::slice::from_ref(&claim)).await?;
        if truths != [true] && !answered_for(work, &claim).await? {
            let started_at = work.input.started_at;
            findings::keep(&work.pool, finding.finding_id, started_at).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn with(headers: &[(&str, &str)], body: &str) -> Record {
        Record {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            value: Some(body.as_bytes().to_vec()),
            ..record(1)
        }
    }

    #[test]
    fn a_message_is_the_same_wherever_it_stands_and_another_with_another_id_or_body() {
        let one = with(&[("ce_id", "1"), ("traceparent", "x")], "{}");
        let again = Record {
            offset: 77,
            ..with(&[("ce_id", "1")], "{}")
        };
        assert_eq!(identity_of_record(&one), identity_of_record(&again));
        for other in [
            with(&[("ce_id", "2")], "{}"),
            with(&[("ce_id", "1")], "[]"),
            Record {
                key: None,
                ..with(&[("ce_id", "1")], "{}")
            },
        ] {
            assert_ne!(identity_of_record(&one), identity_of_record(&other));
        }
    }

    #[test]
    fn a_claim_is_read_from_what_is_published() {
        let added = r#"{"userId":"C","totalPoints":70,"difference":-30}"#;
        let record = with(&[("meed-account-version", "3")], added);
        assert_eq!(
            claim(topic::POINTS_ADDED, &record),
            Some(Claim::Changed {
                customer: "C".to_owned(),
                version: 3,
                difference: -30,
                total: 70
            })
        );
        let nothing = with(&[], "nothing");
        assert_eq!(
            claim(topic::REWARD_CONFIRMED, &nothing),
            Some(Claim::Unreadable)
        );
        assert_eq!(claim(topic::DEAD_LETTER, &nothing), None);
    }
}
