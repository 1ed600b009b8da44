//! `meed dlq show`.

use std::{borrow::Cow, io::Write as _};

use anyhow::{Context, Result};
use chrono::Utc;
use domain::inbound::header;
use serde_json::{Value, json};
use store::{PgPool, dead_letters};

use super::{
    letter::{Letter, Prospect},
    list,
    reader::Reader,
    select::Place,
    text,
};

/// How much of a header is shown, and of anything else that a sender may have written.
const FACT_CHARS: usize = 1_000;

/// Prints the bytes of a letter's body and nothing else.
///
/// # Errors
/// When Kafka does not answer or there is no such letter.
pub fn body(reader: &Reader, place: Place) -> Result<()> {
    let letter = reader.one(place)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&letter.body)
        .and_then(|()| out.flush())
        .context("the body cannot be written out")
}

/// Prints everything about a letter.
///
/// # Errors
/// When Kafka does not answer or there is no such letter.
pub async fn run(
    reader: &Reader,
    pool: Option<&PgPool>,
    place: Place,
    as_json: bool,
) -> Result<()> {
    let letter = reader.one(place)?;
    let id = letter.id();
    let (mut replayed, mut replay_of) = (None, None);
    if let Some(pool) = pool {
        replayed = dead_letters::replayed(pool, std::slice::from_ref(&id))
            .await?
            .remove(&id);
        if let Some(first) = letter.replay_of() {
            replay_of = dead_letters::place_of(pool, &first).await?;
        }
    }
    let replay_of = replay_of.or_else(|| letter.replay_of().map(Cow::into_owned));
    let would = what_a_replay_would_do(&letter);
    if as_json {
        println!(
            "{}",
            json!({
                "id": place.to_string(),
                "letterId": id,
                "refusedAt": letter.refused_at,
                "class": letter.class(),
                "reason": letter.reason(),
                "source": list::source_value(&letter.source_parts()),
                "replayOf": replay_of,
                "replayed": replayed.as_ref().map(list::replay_value),
                "wouldBeSent": would.is_ok(),
                "replay": would.unwrap_or_else(|why| why),
                "key": letter.key.as_deref().map(list::bytes_value),
                "headers": letter.headers.iter().map(header_value).collect::<Vec<_>>(),
                "body": list::bytes_value(&letter.body),
                "bodyBytes": letter.body.len(),
                "truncated": letter.is_truncated(),
            })
        );
        return Ok(());
    }
    let [topic, partition, offset] = letter.source_parts();
    let replayed = match (&replayed, pool) {
        (Some(replayed), _) => format!("{} by {}", list::in_words(replayed), replayed.by),
        (None, Some(_)) => "no".to_owned(),
        (None, None) => "?".to_owned(),
    };
    let mut facts = vec![
        ("dead letter", place.to_string()),
        ("identity", id),
        ("refused", letter.refused_at.to_rfc3339()),
        ("class", letter.class().into_owned()),
        ("reason", letter.reason().into_owned()),
        (
            "first stood",
            format!("{topic}, partition {partition}, offset {offset}"),
        ),
        ("replayed", replayed),
        (
            "replay would",
            would.unwrap_or_else(|why| format!("not be sent: {why}")),
        ),
    ];
    facts.extend(replay_of.map(|first| ("replay of", first)));
    for (name, fact) in facts {
        println!("{name:12}  {}", text::cut(fact.as_bytes(), FACT_CHARS));
    }
    println!();
    println!("headers");
    for (name, value) in &letter.headers {
        let whose = if header::is_ours(name) { "*" } else { " " };
        println!(
            " {whose} {}: {}",
            text::cut(name.as_bytes(), FACT_CHARS),
            text::cut(value, FACT_CHARS)
        );
    }
    println!("   (* added by Meed)");
    println!();
    part("key", letter.key.as_deref());
    let has_value = letter.header(header::DLQ_NO_VALUE).is_none();
    part("body", has_value.then_some(&letter.body[..]));
    Ok(())
}

fn part(name: &str, bytes: Option<&[u8]>) {
    match bytes {
        None => println!("{name}: none"),
        Some(bytes) => println!("{name}, {} bytes\n{}", bytes.len(), text::whole(bytes)),
    }
    println!();
}

fn header_value((name, value): &(String, Vec<u8>)) -> Value {
    let mut header = list::bytes_value(value);
    header["name"] = json!(name);
    header
}

/// What would be sent where, or why nothing would be.
fn what_a_replay_would_do(letter: &Letter) -> Result<String, String> {
    let message = letter.replay()?;
    let origin = &message.origin;
    match message.prospect(Utc::now()) {
        Prospect::Read(what) => Ok(format!(
            "send it to {}, partition {}, to be read as {what}",
            origin.topic, origin.partition
        )),
        Prospect::RefusedAgain(refusal) => Err(format!(
            "it would be refused again, {refusal} (--anyway sends it)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlq::letter::tests::letter;

    #[test]
    fn it_is_told_what_a_replay_would_do() {
        let would = |body: &[u8]| what_a_replay_would_do(&letter(5, "orders", "DATA_ERROR", body));
        assert_eq!(
            would(br#"{"customerId":"C1","amount":250,"orderId":"O1"}"#),
            Ok(
                "send it to orders, partition 4, to be read as ORDER of customer C1, known as \
                order O1"
                    .to_owned()
            )
        );
        let why = would(b"{").expect_err("it is malformed");
        assert!(
            why.contains("MALFORMED_JSON") && why.contains("--anyway"),
            "{why}"
        );
    }
}
