//! A message as it came from Kafka, owned.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{Refusal, inbound};
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};
use sha2::{Digest, Sha256};
use store::{dead_letters::DeadLetter, outbox::OutboxMessage};

/// The largest value that a dead letter keeps whole.
const DEAD_LETTER_WHOLE_BYTES: usize = 3 * 1024 * 1024;
/// How much it keeps of a larger one; all of it stays in its own topic.
const DEAD_LETTER_CUT_BYTES: usize = 1024 * 1024;
/// How large a key and headers may be together for a dead letter to keep them; of a larger message it has
/// the beginning of the key and no headers, since a topic has no room for what it might be.
const DEAD_LETTER_ASIDE_BYTES: usize = 512 * 1024;
/// How much of such a key it keeps.
const DEAD_LETTER_KEY_BYTES: usize = 1024;
/// How many bytes of a digest are a dead letter's identity.
const LETTER_ID_BYTES: usize = 16;
/// The longest identity of a replayed dead letter that is believed.
const REPLAY_OF_MAX_BYTES: usize = 64;

/// A message and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Kafka's timestamp.
    pub timestamp: DateTime<Utc>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Copies a message out of the consumer.
    pub fn of(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Self {
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message
                .timestamp()
                .to_millis()
                .and_then(DateTime::from_timestamp_millis)
                .unwrap_or_default(),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers_of(message),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }

    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, v)| name.len() + v.len())
            .sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// The message as the anti-corruption layer reads it.
    pub fn as_message(&self) -> inbound::Message<'_> {
        inbound::Message {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            key: self.key.as_deref(),
            headers: &self.headers,
            value: self.value.as_deref(),
            timestamp: self.timestamp,
        }
    }

    /// The dead letter of this message: its own bytes, key and headers, and what became of it.
    /// One that had been replayed keeps the place where it first stood. Of a very large value only
    /// the beginning is kept, so that the letter can always be published.
    pub fn dead_letter(&self, refusal: &Refusal) -> DeadLetter {
        use inbound::header;
        let id = self.letter_id();
        let replay_of = self.replay_of();
        let origin = self
            .as_message()
            .origin()
            .unwrap_or_else(|_| inbound::Origin {
                topic: self.topic.to_string(),
                partition: self.partition,
                offset: self.offset,
                timestamp: self.timestamp,
            });
        let mut ours = vec![
            (header::DLQ_TOPIC, origin.topic),
            (header::DLQ_PARTITION, origin.partition.to_string()),
            (header::DLQ_OFFSET, origin.offset.to_string()),
            (
                header::DLQ_TIMESTAMP,
                origin.timestamp.timestamp_millis().to_string(),
            ),
            (header::DLQ_CLASS, refusal.class.as_str().to_owned()),
            (header::DLQ_REASON, refusal.reason.clone()),
            (header::DLQ_ID, id.clone()),
        ];
        if let Some(replay_of) = &replay_of {
            ours.push((header::REPLAY_OF, replay_of.clone()));
        }
        if self.value.is_none() {
            ours.push((header::DLQ_NO_VALUE, "true".to_owned()));
        }
        let mut body = self.value.as_deref().unwrap_or_default();
        let mut key = self.key.clone();
        let of_headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let aside = key.as_ref().map_or(0, Vec::len) + of_headers.sum::<usize>();
        let fits_aside = aside <= DEAD_LETTER_ASIDE_BYTES;
        if body.len() > DEAD_LETTER_WHOLE_BYTES || !fits_aside {
            ours.extend([
                (header::DLQ_TRUNCATED, "true".to_owned()),
                (header::DLQ_ORIGINAL_BYTES, body.len().to_string()),
                (header::DLQ_SHA256, hex::encode(Sha256::digest(body))),
            ]);
            body = &body[..body.len().min(DEAD_LETTER_CUT_BYTES)];
        }
        if !fits_aside && let Some(key) = &mut key {
            key.truncate(DEAD_LETTER_KEY_BYTES);
        }
        let mut headers: Vec<(String, Vec<u8>)> = self
            .headers
            .iter()
            .filter(|(name, _)| fits_aside && !header::is_ours(name))
            .cloned()
            .collect();
        headers.extend(
            ours.into_iter()
                .map(|(name, value)| (name.to_owned(), value.into_bytes())),
        );
        DeadLetter {
            id,
            topic: self.topic.to_string(),
            partition: self.partition,
            offset: self.offset,
            class: refusal.class.as_str(),
            replay_of,
            message: OutboxMessage {
                topic: domain::message::topic::DEAD_LETTER.to_owned(),
                key,
                headers,
                body: body.to_vec(),
            },
        }
    }

    /// What the dead letter of this message is known by: where it stands now, not where it first
    /// stood, and what is in it, because a topic that was made anew has the same places.
    pub fn letter_id(&self) -> String {
        let mut digest = Sha256::new();
        let mut part = |bytes: Option<&[u8]>| {
            // Its length first, so that no two messages can look the same.
            digest.update(
                bytes
                    .map_or(u64::MAX, |bytes| bytes.len() as u64)
                    .to_be_bytes(),
            );
            digest.update(bytes.unwrap_or_default());
        };
        part(Some(self.topic.as_bytes()));
        part(Some(&self.partition.to_be_bytes()));
        part(Some(&self.offset.to_be_bytes()));
        part(Some(&self.timestamp.timestamp_millis().to_be_bytes()));
        part(self.key.as_deref());
        part(self.value.as_deref());
        hex::encode(&digest.finalize()[..LETTER_ID_BYTES])
    }

    /// The dead letter that this is a replay of. Whatever else stands in the header was not written
    /// by Meed and tells nothing.
    fn replay_of(&self) -> Option<String> {
        use inbound::header;
        let message = self.as_message();
        if message.header(header::REPLAY) != Some(b"true") {
            return None;
        }
        let id = str::from_utf8(message.header(header::REPLAY_OF)?).ok()?;
        let readable = (1..=REPLAY_OF_MAX_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic());
        readable.then(|| id.to_owned())
    }
}

