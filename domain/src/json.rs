//! JSON as Meed accepts it: every name once in an object, numbers exact, nesting bounded.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    number::Number,
    refusal::{Refusal, RefusalClass, printable},
};

/// The largest message that is read, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 262_144;
/// How deep objects and lists may nest.
pub const NESTING_MAX: usize = 32;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads a whole message.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(Refusal::new(
                RefusalClass::PayloadTooLarge,
                format!(
                    "the message has {} bytes, more than {MESSAGE_MAX_BYTES}",
                    bytes.len()
                ),
            ));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed("the message is empty"));
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            malformed(format!("not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        // The first pass checks the grammar of the whole message, so that a fault is reported at
        // its place in it; the passes below meet sound fragments.
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        Self::read(raw.get(), 0)
    }

    fn read(text: &str, depth: usize) -> Result<Self, Refusal> {
        let nested = matches!(text.as_bytes().first(), Some(b'{' | b'['));
        if nested && depth >= NESTING_MAX {
            return Err(malformed(format!("nested more than {NESTING_MAX} deep")));
        }
        match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = fragment(text)?;
                let mut object = BTreeMap::new();
                for (name, raw) in members {
                    let value = Self::read(raw.get(), depth + 1)?;
                    if object.contains_key(&name) {
                        let name = printable(&name, 60);
                        return Err(malformed(format!(
                            "the field \"{name}\" occurs twice in one object"
                        )));
                    }
                    object.insert(name, value);
                }
                Ok(Self::Object(object))
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = fragment(text)?;
                items
                    .into_iter()
                    .map(|raw| Self::read(raw.get(), depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Self::List)
            }
            Some(b'"') => fragment(text).map(Self::Text),
            Some(b't' | b'f') => fragment(text).map(Self::Flag),
            Some(b'n') => Ok(Self::Null),
            _ => Number::parse(text).map(Self::Number).ok_or_else(|| {
                malformed(format!(
                    "the number {} is out of range",
                    printable(text, 60)
                ))
            }),
        }
    }

    /// What kind of value it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

fn malformed(reason: impl AsRef<str>) -> Refusal {
    Refusal::new(RefusalClass::MalformedJson, reason)
}

fn fragment<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

/// The members of an object in the order they stand in, repeated names included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(text: &str) -> Option<RefusalClass> {
        Json::parse(text.as_bytes())
            .err()
            .map(|refusal| refusal.class)
    }

    #[test]
    fn reads_every_kind_of_value() {
        let json = Json::parse(br#" {"b":[1.50,"x\u0041",true,null],"a":{}} "#).expect("sound");
        let list = vec![
            Json::Number(Number::parse("1.5").expect("a number")),
            Json::Text("xA".to_owned()),
            Json::Flag(true),
            Json::Null,
        ];
        let object = [
            ("a".to_owned(), Json::Object(BTreeMap::new())),
            ("b".to_owned(), Json::List(list)),
        ];
        assert_eq!(json, Json::Object(object.into()));
    }

    #[test]
    fn refuses_what_is_not_plain_json() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(class(&deep(NESTING_MAX)), None);
        for text in [
            "",
            "  \n",
            "{",
            "{} {}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "[NaN]",
            "\u{feff}{}",
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"\u0061":2}}"#,
            r#"["\ud800"]"#,
            "[1e99999999999999999999]",
            &deep(NESTING_MAX + 1),
            &deep(100_000),
        ] {
            assert_eq!(
                class(text),
                Some(RefusalClass::MalformedJson),
                "{}",
                printable(text, 40)
            );
        }
        assert_eq!(
            Json::parse(b"{\"a\":\"\xC3\x28\"}").map_err(|r| r.class),
            Err(RefusalClass::MalformedJson)
        );
        let filled = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(class(&filled(MESSAGE_MAX_BYTES)), None);
        assert_eq!(
            class(&filled(MESSAGE_MAX_BYTES + 1)),
            Some(RefusalClass::PayloadTooLarge)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn agrees_with_serde_json_on_what_json_is(text in r#"[\[\]{}",:0-9a-z .eE+\\-]{0,24}"#) {
            if Json::parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
            }
        }
    }
}
