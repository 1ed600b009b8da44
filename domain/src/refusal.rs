//! Why a message is refused. The classes stand in the dead letters and are counted, so their
//! names never change; the reason beside a class is for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest reason, in characters; senders' bytes are quoted in it only up to here.
pub const REASON_MAX_CHARS: usize = 300;

/// What kind of fault a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalClass {
    /// Not JSON, or JSON that says a thing twice or nests too deeply.
    MalformedJson,
    /// A required field is absent or `null`.
    MissingField,
    /// A field has another JSON type than it must have.
    WrongType,
    /// The event type is none that Meed knows.
    UnknownEventType,
    /// An identifier is empty, too long, or cannot be carried.
    InvalidId,
    /// An amount or a number of nights is negative, too large, too fine, or no number.
    InvalidAmount,
    /// A number of points is zero, negative, fractional or too large.
    InvalidPoints,
    /// The programme has no rate for the currency.
    UnknownCurrency,
    /// A timestamp is not RFC 3339.
    InvalidTimestamp,
    /// A timestamp is further ahead than clocks can differ.
    TimestampInFuture,
    /// The message is larger than Meed reads.
    PayloadTooLarge,
    /// The same id came before with another body.
    BodyConflict,
    /// The database refused the values.
    DataError,
}

impl RefusalClass {
    /// All classes.
    pub const ALL: [Self; 13] = [
        Self::MalformedJson,
        Self::MissingField,
        Self::WrongType,
        Self::UnknownEventType,
        Self::InvalidId,
        Self::InvalidAmount,
        Self::InvalidPoints,
        Self::UnknownCurrency,
        Self::InvalidTimestamp,
        Self::TimestampInFuture,
        Self::PayloadTooLarge,
        Self::BodyConflict,
        Self::DataError,
    ];

    /// The class's name in dead letters and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "MALFORMED_JSON",
            Self::MissingField => "MISSING_FIELD",
            Self::WrongType => "WRONG_TYPE",
            Self::UnknownEventType => "UNKNOWN_EVENT_TYPE",
            Self::InvalidId => "INVALID_ID",
            Self::InvalidAmount => "INVALID_AMOUNT",
            Self::InvalidPoints => "INVALID_POINTS",
            Self::UnknownCurrency => "UNKNOWN_CURRENCY",
            Self::InvalidTimestamp => "INVALID_TIMESTAMP",
            Self::TimestampInFuture => "TIMESTAMP_IN_FUTURE",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::BodyConflict => "BODY_CONFLICT",
            Self::DataError => "DATA_ERROR",
        }
    }

    /// Reads a class's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for RefusalClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused message: the class of its fault and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct Refusal {
    /// The class.
    pub class: RefusalClass,
    /// The reason, for people: which field, and what was expected.
    pub reason: String,
}

impl Refusal {
    /// A refusal. The reason is cut at [`REASON_MAX_CHARS`] and freed of control characters, so
    /// that it can stand in a header, a log line and a database column.
    pub fn new(class: RefusalClass, reason: impl AsRef<str>) -> Self {
        Self {
            class,
            reason: printable(reason.as_ref(), REASON_MAX_CHARS),
        }
    }
}

/// The first `chars_max` characters of what a sender wrote, fit to be read by a person.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut kept: String = text
        .chars()
        .take(chars_max)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(chars_max).is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for class in RefusalClass::ALL {
            assert_eq!(RefusalClass::parse(class.as_str()), Some(class));
            let json = serde_json::to_string(&class).expect("a name");
            assert_eq!(json, format!("\"{class}\""), "the same name in JSON");
        }
        assert_eq!(RefusalClass::parse("NO_SUCH_CLASS"), None);
    }

    #[test]
    fn a_reason_is_short_and_printable() {
        let refusal = Refusal::new(RefusalClass::InvalidId, "a\0b\n".repeat(1000));
        assert_eq!(refusal.reason.chars().count(), REASON_MAX_CHARS);
        assert!(!refusal.reason.chars().any(char::is_control));
        assert_eq!(
            Refusal::new(RefusalClass::MissingField, "payload.amount").to_string(),
            "MISSING_FIELD: payload.amount"
        );
    }
}