/// The headers of a message. rdkafka panics on a header whose name is not UTF-8; such a message
/// must not stop its partition, so it goes on without headers.
fn headers_of(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let read = || {
        message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                .collect()
        })
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| {
        tracing::warn!(
            topic = message.topic(),
            partition = message.partition(),
            offset = message.offset(),
            "headers with unreadable names were left out"
        );
        Vec::new()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::RefusalClass;

    use super::*;

    pub(crate) fn record(offset: i64) -> Record {
        Record {
            topic: Arc::from("orders"),
            partition: 2,
            offset,
            timestamp: DateTime::from_timestamp_millis(1_700_000_000_123).expect("in range"),
            key: Some(b"c".to_vec()),
            headers: Vec::new(),
            value: Some(b"{}".to_vec()),
        }
    }

    fn header<'a>(letter: &'a DeadLetter, name: &str) -> Vec<&'a [u8]> {
        letter
            .message
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_slice())
            .collect()
    }

    fn missing_amount() -> Refusal {
        Refusal::new(RefusalClass::MissingField, "amount")
    }

    #[test]
    fn a_dead_letter_keeps_the_message_and_tells_where_it_stood() {
        let mut record = record(7);
        record.headers = vec![("x".to_owned(), vec![0xff]), ("x".to_owned(), vec![1])];
        let letter = record.dead_letter(&missing_amount());
        assert_eq!(letter.message.topic, "dead-letter");
        assert_eq!(
            (
                letter.message.key.as_deref(),
                letter.message.body.as_slice()
            ),
            (Some(&b"c"[..]), &b"{}"[..])
        );
        assert_eq!(header(&letter, "x"), [&[0xff][..], &[1][..]]);
        assert_eq!(header(&letter, "meed-dlq-topic"), [b"orders"]);
        assert_eq!(header(&letter, "meed-dlq-partition"), [b"2"]);
        assert_eq!(header(&letter, "meed-dlq-offset"), [b"7"]);
        assert_eq!(header(&letter, "meed-dlq-timestamp"), [b"1700000000123"]);
        assert_eq!(header(&letter, "meed-dlq-class"), [b"MISSING_FIELD"]);
        assert_eq!(header(&letter, "meed-dlq-reason"), [b"amount"]);
        assert_eq!(header(&letter, "meed-dlq-id"), [letter.id.as_bytes()]);
        assert!(header(&letter, "meed-dlq-no-value").is_empty());
        assert_eq!(
            (&*letter.topic, letter.partition, letter.offset),
            ("orders", 2, 7)
        );
    }

    #[test]
    fn an_absent_value_is_told_from_an_empty_one() {
        let absent = Record {
            value: None,
            ..record(7)
        };
        let empty = Record {
            value: Some(Vec::new()),
            ..record(7)
        };
        let (absent, empty) = (
            absent.dead_letter(&missing_amount()),
            empty.dead_letter(&missing_amount()),
        );
        assert_eq!(header(&absent, "meed-dlq-no-value"), [b"true"]);
        assert!(header(&empty, "meed-dlq-no-value").is_empty());
        assert_ne!(absent.id, empty.id);
    }

    #[test]
    fn a_dead_letter_of_a_very_large_value_keeps_its_beginning_and_says_so() {
        let letter = |bytes: usize| {
            let value = (0..=255).cycle().take(bytes).collect();
            let record = Record {
                value: Some(value),
                ..record(7)
            };
            let refusal = Refusal::new(RefusalClass::PayloadTooLarge, "value");
            (record.dead_letter(&refusal), record)
        };
        let (whole, record) = letter(3 * 1024 * 1024);
        assert!(Some(whole.message.body.clone()) == record.value);
        assert!(header(&whole, "meed-dlq-truncated").is_empty());

        let (cut, record) = letter(3 * 1024 * 1024 + 1);
        let value = record.value.expect("a value");
        assert!(cut.message.body == value[..1024 * 1024]);
        assert_eq!(header(&cut, "meed-dlq-truncated"), [b"true"]);
        assert_eq!(header(&cut, "meed-dlq-original-bytes"), [b"3145729"]);
        let sha256 = hex::encode(Sha256::digest(&value));
        assert_eq!(header(&cut, "meed-dlq-sha256"), [sha256.as_bytes()]);
        assert_eq!(header(&cut, "meed-dlq-offset"), [b"7"]);
    }

    /// Kafka counts what was compressed; the letter has to find room as it is.
    #[test]
    fn a_dead_letter_keeps_neither_a_very_large_key_nor_very_large_headers() {
        let mut record = record(7);
        record.key = Some(vec![b'k'; 600 * 1024]);
        record.headers = vec![("x".to_owned(), vec![0; 100])];
        let letter = record.dead_letter(&missing_amount());
        assert_eq!(letter.message.key, Some(vec![b'k'; 1024]));
        assert!(header(&letter, "x").is_empty());
        assert_eq!(header(&letter, "meed-dlq-truncated"), [b"true"]);
        assert_eq!(header(&letter, "meed-dlq-original-bytes"), [b"2"]);
        record.key = Some(b"c".to_vec());
        record.headers = vec![("x".to_owned(), vec![0; 600 * 1024])];
        let letter = record.dead_letter(&missing_amount());
        assert_eq!(letter.message.key, Some(b"c".to_vec()));
        assert!(header(&letter, "x").is_empty());
        assert_eq!(header(&letter, "meed-dlq-truncated"), [b"true"]);
    }

    #[test]
    fn a_replayed_dead_letter_that_is_refused_again_keeps_its_first_place() {
        let first = record(7).dead_letter(&missing_amount());
        let mut again = record(99);
        again.headers = first.message.headers;
        again
            .headers
            .push(("meed-replay".to_owned(), b"true".to_vec()));
        again
            .headers
            .push(("meed-replay-of".to_owned(), first.id.clone().into_bytes()));
        let letter = again.dead_letter(&Refusal::new(RefusalClass::WrongType, "amount"));
        assert_eq!(header(&letter, "meed-dlq-offset"), [b"7"]);
        assert_eq!(header(&letter, "meed-dlq-class"), [b"WRONG_TYPE"]);
        assert!(header(&letter, "meed-replay").is_empty());
        assert_eq!(header(&letter, "meed-replay-of"), [first.id.as_bytes()]);
        assert_eq!(letter.replay_of.as_ref(), Some(&first.id));
        assert_eq!(header(&letter, "meed-dlq-id"), [letter.id.as_bytes()]);
        assert_ne!(letter.id, first.id, "a letter of its own");
    }

    #[test]
    fn a_letter_has_the_same_identity_each_time_and_another_one_another() {
        let id = |record: &Record| record.dead_letter(&missing_amount()).id;
        let first = id(&record(7));
        assert_eq!(first.len(), 32);
        let refused_otherwise = Refusal::new(RefusalClass::DataError, "said the database");
        assert_eq!(record(7).dead_letter(&refused_otherwise).id, first);
        let made_anew = record(7).timestamp + chrono::Duration::seconds(1);
        let others = [
            record(8),
            Record {
                partition: 3,
                ..record(7)
            },
            Record {
                topic: Arc::from("players"),
                ..record(7)
            },
            Record {
                timestamp: made_anew,
                ..record(7)
            },
            Record {
                key: None,
                ..record(7)
            },
            Record {
                value: Some(b"[]".to_vec()),
                ..record(7)
            },
        ];
        for other in &others {
            assert_ne!(id(other), first, "{other:?}");
        }
    }

    #[test]
    fn what_senders_write_into_our_headers_is_not_believed() {
        let mut record = record(7);
        let header_of = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        record.headers = vec![
            header_of("Meed-Dlq-Truncated", b"true"),
            header_of("meed-replay-of", b"somebody"),
        ];
        let letter = record.dead_letter(&missing_amount());
        assert!(header(&letter, "Meed-Dlq-Truncated").is_empty());
        assert!(header(&letter, "meed-replay-of").is_empty());
        assert_eq!(letter.replay_of, None, "it is no replay");
        for unreadable in [&b"a\0b"[..], b"", b"\xff", &[b'x'; 65]] {
            record.headers = vec![
                header_of("meed-replay", b"true"),
                header_of("meed-replay-of", unreadable),
            ];
            assert_eq!(record.dead_letter(&missing_amount()).replay_of, None);
        }
    }
}
