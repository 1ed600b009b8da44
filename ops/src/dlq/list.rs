//! `meed dlq list`.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};
use store::{PgPool, dead_letters::Replayed};

use super::{
    letter::Letter,
    progress::Progress,
    reader::Reader,
    select::{Filter, Place},
    text,
};

const KEY_CHARS: usize = 24;
const REASON_CHARS: usize = 80;
const BODY_CHARS: usize = 60;
/// Machines wrap no lines.
const BODY_CHARS_JSON: usize = 200;

/// What the list shows of a letter.
struct Row {
    place: Place,
    id: String,
    refused_at: DateTime<Utc>,
    class: String,
    reason: String,
    source: [String; 3],
    key: Option<Vec<u8>>,
    body: String,
    body_bytes: usize,
    truncated: bool,
}

impl Row {
    fn of(letter: &Letter, body_chars: usize) -> Self {
        Self {
            place: letter.place,
            id: letter.id(),
            refused_at: letter.refused_at,
            class: text::cut(letter.class().as_bytes(), REASON_CHARS),
            reason: letter.reason().into_owned(),
            source: letter.source_parts(),
            key: letter.key.clone(),
            body: text::cut(&letter.body, body_chars),
            body_bytes: letter.body.len(),
            truncated: letter.is_truncated(),
        }
    }
}

/// The newest letters, and how many of each class there are.
struct Found {
    newest: BTreeMap<(DateTime<Utc>, Place), Row>,
    by_class: BTreeMap<String, u64>,
}

impl Found {
    fn matched(&self) -> u64 {
        self.by_class.values().sum()
    }
}

/// Prints the newest letters that the filter takes.
///
/// # Errors
/// When Kafka does not answer.
pub async fn run(
    reader: &Reader,
    pool: Option<&PgPool>,
    filter: &Filter,
    limit: usize,
    as_json: bool,
) -> Result<()> {
    let body_chars = if as_json { BODY_CHARS_JSON } else { BODY_CHARS };
    let found = find(reader, filter, limit, body_chars)?;
    let ids: Vec<String> = found.newest.values().map(|row| row.id.clone()).collect();
    let replayed = match pool {
        Some(pool) => Some(store::dead_letters::replayed(pool, &ids).await?),
        None => None,
    };
    if as_json {
        println!("{}", as_value(&found, replayed.as_ref()));
    } else {
        print(&found, replayed.as_ref());
    }
    Ok(())
}

fn find(reader: &Reader, filter: &Filter, limit: usize, body_chars: usize) -> Result<Found> {
    let mut found = Found {
        newest: BTreeMap::new(),
        by_class: BTreeMap::new(),
    };
    let mut scan = reader.scan(filter.since)?;
    let mut progress = Progress::new(scan.length);
    while let Some(letter) = scan.next()? {
        progress.at(scan.length - scan.remaining(), || {
            format!("{} match", found.matched())
        });
        if !filter.takes(&letter) {
            continue;
        }
        let row = Row::of(&letter, body_chars);
        *found.by_class.entry(row.class.clone()).or_default() += 1;
        found.newest.insert((row.refused_at, row.place), row);
        if found.newest.len() > limit {
            found.newest.pop_first();
        }
    }
    Ok(found)
}

fn print(found: &Found, replayed: Option<&HashMap<String, Replayed>>) {
    if found.matched() == 0 {
        println!("There are no such dead letters.");
        return;
    }
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "id",
        "refused (UTC)",
        "class",
        "reason",
        "from",
        "key",
        "body",
        "replayed",
    ]);
    for row in found.newest.values().rev() {
        table.add_row([
            row.place.to_string(),
            row.refused_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            row.class.clone(),
            text::cut(row.reason.as_bytes(), REASON_CHARS),
            text::cut(row.source.join("/").as_bytes(), REASON_CHARS),
            row.key
                .as_deref()
                .map_or_else(|| "-".to_owned(), |key| text::cut(key, KEY_CHARS)),
            row.body.clone(),
            replayed.map_or_else(
                || "?".to_owned(),
                |replayed| replayed.get(&row.id).map_or("no".to_owned(), in_words),
            ),
        ]);
    }
    println!("{table}");
    let mut counts = Table::new();
    counts.set_header(["class", "dead letters"]);
    for (class, count) in &found.by_class {
        counts.add_row([class, &count.to_string()]);
    }
    println!("{counts}");
    println!(
        "{} dead letters match; {} are shown, newest first.",
        found.matched(),
        found.newest.len()
    );
}

