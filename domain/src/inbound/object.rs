//! An object whose fields are read by what they must be; each refusal names the field.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    IdError, Points,
    id::ID_MAX_CHARS,
    json::Json,
    money::{Amount, AmountError, Currency},
    number::Number,
    refusal::{Refusal, RefusalClass, printable},
};

/// How far ahead of now a timestamp may be, in hours.
pub const TIMESTAMP_AHEAD_MAX_HOURS: i64 = 24;

/// How much of a value is quoted in a reason, in characters.
const QUOTE_MAX_CHARS: usize = 60;

pub(super) struct Object<'a> {
    /// What stands before its fields' names in a reason: empty, or `payload.`.
    path: String,
    members: &'a BTreeMap<String, Json>,
}

impl<'a> Object<'a> {
    /// A message, which must be an object.
    pub(super) fn of_message(json: &'a Json) -> Result<Self, Refusal> {
        match json {
            Json::Object(members) => Ok(Self {
                path: String::new(),
                members,
            }),
            other => Err(Refusal::new(
                RefusalClass::WrongType,
                format!("the message must be an object, not {}", other.kind()),
            )),
        }
    }

    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = (&'a String, &'a Json)> {
        self.members.iter()
    }

    /// Refuses every field but these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self
            .members
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(Refusal::new(
                RefusalClass::WrongType,
                format!(
                    "{}{} is not a known field",
                    self.path,
                    printable(name, QUOTE_MAX_CHARS)
                ),
            )),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Json> {
        self.members.get(name).filter(|json| **json != Json::Null)
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Refusal> {
        value.ok_or_else(|| {
            Refusal::new(
                RefusalClass::MissingField,
                format!("{}{name} is missing", self.path),
            )
        })
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &Json) -> Refusal {
        Refusal::new(
            RefusalClass::WrongType,
            format!(
                "{}{name} must be {expected}, not {}",
                self.path,
                found.kind()
            ),
        )
    }

    fn invalid(&self, class: RefusalClass, name: &str, value: &str, why: &str) -> Refusal {
        Refusal::new(
            class,
            format!(
                "{}{name} is \"{}\": {why}",
                self.path,
                printable(value, QUOTE_MAX_CHARS)
            ),
        )
    }

    /// Names the field as the sender does, which is not always what the id is called here.
    fn invalid_id(&self, name: &str, error: &IdError) -> Refusal {
        let why = match error {
            IdError::Empty { .. } => "is empty".to_owned(),
            IdError::TooLong { chars, .. } => {
                format!("has {chars} characters, more than {ID_MAX_CHARS}")
            }
            IdError::Unprintable { .. } => {
                "holds a control character or outer white space".to_owned()
            }
            IdError::Forbidden { character, .. } => {
                format!("holds the character {character:?}, which it may not")
            }
        };
        Refusal::new(
            RefusalClass::InvalidId,
            format!("{}{name} {why}", self.path),
        )
    }

    pub(super) fn optional_object(&self, name: &str) -> Result<Option<Object<'a>>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Object(members)) => Ok(Some(Object {
                path: format!("{}{name}.", self.path),
                members,
            })),
            Some(other) => Err(self.wrong_type(name, "an object", other)),
        }
    }

    pub(super) fn object(&self, name: &str) -> Result<Object<'a>, Refusal> {
        self.required(name, self.optional_object(name)?)
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "a string", other)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, Refusal> {
        self.required(name, self.optional_text(name)?)
    }

    pub(super) fn optional_id<T>(
        &self,
        name: &str,
        read: fn(String) -> Result<T, IdError>,
    ) -> Result<Option<T>, Refusal> {
        self.optional_text(name)?
            .map(|text| read(text.to_owned()).map_err(|error| self.invalid_id(name, &error)))
            .transpose()
    }

    pub(super) fn id<T>(
        &self,
        name: &str,
        read: fn(String) -> Result<T, IdError>,
    ) -> Result<T, Refusal> {
        self.required(name, self.optional_id(name, read)?)
    }

    /// An id that some senders write as a number: 42 and "42" are the same.
    pub(super) fn id_or_number<T>(
        &self,
        name: &str,
        read: fn(String) -> Result<T, IdError>,
    ) -> Result<T, Refusal> {
        match self.required(name, self.get(name))? {
            Json::Text(_) => self.id(name, read),
            Json::Number(number)
                if number.is_negative()
                    || !number.is_whole()
                    || number.integer_digits() > ID_MAX_CHARS as u64 =>
            {
                let why = "a number that is an id is whole, not negative, and no longer than an id";
                Err(self.invalid(RefusalClass::InvalidId, name, &number.to_string(), why))
            }
            Json::Number(number) => {
                read(number.to_string()).map_err(|error| self.invalid_id(name, &error))
            }
            other => Err(self.wrong_type(name, "a string or a number", other)),
        }
    }

    pub(super) fn optional_amount(&self, name: &str) -> Result<Option<Amount>, Refusal> {
        let (written, amount) = match self.get(name) {
            None => return Ok(None),
            Some(Json::Text(text)) => (text.clone(), Amount::parse(text)),
            Some(Json::Number(number)) => (number.to_string(), Amount::try_from(number)),
            Some(other) => return Err(self.wrong_type(name, "a number or a string", other)),
        };
        amount.map(Some).map_err(|error: AmountError| {
            self.invalid(
                RefusalClass::InvalidAmount,
                name,
                &written,
                &error.to_string(),
            )
        })
    }

    pub(super) fn amount(&self, name: &str) -> Result<Amount, Refusal> {
        self.required(name, self.optional_amount(name)?)
    }

    pub(super) fn optional_currency(&self, name: &str) -> Result<Option<Currency>, Refusal> {
        self.optional_text(name)?
            .map(|code| {
                Currency::parse(code).ok_or_else(|| {
                    self.invalid(
                        RefusalClass::UnknownCurrency,
                        name,
                        code,
                        "a currency is three capital letters",
                    )
                })
            })
            .transpose()
    }

    fn number(&self, name: &str) -> Result<&'a Number, Refusal> {
        match self.required(name, self.get(name))? {
            Json::Number(number) => Ok(number),
            other => Err(self.wrong_type(name, "a number", other)),
        }
    }

    pub(super) fn nights(&self, name: &str) -> Result<u32, Refusal> {
        let number = self.number(name)?;
        number
            .to_i64()
            .and_then(|nights| u32::try_from(nights).ok())
            .filter(|nights| *nights >= 1)
            .ok_or_else(|| {
                let why = "nights are a whole number of one or more";
                self.invalid(RefusalClass::InvalidAmount, name, &number.to_string(), why)
            })
    }

    pub(super) fn points(&self, name: &str) -> Result<Points, Refusal> {
        let number = self.number(name)?;
        number
            .to_i64()
            .and_then(|points| Points::new(points).ok())
            .filter(|points| !points.is_zero())
            .ok_or_else(|| {
                let why = "points are a whole number from 1 to 9223372036854775807";
                self.invalid(RefusalClass::InvalidPoints, name, &number.to_string(), why)
            })
    }

    pub(super) fn optional_timestamp(
        &self,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Refusal> {
        self.optional_text(name)?
            .map(|text| timestamp(&format!("{}{name}", self.path), text, now))
            .transpose()
    }

    pub(super) fn timestamp(
        &self,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Refusal> {
        self.required(name, self.optional_timestamp(name, now)?)
    }
}

/// Reads an RFC 3339 timestamp; `what` names it in a reason.
pub(super) fn timestamp(
    what: &str,
    text: &str,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refusal> {
    let at = DateTime::parse_from_rfc3339(text).map_err(|error| {
        let quoted = printable(text, QUOTE_MAX_CHARS);
        Refusal::new(
            RefusalClass::InvalidTimestamp,
            format!("{what} is \"{quoted}\", not an RFC 3339 timestamp such as 2026-03-14T12:00:00Z: {error}"),
        )
    })?;
    not_in_future(what, at.to_utc(), now)
}

/// Refuses an instant further ahead of `now` than clocks can differ.
pub(super) fn not_in_future(
    what: &str,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refusal> {
    if at.signed_duration_since(now) <= TimeDelta::hours(TIMESTAMP_AHEAD_MAX_HOURS) {
        return Ok(at);
    }
    Err(Refusal::new(
        RefusalClass::TimestampInFuture,
        format!("{what} is {at}, more than {TIMESTAMP_AHEAD_MAX_HOURS} hours ahead of {now}"),
    ))
}
