//! A message before it is written down: still easy to copy, delay, respell or break.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, FixedOffset, SecondsFormat, Utc};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::body::Body;
use crate::feed::Delivery;

/// Midnight at the start of the day, as Unix milliseconds.
pub(super) const DAY_START_MS: i64 = 1_773_446_400_000;
/// The length of the day in milliseconds.
pub(super) const DAY_MS: i64 = 86_400_000;

/// A message that may still change.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) topic: &'static str,
    pub(super) key: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Body,
    /// When it is sent, as Unix milliseconds; the order of the file.
    pub(super) sent_at_ms: i64,
    /// Written with another field order and spacing.
    pub(super) respelled: bool,
    /// What to do to the bytes in the end.
    pub(super) damage: Damage,
}

/// Faults that no JSON value can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    None,
    /// Ends in the middle.
    CutShort,
    /// A byte inside is no UTF-8.
    NotUtf8,
    /// No JSON at all.
    PlainText,
    /// Nothing at all.
    Empty,
    /// Filled up with an unknown field to exactly this many bytes.
    FilledTo(usize),
}

impl Draft {
    pub(super) fn new(topic: &'static str, key: &str, body: Body, sent_at_ms: i64) -> Self {
        Self {
            topic,
            key: key.to_owned(),
            headers: BTreeMap::new(),
            body,
            sent_at_ms,
            respelled: false,
            damage: Damage::None,
        }
    }

    /// Wraps the body in a CloudEvent, in one of the two modes.
    pub(super) fn cloud_event(mut self, rng: &mut ChaCha8Rng, id: &str) -> Self {
        let attributes = [
            ("specversion", "1.0".to_owned()),
            ("id", format!("{id}-{:08x}", rng.random::<u32>())),
            ("source", "/shop/web".to_owned()),
            ("type", self.topic.to_owned()),
            ("time", rfc3339(self.sent_at_ms)),
        ];
        if rng.random_bool(0.5) {
            let data = std::mem::take(&mut self.body);
            for (name, value) in attributes {
                self.body = self.body.text(name, &value);
            }
            self.body = self
                .body
                .text("datacontenttype", "application/json")
                .object("data", data);
            self.header("content-type", "application/cloudevents+json")
        } else {
            for (name, value) in attributes {
                self = self.header(&format!("ce_{name}"), &value);
            }
            self.header("content-type", "application/json")
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The path of a field of the message proper, wherever its envelope puts it.
    pub(super) fn path(&self, field: &str) -> String {
        if self.body.has("data") {
            format!("data.{field}")
        } else {
            field.to_owned()
        }
    }

    /// Whether a second copy can be recognised.
    pub(super) fn has_identity(&self) -> bool {
        self.topic != "orders" || self.body.has("orderId")
    }

    /// Writes it down.
    pub(super) fn into_delivery(mut self, rng: &mut ChaCha8Rng) -> Delivery {
        if let Damage::FilledTo(bytes) = self.damage {
            let empty = self.body.clone().raw("note", "\"\"").render().len();
            let note = format!("\"{}\"", "x".repeat(bytes - empty));
            self.body = self.body.raw("note", &note);
        }
        let text = if self.respelled {
            self.body.respell(rng)
        } else {
            self.body.render()
        };
        let mut value = text.into_bytes();
        match self.damage {
            Damage::None | Damage::FilledTo(_) => {}
            Damage::CutShort => value.truncate(value.len() - 1 - value.len() / 4),
            Damage::NotUtf8 => {
                let middle = value.len() / 2;
                value[middle] = 0xC3;
                value[middle + 1] = 0x28;
            }
            Damage::PlainText => value = b"customer walked in, 12.50 paid".to_vec(),
            Damage::Empty => value.clear(),
        }
        Delivery {
            topic: self.topic.to_owned(),
            key: self.key,
            headers: self.headers,
            value,
        }
    }
}

/// An instant as RFC 3339 in UTC, with milliseconds.
pub(super) fn rfc3339(at_ms: i64) -> String {
    instant(at_ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// An instant as senders write it: usually UTC, to the second or finer, sometimes with an offset.
pub(super) fn written_timestamp(rng: &mut ChaCha8Rng, at_ms: i64) -> String {
    let at = instant(at_ms);
    match rng.random_range(0..10) {
        0 => at
            .with_timezone(&hours_east(2))
            .to_rfc3339_opts(SecondsFormat::Secs, true),
        1 => at
            .with_timezone(&hours_east(-7))
            .to_rfc3339_opts(SecondsFormat::Millis, true),
        2..5 => at.to_rfc3339_opts(SecondsFormat::Millis, true),
        _ => at.to_rfc3339_opts(SecondsFormat::Secs, true),
    }
}

fn instant(at_ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::milliseconds(at_ms)
}

fn hours_east(hours: i32) -> FixedOffset {
    FixedOffset::east_opt(hours * 3600).expect("a few hours are a valid offset")
}
