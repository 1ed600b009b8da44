//! Values that are checked while they are read, so that a fault is reported at its own line.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use domain::MerchantId;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, MapAccess, Visitor, value::StringDeserializer},
};

use super::LogFormat;
use crate::codec::Codec;

pub use domain::redemption::BUILT_IN_MERCHANT;

/// A text that must not stand in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Err(D::Error::custom("a secret may not be empty"));
        }
        Ok(Self(text))
    }
}

/// A text that must not stand in logs; an empty one is none.
pub(super) fn secret_if_given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.trim().is_empty()).then_some(Secret(text)))
}

/// Keys for payloads; an empty text is none.
pub(super) fn payload_keys<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    let keys = secret_if_given(deserializer)?;
    if let Some(keys) = &keys {
        Codec::parse(keys.expose()).map_err(D::Error::custom)?;
    }
    Ok(keys)
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<u64, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u64::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            D::Error::custom(format!(
                "{number} is not a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
}

/// A day, in the unit at hand; nothing in Meed waits longer.
const TIME_MAX: u64 = 86_400_000;

pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 1..=TIME_MAX)
}

pub(super) fn positive_if_given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    positive(deserializer).map(Some)
}

pub(super) fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 0..=TIME_MAX)
}

/// How long the quick attempt at a partner may take: it holds up a workflow task.
pub(super) fn quick_attempt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 0..=300)
}

/// How long records are kept that are compared with Kafka: as long as it keeps events.
pub(super) fn days_kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 30..=3_650)
}

pub(super) fn clock_skew<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 0..=300)
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = within(deserializer, 1..=10_000)?;
    u32::try_from(number).map_err(D::Error::custom)
}

pub(super) fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = within(deserializer, 1..=10_000_000)?;
    u32::try_from(number).map_err(D::Error::custom)
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Err(D::Error::custom("this may not be empty"));
    }
    Ok(text)
}

/// An `http` or `https` address, without a slash at its end.
pub(super) fn http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    if !is_http_url(&url) {
        return Err(D::Error::custom(format!(
            "{url:?} is not an http:// or https:// address"
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The same; an empty text is none.
pub(super) fn http_url_if_given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    if url.is_empty() {
        return Ok(None);
    }
    http_url(StringDeserializer::<D::Error>::new(url)).map(Some)
}

/// The name of a format of logs; an empty one is none.
pub(super) fn log_format_if_given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<LogFormat>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.is_empty() {
        return Ok(None);
    }
    LogFormat::deserialize(name.into_deserializer()).map(Some)
}

/// A part of a whole.
pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&number) {
        return Ok(number);
    }
    Err(D::Error::custom(format!("{number} is not from 0 to 1")))
}

pub(super) fn is_http_url(url: &str) -> bool {
    url.strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains(' '))
}

/// Origins as browsers send them: scheme and host, with a port only where it is not the usual one. An
/// empty one, such as a variable that is not set, is none.
pub(super) fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut origins = Vec::<String>::deserialize(deserializer)?;
    origins.retain(|origin| !origin.is_empty());
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(D::Error::custom(format!(
            "{origin:?} is not an origin such as https://app.example, without a path"
        ))),
        None => Ok(origins),
    }
}

fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte)
            })
    })
}

/// Task queues of the worker, separated by commas; all of them for none.
pub(super) fn task_queues<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<&'static str>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let all = workflows::id::WORKER_TASK_QUEUES;
    let named = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let queues: Vec<&'static str> = named
        .map(|name| {
            let queue = all.into_iter().find(|queue| *queue == name);
            queue.ok_or_else(|| {
                let all = all.join(", ");
                D::Error::custom(format!("{name:?} is not a task queue of the worker: {all}"))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(if queues.is_empty() {
        all.into()
    } else {
        queues
    })
}

/// Memory of one hash in KiB, from what argon2 needs to a gibibyte.
pub(super) fn hash_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = within(deserializer, 8..=1_048_576)?;
    u32::try_from(number).map_err(D::Error::custom)
}

/// A table by merchant.
pub(super) fn merchants<'de, D, T>(deserializer: D) -> Result<BTreeMap<MerchantId, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Tables<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Tables<T> {
        type Value = BTreeMap<MerchantId, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table for each merchant")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tables = BTreeMap::new();
            while let Some(Name(merchant)) = map.next_key()? {
                tables.insert(merchant, map.next_value()?);
            }
            Ok(tables)
        }
    }

    struct Name(MerchantId);

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let name = String::deserialize(deserializer)?;
            if name == BUILT_IN_MERCHANT {
                return Err(D::Error::custom(format!(
                    "the merchant {BUILT_IN_MERCHANT} is built in and cannot be configured"
                )));
            }
            MerchantId::new(name).map(Self).map_err(D::Error::custom)
        }
    }

    deserializer.deserialize_map(Tables(std::marker::PhantomData))
}
