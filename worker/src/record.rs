//! A message as it came from Kafka, owned.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{Refusal, inbound};
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};
use sha2::{Digest, Sha256};
use store::outbox::OutboxMessage;

/// The largest value that a dead letter keeps whole.
const DEAD_LETTER_WHOLE_BYTES: usize = 3 * 1024 * 1024;
/// How much it keeps of a larger one; all of it stays in its own topic.
const DEAD_LETTER_CUT_BYTES: usize = 1024 * 1024;
/// `true` on a dead letter that is not the whole message.
const DLQ_TRUNCATED: &str = "meed-dlq-truncated";
/// How many bytes the whole value has.
const DLQ_ORIGINAL_BYTES: &str = "meed-dlq-original-bytes";
/// The SHA-256 of the whole value, in hexadecimal.
const DLQ_SHA256: &str = "meed-dlq-sha256";

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
    pub fn dead_letter(&self, refusal: &Refusal) -> OutboxMessage {
        use inbound::header;
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
        ];
        let mut body = self.value.as_deref().unwrap_or_default();
        if body.len() > DEAD_LETTER_WHOLE_BYTES {
            ours.extend([
                (DLQ_TRUNCATED, "true".to_owned()),
                (DLQ_ORIGINAL_BYTES, body.len().to_string()),
                (DLQ_SHA256, hex::encode(Sha256::digest(body))),
            ]);
            body = &body[..DEAD_LETTER_CUT_BYTES];
        }
        let replaced = |name: &str| {
            name.eq_ignore_ascii_case(header::REPLAY)
                || ours.iter().any(|(ours, _)| name.eq_ignore_ascii_case(ours))
        };
        let mut headers: Vec<(String, Vec<u8>)> = self
            .headers
            .iter()
            .filter(|(name, _)| !replaced(name))
            .cloned()
            .collect();
        headers.extend(
            ours.into_iter()
                .map(|(name, value)| (name.to_owned(), value.into_bytes())),
        );
        OutboxMessage {
            topic: domain::message::topic::DEAD_LETTER.to_owned(),
            key: self.key.clone(),
            headers,
            body: body.to_vec(),
        }
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

    fn header<'a>(letter: &'a OutboxMessage, name: &str) -> Vec<&'a [u8]> {
        letter
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_slice())
            .collect()
    }

    #[test]
    fn a_dead_letter_keeps_the_message_and_tells_where_it_stood() {
        let mut record = record(7);
        record.headers = vec![("x".to_owned(), vec![0xff]), ("x".to_owned(), vec![1])];
        let letter = record.dead_letter(&Refusal::new(RefusalClass::MissingField, "amount"));
        assert_eq!(letter.topic, "dead-letter");
        assert_eq!(
            (letter.key.as_deref(), letter.body.as_slice()),
            (Some(&b"c"[..]), &b"{}"[..])
        );
        assert_eq!(header(&letter, "x"), [&[0xff][..], &[1][..]]);
        assert_eq!(header(&letter, "meed-dlq-topic"), [b"orders"]);
        assert_eq!(header(&letter, "meed-dlq-partition"), [b"2"]);
        assert_eq!(header(&letter, "meed-dlq-offset"), [b"7"]);
        assert_eq!(header(&letter, "meed-dlq-timestamp"), [b"1700000000123"]);
        assert_eq!(header(&letter, "meed-dlq-class"), [b"MISSING_FIELD"]);
        assert_eq!(header(&letter, "meed-dlq-reason"), [b"amount"]);
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
        assert!(Some(whole.body.clone()) == record.value);
        assert!(header(&whole, "meed-dlq-truncated").is_empty());

        let (cut, record) = letter(3 * 1024 * 1024 + 1);
        let value = record.value.expect("a value");
        assert!(cut.body == value[..1024 * 1024]);
        assert_eq!(header(&cut, "meed-dlq-truncated"), [b"true"]);
        assert_eq!(header(&cut, "meed-dlq-original-bytes"), [b"3145729"]);
        let sha256 = hex::encode(Sha256::digest(&value));
        assert_eq!(header(&cut, "meed-dlq-sha256"), [sha256.as_bytes()]);
        assert_eq!(header(&cut, "meed-dlq-offset"), [b"7"]);
    }

    #[test]
    fn a_replayed_dead_letter_that_is_refused_again_keeps_its_first_place() {
        let first = record(7).dead_letter(&Refusal::new(RefusalClass::MissingField, "amount"));
        let mut again = record(99);
        again.headers = first.headers;
        again
            .headers
            .push(("meed-replay".to_owned(), b"true".to_vec()));
        let letter = again.dead_letter(&Refusal::new(RefusalClass::WrongType, "amount"));
        assert_eq!(header(&letter, "meed-dlq-offset"), [b"7"]);
        assert_eq!(header(&letter, "meed-dlq-class"), [b"WRONG_TYPE"]);
        assert!(header(&letter, "meed-replay").is_empty());
    }
}