/// When a letter was replayed, and what came of it.
pub fn in_words(replayed: &Replayed) -> String {
    let mut words = vec![replayed.at.format("%Y-%m-%d %H:%M:%S").to_string()];
    if replayed.times > 1 {
        words.push(format!("{} times", replayed.times));
    }
    if let Some(class) = &replayed.refused_again {
        words.push(format!("refused again: {class}"));
    }
    words.join(", ")
}

/// The same for machines.
pub fn replay_value(replayed: &Replayed) -> Value {
    json!({
        "at": replayed.at, "by": replayed.by, "times": replayed.times,
        "refusedAgain": replayed.refused_again,
    })
}

/// Bytes for machines: text where they are one.
pub fn bytes_value(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex::encode(bytes) }),
    }
}

/// Where a message first stood, for machines.
pub fn source_value([topic, partition, offset]: &[String; 3]) -> Value {
    json!({
        "topic": topic,
        "partition": partition.parse::<i32>().ok(),
        "offset": offset.parse::<i64>().ok(),
    })
}

/// `replayed` is `null` for a letter that was not; it is left out when nobody knows.
fn as_value(found: &Found, replayed: Option<&HashMap<String, Replayed>>) -> Value {
    let letters: Vec<Value> = found
        .newest
        .values()
        .rev()
        .map(|row| {
            let mut value = json!({
                "id": row.place.to_string(),
                "letterId": row.id,
                "refusedAt": row.refused_at,
                "class": row.class,
                "reason": row.reason,
                "source": source_value(&row.source),
                "key": row.key.as_deref().map(bytes_value),
                "body": row.body,
                "bodyBytes": row.body_bytes,
                "truncated": row.truncated,
            });
            if let Some(replayed) = replayed {
                value["replayed"] = replayed.get(&row.id).map_or(Value::Null, replay_value);
            }
            value
        })
        .collect();
    json!({ "letters": letters, "matched": found.matched(), "byReason": found.by_class })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlq::letter::tests::letter;

    fn found() -> Found {
        let rows = [
            letter(1, "orders", "DATA_ERROR", b"{\"a\":1}"),
            letter(2, "players", "WRONG_TYPE", &[0xff]),
        ]
        .map(|letter| Row::of(&letter, 5));
        Found {
            by_class: rows.iter().map(|row| (row.class.clone(), 1)).collect(),
            newest: rows
                .into_iter()
                .map(|row| ((row.refused_at, row.place), row))
                .collect(),
        }
    }

    fn replayed() -> Replayed {
        Replayed {
            times: 2,
            at: "2026-03-14T12:30:00Z".parse().expect("a time"),
            by: "me".to_owned(),
            refused_again: Some("DATA_ERROR".to_owned()),
        }
    }

    #[test]
    fn machines_get_every_field() {
        let found = found();
        let id = found.newest.values().next().expect("a row").id.clone();
        let value = as_value(&found, Some(&[(id, replayed())].into()));
        assert_eq!(value["matched"], 2);
        assert_eq!(
            value["byReason"],
            json!({ "DATA_ERROR": 1, "WRONG_TYPE": 1 })
        );
        assert_eq!(value["letters"][0]["id"], "1-2", "newest first");
        assert_eq!(
            value["letters"][1],
            json!({
                "id": "1-1", "letterId": "00112233445566778899aabbccddeeff",
                "refusedAt": "2026-03-14T12:00:00Z", "class": "DATA_ERROR",
                "reason": "said somebody",
                "source": { "topic": "orders", "partition": 4, "offset": 77 },
                "key": { "text": "C1" }, "body": "{\"a\"…", "bodyBytes": 7, "truncated": false,
                "replayed": {
                    "at": "2026-03-14T12:30:00Z", "by": "me", "times": 2,
                    "refusedAgain": "DATA_ERROR"
                }
            })
        );
        let unknown = as_value(&found, None);
        assert!(unknown["letters"][0].get("replayed").is_none());
        let none = as_value(&found, Some(&HashMap::new()));
        assert_eq!(none["letters"][0].get("replayed"), Some(&Value::Null));
    }

    #[test]
    fn a_replay_is_told_in_words() {
        assert_eq!(
            in_words(&replayed()),
            "2026-03-14 12:30:00, 2 times, refused again: DATA_ERROR"
        );
        let once = Replayed {
            times: 1,
            refused_again: None,
            ..replayed()
        };
        assert_eq!(in_words(&once), "2026-03-14 12:30:00");
    }
}
