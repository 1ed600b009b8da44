//! One dead letter: what it says of itself, and what sending it again would do.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use domain::{
    Command, Refusal,
    inbound::{self, Message, Origin, header, topic},
    message,
};
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};

use super::select::Place;

/// What stands for something that a letter does not say.
const UNKNOWN: &str = "?";

/// A dead letter as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands.
    pub place: Place,
    /// When it was published there: at once after the message was refused, unless Kafka was away.
    pub refused_at: DateTime<Utc>,
    /// The message's key.
    pub key: Option<Vec<u8>>,
    /// The message's headers and those of Meed, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message's value.
    pub body: Vec<u8>,
}

/// A message as it was, with the headers by which it is known as a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayMessage {
    /// Where it first stood, and is sent again: to the same partition, which is its customer's.
    pub origin: Origin,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// What sending a letter again would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prospect {
    /// It would be read as this. What the rules and the ledger say to it, only they know.
    Read(String),
    /// It breaks its contract now as it did then.
    RefusedAgain(Refusal),
}

impl Letter {
    /// Copies a message out of the consumer.
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            place: Place {
                partition: message.partition(),
                offset: message.offset(),
            },
            refused_at: message
                .timestamp()
                .to_millis()
                .and_then(DateTime::from_timestamp_millis)
                .unwrap_or_default(),
            key: message.key().map(<[u8]>::to_vec),
            headers: message.headers().map_or_else(Vec::new, |headers| {
                headers
                    .iter()
                    .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                    .collect()
            }),
            body: message.payload().unwrap_or_default().to_vec(),
        }
    }

    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| String::from_utf8_lossy(value))
    }

    fn said(&self, name: &str) -> Cow<'_, str> {
        self.header(name).unwrap_or(Cow::Borrowed(UNKNOWN))
    }

    /// What it is remembered by: its identity, or its place when it was written before letters had
    /// one.
    pub fn id(&self) -> String {
        self.header(header::DLQ_ID)
            .filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
            .map_or_else(|| format!("dead-letter/{}", self.place), Cow::into_owned)
    }

    /// The error class.
    pub fn class(&self) -> Cow<'_, str> {
        self.said(header::DLQ_CLASS)
    }

    /// The error text.
    pub fn reason(&self) -> Cow<'_, str> {
        self.said(header::DLQ_REASON)
    }

    /// The topic it came from.
    pub fn source_topic(&self) -> Cow<'_, str> {
        self.said(header::DLQ_TOPIC)
    }

    /// Topic, partition and offset where the message first stood.
    pub fn source_parts(&self) -> [String; 3] {
        [header::DLQ_TOPIC, header::DLQ_PARTITION, header::DLQ_OFFSET]
            .map(|name| self.said(name).into_owned())
    }

    /// The same in one word.
    pub fn source(&self) -> String {
        self.source_parts().join("/")
    }

    /// The letter whose replay this was, when it was one.
    pub fn replay_of(&self) -> Option<Cow<'_, str>> {
        self.header(header::REPLAY_OF)
    }

    /// Whether it is only the beginning of the message.
    pub fn is_truncated(&self) -> bool {
        self.header(header::DLQ_TRUNCATED).is_some()
    }

    /// The sender's own headers.
    pub fn original_headers(&self) -> impl Iterator<Item = &(String, Vec<u8>)> {
        self.headers
            .iter()
            .filter(|(name, _)| !header::is_ours(name))
    }

    /// The message to send again.
    ///
    /// # Errors
    /// Why there is none: part of it is missing, or it is no dead letter of Meed.
    pub fn replay(&self) -> Result<ReplayMessage, String> {
        if self.is_truncated() {
            return Err(format!(
                "only part of it was kept, {} of {} bytes of its value; the whole message stands in \
                 {} as long as that topic keeps it, and Meed reads none of more than {} bytes",
                self.body.len(),
                self.said(header::DLQ_ORIGINAL_BYTES),
                self.source(),
                inbound::MESSAGE_MAX_BYTES,
            ));
        }
        let mut headers: Vec<(String, Vec<u8>)> = self.original_headers().cloned().collect();
        headers.push((header::REPLAY.to_owned(), b"true".to_vec()));
        headers.push((header::REPLAY_OF.to_owned(), self.id().into_bytes()));
        let identity = [
            header::DLQ_TOPIC,
            header::DLQ_PARTITION,
            header::DLQ_OFFSET,
            header::DLQ_TIMESTAMP,
        ];
        for name in identity {
            let found = self
                .headers
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(name));
            let (_, value) = found.ok_or_else(|| format!("it does not say {name}"))?;
            headers.push((name.to_owned(), value.clone()));
        }
        let value = (self.header(header::DLQ_NO_VALUE).is_none()).then(|| self.body.clone());
        let origin = Message {
            topic: message::topic::DEAD_LETTER,
            partition: self.place.partition,
            offset: self.place.offset,
            key: self.key.as_deref(),
            headers: &headers,
            value: value.as_deref(),
            timestamp: self.refused_at,
        }
        .origin()
        .map_err(|refusal| refusal.reason)?;
        if !topic::ALL.contains(&origin.topic.as_str()) {
            return Err(format!("Meed reads no topic {:?}", origin.topic));
        }
        Ok(ReplayMessage {
            origin,
            key: self.key.clone(),
            headers,
            value,
        })
    }
}

