//! CloudEvents over Kafka, in both modes: structured (the envelope is the value) and binary (the
//! envelope is in the headers).

use chrono::{DateTime, Utc};

use super::{
    Message,
    object::{Object, not_in_future, timestamp},
};
use crate::{Refusal, RefusalClass, refusal::printable};

const SPECVERSION: &str = "1.0";
const STRUCTURED: &str = "application/cloudevents";

/// What Meed takes from an envelope.
pub(super) struct CloudEvent<'a> {
    /// The event's data.
    pub(super) data: Object<'a>,
    /// The envelope's time, or else Kafka's.
    pub(super) occurred_at: DateTime<Utc>,
}

enum Envelope<'m, 'a> {
    Headers(&'m Message<'m>),
    Fields(&'m Object<'a>),
}

/// Opens the envelope of `message`, whose parsed value is `body`.
pub(super) fn open<'a>(
    message: &Message<'_>,
    body: Object<'a>,
    now: DateTime<Utc>,
) -> Result<CloudEvent<'a>, Refusal> {
    let content_type = message.header("content-type").map(media_type);
    let structured = content_type
        .as_deref()
        .is_some_and(|media_type| media_type.starts_with(STRUCTURED));
    let binary = !structured
        && message
            .headers
            .iter()
            .any(|(name, _)| name.to_ascii_lowercase().starts_with("ce_"));
    let envelope = if binary {
        Envelope::Headers(message)
    } else {
        Envelope::Fields(&body)
    };

    let specversion = envelope.required("specversion")?;
    if specversion != SPECVERSION {
        return Err(Refusal::new(
            RefusalClass::WrongType,
            format!(
                "specversion of the CloudEvent is \"{}\", not \"{SPECVERSION}\"",
                printable(&specversion, 20)
            ),
        ));
    }
    envelope.required("id")?;
    envelope.required("source")?;
    let kind = envelope.required("type")?;
    if !is_kind(&kind, message.topic) {
        return Err(Refusal::new(
            RefusalClass::UnknownEventType,
            format!(
                "type of the CloudEvent is \"{}\", not \"{}\"",
                printable(&kind, 100),
                message.topic
            ),
        ));
    }
    let data_type = match envelope {
        Envelope::Headers(_) => content_type,
        Envelope::Fields(_) => envelope
            .optional("datacontenttype")?
            .map(|text| media_type(text.as_bytes())),
    };
    if let Some(media_type) = data_type.filter(|media_type| !is_json(media_type)) {
        return Err(Refusal::new(
            RefusalClass::WrongType,
            format!(
                "the data of the CloudEvent is {}, not application/json",
                printable(&media_type, 60)
            ),
        ));
    }
    let occurred_at = match envelope.optional("time")? {
        Some(time) => timestamp("time of the CloudEvent", &time, now)?,
        None => not_in_future(
            "Kafka's timestamp of the message",
            message.origin()?.timestamp,
            now,
        )?,
    };
    let data = if binary { body } else { body.object("data")? };
    Ok(CloudEvent { data, occurred_at })
}

impl Envelope<'_, '_> {
    fn optional(&self, attribute: &str) -> Result<Option<String>, Refusal> {
        match self {
            Self::Fields(body) => Ok(body.optional_text(attribute)?.map(str::to_owned)),
            Self::Headers(message) => message
                .header(&format!("ce_{attribute}"))
                .map(|value| {
                    str::from_utf8(value).map(str::to_owned).map_err(|_| {
                        Refusal::new(
                            RefusalClass::WrongType,
                            format!("header ce_{attribute} is not UTF-8"),
                        )
                    })
                })
                .transpose(),
        }
    }

    fn required(&self, attribute: &str) -> Result<String, Refusal> {
        self.optional(attribute)?
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                Refusal::new(
                    RefusalClass::MissingField,
                    format!("{attribute} of the CloudEvent is missing"),
                )
            })
    }
}

/// Whether a type is the one of its topic, with or without a reversed domain name before it.
fn is_kind(kind: &str, topic: &str) -> bool {
    kind.strip_suffix(topic)
        .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

/// The media type without its parameters, in lower case.
fn media_type(header: &[u8]) -> String {
    let text = String::from_utf8_lossy(header);
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    media_type.ends_with("/json") || media_type.ends_with("+json")
}