impl ReplayMessage {
    /// What the intake would make of it.
    pub fn prospect(&self, now: DateTime<Utc>) -> Prospect {
        let read = inbound::read(
            &Message {
                topic: &self.origin.topic,
                partition: self.origin.partition,
                // Where it will stand; a replay is known by where it first stood.
                offset: i64::MAX,
                key: self.key.as_deref(),
                headers: &self.headers,
                value: self.value.as_deref(),
                timestamp: now,
            },
            now,
        );
        match read {
            Ok(Some(Command::Award(award))) => Prospect::Read(format!(
                "{} of customer {}, known as {} {}",
                award.event_type, award.customer_id, award.source, award.event_id
            )),
            Ok(Some(Command::Redeem(request))) => Prospect::Read(format!(
                "redemption {} of {} points by customer {} at merchant {}",
                request.redeem_request_id, request.points, request.customer_id, request.merchant_id
            )),
            Ok(Some(Command::Notify(notification))) => Prospect::Read(format!(
                "{} to tell {}, known as {}",
                notification.kind,
                notification.user_id,
                notification.identity.trim_start()
            )),
            Ok(None) => Prospect::Read("an event that Meed has no use for".to_owned()),
            Err(refusal) => Prospect::RefusedAgain(refusal),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn letter(offset: i64, topic: &str, class: &str, body: &[u8]) -> Letter {
        let headers = [
            ("content-type", "application/json"),
            ("meed-dlq-topic", topic),
            ("meed-dlq-partition", "4"),
            ("meed-dlq-offset", "77"),
            ("meed-dlq-timestamp", "1700000000123"),
            ("meed-dlq-class", class),
            ("meed-dlq-reason", "said somebody"),
            ("meed-dlq-id", "00112233445566778899aabbccddeeff"),
        ];
        Letter {
            place: Place {
                partition: 1,
                offset,
            },
            refused_at: "2026-03-14T12:00:00Z".parse().expect("a time"),
            key: Some(b"C1".to_vec()),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .into(),
            body: body.to_vec(),
        }
    }

    fn set(letter: &mut Letter, name: &str, value: &str) {
        letter.headers.retain(|(other, _)| other != name);
        letter
            .headers
            .push((name.to_owned(), value.as_bytes().to_vec()));
    }

    fn now() -> DateTime<Utc> {
        "2026-03-14T13:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_letter_says_what_it_was() {
        let letter = letter(5, "orders", "DATA_ERROR", b"{}");
        assert_eq!(letter.place.to_string(), "1-5");
        assert_eq!(letter.id(), "00112233445566778899aabbccddeeff");
        assert_eq!(letter.class(), "DATA_ERROR");
        assert_eq!(letter.reason(), "said somebody");
        assert_eq!(letter.source(), "orders/4/77");
        assert_eq!(letter.replay_of(), None);
        let original: Vec<&str> = letter.original_headers().map(|(n, _)| n.as_str()).collect();
        assert_eq!(original, ["content-type"]);
    }

    #[test]
    fn a_letter_without_an_identity_is_known_by_its_place() {
        let mut letter = letter(5, "orders", "DATA_ERROR", b"{}");
        for unusable in ["", "a\u{0}b", &"x".repeat(65)] {
            set(&mut letter, "meed-dlq-id", unusable);
            assert_eq!(letter.id(), "dead-letter/1-5");
        }
        letter.headers.clear();
        assert_eq!(letter.id(), "dead-letter/1-5");
        assert_eq!(letter.source(), "?/?/?");
    }

    #[test]
    fn a_replay_is_the_message_as_it_was_and_where_it_first_stood() {
        let mut letter = letter(
            5,
            "orders",
            "DATA_ERROR",
            br#"{"customerId":"C1","amount":250}"#,
        );
        set(&mut letter, "meed-replay-of", "an earlier one");
        let replay = letter.replay().expect("it can be replayed");
        assert_eq!(replay.key, letter.key);
        assert_eq!(replay.value.as_deref(), Some(&letter.body[..]));
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        assert_eq!(
            replay.headers,
            [
                header("content-type", "application/json"),
                header("meed-replay", "true"),
                header("meed-replay-of", "00112233445566778899aabbccddeeff"),
                header("meed-dlq-topic", "orders"),
                header("meed-dlq-partition", "4"),
                header("meed-dlq-offset", "77"),
                header("meed-dlq-timestamp", "1700000000123"),
            ]
        );
        let Prospect::Read(prospect) = replay.prospect(now()) else {
            panic!("it is readable");
        };
        assert_eq!(
            prospect,
            "ORDER of customer C1, known as order-at orders-4-77"
        );
    }

    #[test]
    fn an_absent_value_is_sent_as_none() {
        let mut letter = letter(5, "orders", "MALFORMED_JSON", b"");
        assert_eq!(letter.replay().expect("a message").value, Some(Vec::new()));
        set(&mut letter, "meed-dlq-no-value", "true");
        assert_eq!(letter.replay().expect("a message").value, None);
    }

    #[test]
    fn what_is_not_whole_cannot_be_replayed() {
        let mut cut = letter(5, "orders", "PAYLOAD_TOO_LARGE", &[b'x'; 10]);
        set(&mut cut, "meed-dlq-truncated", "true");
        set(&mut cut, "meed-dlq-original-bytes", "4000000");
        let reason = cut.replay().expect_err("it is cut");
        assert!(
            reason.contains("10 of 4000000 bytes") && reason.contains("orders/4/77"),
            "{reason}"
        );

        for (name, value) in [
            ("meed-dlq-offset", "seven"),
            ("meed-dlq-partition", ""),
            ("meed-dlq-timestamp", "then"),
        ] {
            let mut broken = letter(5, "orders", "DATA_ERROR", b"{}");
            set(&mut broken, name, value);
            let reason = broken.replay().expect_err("it is unreadable");
            assert!(reason.contains(name), "{reason}");
            broken.headers.retain(|(other, _)| other != name);
            let reason = broken.replay().expect_err("it is absent");
            assert!(reason.contains(name), "{reason}");
        }
        let reason = letter(5, "reward-confirmed", "DATA_ERROR", b"{}")
            .replay()
            .expect_err("nobody reads it");
        assert!(reason.contains("reward-confirmed"), "{reason}");
    }

    #[test]
    fn what_breaks_its_contract_would_be_refused_again() {
        let prospect = |body: &[u8], now| {
            letter(5, "reward-events", "DATA_ERROR", body)
                .replay()
                .expect("a message")
                .prospect(now)
        };
        let Prospect::RefusedAgain(refusal) = prospect(b"no json", now()) else {
            panic!("it is malformed");
        };
        assert_eq!(refusal.class.as_str(), "MALFORMED_JSON");
        // What was in the future once is not for ever.
        let stay = br#"{"eventId":"E1","eventType":"HOTEL_STAY","customerId":"C1",
            "timestamp":"2026-03-20T10:00:00Z","payload":{"nights":2}}"#;
        assert!(matches!(
            prospect(stay, now()),
            Prospect::RefusedAgain(refusal) if refusal.class.as_str() == "TIMESTAMP_IN_FUTURE"
        ));
        let later = "2026-03-20T12:00:00Z".parse().expect("a time");
        assert_eq!(
            prospect(stay, later),
            Prospect::Read("HOTEL_STAY of customer C1, known as reward-event E1".to_owned())
        );
    }
}
