//! Reads a rule file. Every fault is told with its place, also one of sense, since it is an
//! operator at a stopped start who reads it.

use std::{collections::BTreeMap, ops::Range};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc, Weekday};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    BILLION, Formula, Multiplier, Programme, ProgrammeError, Rule,
    condition::{Condition, FieldTest, TimeOfDay, Valid},
};
use crate::{Currency, EventType, Fact, Number, Points, Tier, TierThresholds};

/// The longest version and the longest rule name, in characters: both stand in the ledger.
const NAME_MAX_CHARS: usize = 64;

type Value<'i> = Spanned<DeValue<'i>>;

pub(super) fn read(text: &str) -> Result<Programme, ProgrammeError> {
    let document = DeTable::parse(text).map_err(|error| {
        let reason = error
            .message()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        ProgrammeError::at(text, &error.span().unwrap_or(0..0), reason)
    })?;
    let place = Place {
        text,
        about: String::new(),
    };
    let known = [
        "version",
        "default_currency",
        "currencies",
        "tiers",
        "promotions",
        "rules",
    ];
    let file = Section::new(place, 0..0, document.get_ref(), &known)?;

    let version = file.name("version")?;
    let rates = currencies(&file)?;
    let default_currency = {
        let (value, code) = file.text("default_currency")?;
        Currency::parse(code)
            .filter(|currency| rates.contains_key(currency))
            .ok_or_else(|| {
                file.place.fault(
                    value,
                    format!("default_currency \"{code}\" is not among the currencies"),
                )
            })?
    };
    let tiers = tiers(&file)?;
    let bonus_per_unit = bonus_per_unit(&file)?;
    let mut rules: Vec<Rule> = Vec::new();
    if let Some(value) = file.optional("rules") {
        for (number, value) in file.place.list(value, "rules")?.enumerate() {
            let known = [
                "name",
                "event",
                "when",
                "formula",
                "multipliers",
                "cap_per_event",
                "cap_per_day",
            ];
            let mut place = file.place.about(format!("rule {}", number + 1));
            // The name comes first, so that every other fault can name the rule.
            if let DeValue::Table(table) = value.get_ref()
                && let Some((_, name)) = table.iter().find(|(key, _)| key.get_ref() == "name")
                && let DeValue::String(name) = name.get_ref()
            {
                place = file.place.about(format!("rule \"{name}\""));
            }
            let section = Section::open(place, value, "a rule", &known)?;
            let rule = rule(&section, &rates)?;
            if rules.iter().any(|other| other.name == rule.name) {
                return Err(section.place.fault(
                    section.required("name")?,
                    "there is a rule of this name above",
                ));
            }
            rules.push(rule);
        }
    }
    Ok(Programme {
        version,
        default_currency,
        rates,
        tiers,
        bonus_per_unit,
        rules,
    })
}

fn currencies(file: &Section<'_, '_>) -> Result<BTreeMap<Currency, u64>, ProgrammeError> {
    let value = file.required("currencies")?;
    let place = file.place.about("currencies");
    let DeValue::Table(table) = value.get_ref() else {
        return Err(place.fault(value, "must be a table of rates, such as EUR = \"1.08\""));
    };
    let mut rates = BTreeMap::new();
    for (code, rate) in table {
        let currency = Currency::parse(code.get_ref()).ok_or_else(|| {
            place.fault(
                code,
                format!("\"{}\" is not three capital letters", code.get_ref()),
            )
        })?;
        rates.insert(currency, place.positive(rate, "a rate")?);
    }
    if rates.values().all(|rate| *rate != BILLION) {
        return Err(place.fault(
            value,
            "no currency has rate 1; the programme's own one must",
        ));
    }
    Ok(rates)
}

fn tiers(file: &Section<'_, '_>) -> Result<TierThresholds, ProgrammeError> {
    let value = file.required("tiers")?;
    let section = Section::open(
        file.place.about("tiers"),
        value,
        "tiers",
        &["silver", "gold", "platinum"],
    )?;
    let threshold = |name| section.place.points(section.required(name)?, name);
    let (silver, gold, platinum) = (
        threshold("silver")?,
        threshold("gold")?,
        threshold("platinum")?,
    );
    TierThresholds::new(silver, gold, platinum).map_err(|error| {
        // The first threshold that is not above the one before it is the one to look at.
        let name = if silver.is_zero() {
            "silver"
        } else if gold <= silver {
            "gold"
        } else {
            "platinum"
        };
        let at = section.optional(name).unwrap_or(value);
        section.place.fault(at, error.to_string())
    })
}

/// One point per unit where the file says nothing.
fn bonus_per_unit(file: &Section<'_, '_>) -> Result<u64, ProgrammeError> {
    let Some(value) = file.optional("promotions") else {
        return Ok(BILLION);
    };
    let place = file.place.about("promotions");
    let section = Section::open(place, value, "promotions", &["points_per_unit"])?;
    section
        .place
        .positive(section.required("points_per_unit")?, "points_per_unit")
}

fn rule(
    section: &Section<'_, '_>,
    rates: &BTreeMap<Currency, u64>,
) -> Result<Rule, ProgrammeError> {
    let place = &section.place;
    let name = section.name("name")?;
    let (value, event) = section.text("event")?;
    let event = EventType::parse(event).ok_or_else(|| {
        let known = EventType::ALL.map(EventType::as_str).join(", ");
        place.fault(
            value,
            format!("unknown event \"{event}\"; known are {known}"),
        )
    })?;
    let scope = Scope {
        place,
        event,
        rates,
    };
    let when = scope.condition(section.optional("when"))?;
    let formula = scope.formula(section.required("formula")?)?;
    let mut multipliers = Vec::new();
    if let Some(list) = section.optional("multipliers") {
        for value in place.list(list, "multipliers")? {
            let section = Section::open(place.clone(), value, "a multiplier", &["factor", "when"])?;
            let factor = place.positive(section.required("factor")?, "a factor")?;
            let condition = scope.condition(section.optional("when"))?;
            if let Some(why) = when.contradiction(&condition) {
                return Err(place.fault(
                    value,
                    format!("this multiplier can never match together with its rule: {why}"),
                ));
            }
            multipliers.push(Multiplier {
                factor,
                when: condition,
            });
        }
    }
    let cap = |name| match section.optional(name) {
        None => Ok(None),
        Some(value) => {
            let points = place.points(value, name)?;
            if points.is_zero() {
                return Err(place.fault(
                    value,
                    format!("{name} is 0, so the rule could never give anything"),
                ));
            }
            Ok(Some(points))
        }
    };
    let (cap_per_event, cap_per_day) = (cap("cap_per_event")?, cap("cap_per_day")?);
    Ok(Rule {
        name,
        event,
        when,
        formula,
        multipliers,
        cap_per_event,
        cap_per_day,
    })
}

/// Within one rule.
struct Scope<'s, 't> {
    place: &'s Place<'t>,
    event: EventType,
    rates: &'s BTreeMap<Currency, u64>,
}

impl Scope<'_, '_> {
    fn formula(&self, value: &Value<'_>) -> Result<Formula, ProgrammeError> {
        let kinds = ["per_amount", "per_night", "flat"];
        let section = Section::open(self.place.clone(), value, "formula", &kinds)?;
        let given: Vec<&str> = kinds
            .into_iter()
            .filter(|kind| section.optional(kind).is_some())
            .collect();
        let [kind] = given[..] else {
            return Err(self.place.fault(
                value,
                "formula must hold exactly one of per_amount, per_night, flat",
            ));
        };
        let value = section.required(kind)?;
        let known: &[&'static str] = if kind == "per_amount" {
            &["unit", "points"]
        } else {
            &["points"]
        };
        let section = Section::open(self.place.clone(), value, kind, known)?;
        let points = self.place.points(section.required("points")?, "points")?;
        match kind {
            "per_amount" if !self.event.has_amount() => Err(self.place.fault(
                value,
                format!("per_amount on {}, which has no amount", self.event),
            )),
            "per_amount" => Ok(Formula::PerAmount {
                unit: self.place.positive(section.required("unit")?, "a unit")?,
                points,
            }),
            "per_night" if !self.event.has_nights() => Err(self.place.fault(
                value,
                format!("per_night on {}, which has no nights", self.event),
            )),
            "per_night" => Ok(Formula::PerNight { points }),
            _ => Ok(Formula::Flat { points }),
        }
    }

    fn condition(&self, value: Option<&Value<'_>>) -> Result<Condition, ProgrammeError> {
        let mut condition = Condition::default();
        let Some(value) = value else {
            return Ok(condition);
        };
        let known = ["field", "tier", "time_of_day", "valid", "weekdays"];
        let when = Section::open(self.place.clone(), value, "when", &known)?;
        if let Some(value) = when.optional("field") {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(self.place.fault(
                    value,
                    "field must be a table of tests, such as roomType = { equals = \"SUITE\" }",
                ));
            };
            for (field, test) in table {
                condition.fields.push(self.field_test(field, test)?);
            }
        }
        if let Some(value) = when.optional("tier") {
            condition.tiers = Some(self.names(value, "tier", "a tier", Tier::parse)?);
        }
        if let Some(value) = when.optional("weekdays") {
            condition.weekdays = Some(self.names(value, "weekdays", "a weekday", |name| {
                name.parse::<Weekday>().ok()
            })?);
        }
        if let Some(value) = when.optional("time_of_day") {
            condition.time_of_day = Some(self.time_of_day(value)?);
        }
        if let Some(value) = when.optional("valid") {
            condition.valid = self.valid(value)?;
        }
        Ok(condition)
    }

    fn names<T>(
        &self,
        value: &Value<'_>,
        key: &str,
        what: &str,
        read: fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ProgrammeError> {
        let names = self
            .place
            .list(value, key)?
            .map(|item| match item.get_ref() {
                DeValue::String(name) => read(name)
                    .ok_or_else(|| self.place.fault(item, format!("\"{name}\" is not {what}"))),
                _ => Err(self.place.fault(item, format!("{what} is written as text"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            return Err(self
                .place
                .fault(value, format!("{key} is empty, so this can never match")));
        }
        Ok(names)
    }

    fn field_test(
        &self,
        field: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Value<'_>,
    ) -> Result<FieldTest, ProgrammeError> {
        let name = field.get_ref().as_ref();
        let (amount, nights) = (
            name == "amount",
            name == "nights" && self.event.has_nights(),
        );
        let currency = name == "currency";
        let exists = if amount || currency {
            self.event.has_amount()
        } else {
            self.event.has_payload()
        };
        if !exists {
            return Err(self.place.fault(
                field,
                format!(
                    "{} has no field {name}, so this can never match",
                    self.event
                ),
            ));
        }
        let section = Section::open(
            self.place.clone(),
            value,
            name,
            &["equals", "one_of", "at_least", "at_most"],
        )?;
        let literal = |value: &Value<'_>| match value.get_ref() {
            DeValue::String(text) if currency => Currency::parse(text)
                .filter(|currency| self.rates.contains_key(currency))
                .map(|_| Fact::Text(text.clone().into_owned()))
                .ok_or_else(|| {
                    self.place
                        .fault(value, format!("\"{text}\" is not among the currencies"))
                }),
            DeValue::String(text) if !amount && !nights => {
                Ok(Fact::Text(text.clone().into_owned()))
            }
            DeValue::Boolean(flag) if !amount && !nights && !currency => Ok(Fact::Flag(*flag)),
            _ if currency => Err(self.place.fault(value, "a currency is written as text")),
            _ => self.place.number(value, name).map(Fact::Number),
        };
        let one_of = match (section.optional("equals"), section.optional("one_of")) {
            (None, None) => None,
            (Some(value), None) => Some(vec![literal(value)?]),
            (None, Some(list)) => {
                let values = self
                    .place
                    .list(list, "one_of")?
                    .map(literal)
                    .collect::<Result<Vec<_>, _>>()?;
                Some(values)
            }
            (Some(_), Some(value)) => {
                return Err(self
                    .place
                    .fault(value, "give either equals or one_of, not both"));
            }
        };
        let bound = |key| {
            section
                .optional(key)
                .map(|value| self.place.number(value, key))
                .transpose()
        };
        let test = FieldTest {
            field: name.to_owned(),
            one_of,
            at_least: bound("at_least")?,
            at_most: bound("at_most")?,
        };
        if test.one_of.is_none() && test.at_least.is_none() && test.at_most.is_none() {
            return Err(self.place.fault(
                value,
                format!("{name} needs one of equals, one_of, at_least, at_most"),
            ));
        }
        // What the field can be at all: the test must leave something of it.
        let possible = FieldTest {
            field: name.to_owned(),
            at_least: (amount || nights).then(|| Number::from(u32::from(nights))),
            ..FieldTest::default()
        };
        let bounds_on_text = currency && (test.at_least.is_some() || test.at_most.is_some());
        if bounds_on_text || !test.meets(&possible) {
            return Err(self.place.fault(
                value,
                format!("no value of {name} passes, so this can never match"),
            ));
        }
        Ok(test)
    }

    fn time_of_day(&self, value: &Value<'_>) -> Result<TimeOfDay, ProgrammeError> {
        let section = Section::open(self.place.clone(), value, "time_of_day", &["from", "until"])?;
        let time = |key| {
            let (value, text) = section.moment(key)?;
            // The end of the day is the next one's beginning; a window may pass midnight.
            let written = if key == "until" && text == "24:00" {
                "00:00"
            } else {
                &text
            };
            NaiveTime::parse_from_str(written, "%H:%M")
                .or_else(|_| NaiveTime::parse_from_str(written, "%H:%M:%S"))
                .map_err(|_| {
                    self.place.fault(
                        value,
                        format!("{key} is \"{text}\", not a time of day such as \"18:00\""),
                    )
                })
        };
        let window = TimeOfDay {
            from: time("from")?,
            until: time("until")?,
        };
        if window.from == window.until {
            return Err(self.place.fault(
                value,
                "from and until are equal; leave time_of_day out for the whole day",
            ));
        }
        Ok(window)
    }

    fn valid(&self, value: &Value<'_>) -> Result<Valid, ProgrammeError> {
        let section = Section::open(self.place.clone(), value, "valid", &["from", "until"])?;
        let instant = |key| -> Result<Option<DateTime<Utc>>, ProgrammeError> {
            if section.optional(key).is_none() {
                return Ok(None);
            }
            let (value, text) = section.moment(key)?;
            let day = || {
                text.parse::<NaiveDate>()
                    .ok()
                    .map(|day| day.and_time(NaiveTime::MIN).and_utc())
            };
            DateTime::parse_from_rfc3339(&text)
                .map(|at| at.to_utc())
                .ok()
                .or_else(day)
                .map(Some)
                .ok_or_else(|| {
                    let expected = "an instant with its offset, or a day in UTC";
                    self.place.fault(
                        value,
                        format!("{key} is \"{text}\", not {expected}, such as \"2026-11-01\""),
                    )
                })
        };
        let valid = Valid {
            from: instant("from")?,
            until: instant("until")?,
        };
        match (valid.from, valid.until) {
            (None, None) => Err(self.place.fault(value, "valid needs from, until or both")),
            (Some(from), Some(until)) if from >= until => Err(self
                .place
                .fault(value, "from is not before until, so this can never match")),
            _ => Ok(valid),
        }
    }
}

/// What is being read, for faults.
#[derive(Clone)]
struct Place<'t> {
    text: &'t str,
    about: String,
}

impl<'t> Place<'t> {
    fn about(&self, about: impl Into<String>) -> Place<'t> {
        Place {
            text: self.text,
            about: about.into(),
        }
    }

    fn fault_at(&self, span: &Range<usize>, reason: impl AsRef<str>) -> ProgrammeError {
        let reason = reason.as_ref();
        let reason = if self.about.is_empty() {
            reason.to_owned()
        } else {
            format!("{}: {reason}", self.about)
        };
        ProgrammeError::at(self.text, span, reason)
    }

    fn fault<T>(&self, at: &Spanned<T>, reason: impl AsRef<str>) -> ProgrammeError {
        self.fault_at(&at.span(), reason)
    }

    fn list<'v, 'i>(
        &self,
        value: &'v Value<'i>,
        what: &str,
    ) -> Result<impl Iterator<Item = &'v Value<'i>> + use<'v, 'i>, ProgrammeError> {
        match value.get_ref() {
            DeValue::Array(array) => Ok(array.iter()),
            _ => Err(self.fault(value, format!("{what} must be a list"))),
        }
    }

    /// A number, exact whether it is written as text or as a number.
    fn number(&self, value: &Value<'_>, what: &str) -> Result<Number, ProgrammeError> {
        let written = match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            DeValue::Float(float) => Some(float.as_str()),
            _ => None,
        };
        written
            .and_then(|text| Number::parse(text.strip_prefix('+').unwrap_or(text)))
            .ok_or_else(|| {
                self.fault(
                    value,
                    format!("{what} must be a decimal number, such as \"1.5\""),
                )
            })
    }

    /// A number above zero, in billionths.
    fn positive(&self, value: &Value<'_>, what: &str) -> Result<u64, ProgrammeError> {
        let number = self.number(value, what)?;
        if number.is_negative() || number == Number::from(0) {
            return Err(self.fault(value, format!("{what} is above zero, not {number}")));
        }
        Some(&number)
            .filter(|number| number.integer_digits() <= 9)
            .and_then(|number| number.scaled(9))
            .and_then(|billionths| u64::try_from(billionths).ok())
            .ok_or_else(|| {
                self.fault(
                    value,
                    format!("{what} has at most 9 digits on each side of the decimal point"),
                )
            })
    }

    fn points(&self, value: &Value<'_>, what: &str) -> Result<Points, ProgrammeError> {
        let number = self.number(value, what)?;
        number
            .to_i64()
            .and_then(|points| Points::new(points).ok())
            .ok_or_else(|| {
                self.fault(
                    value,
                    format!("{what} is a whole number of points, zero or more, not {number}"),
                )
            })
    }
}

/// A table of which all keys are known.
struct Section<'t, 'i> {
    place: Place<'t>,
    span: Range<usize>,
    table: &'t DeTable<'i>,
}

impl<'t, 'i> Section<'t, 'i> {
    fn new(
        place: Place<'t>,
        span: Range<usize>,
        table: &'t DeTable<'i>,
        known: &[&str],
    ) -> Result<Self, ProgrammeError> {
        match table
            .keys()
            .find(|key| !known.contains(&key.get_ref().as_ref()))
        {
            None => Ok(Self { place, span, table }),
            Some(key) => {
                let reason = format!(
                    "unknown key \"{}\"; known here are {}",
                    key.get_ref(),
                    known.join(", ")
                );
                Err(place.fault(key, reason))
            }
        }
    }

    fn open(
        place: Place<'t>,
        value: &'t Value<'i>,
        what: &str,
        known: &[&str],
    ) -> Result<Self, ProgrammeError> {
        match value.get_ref() {
            DeValue::Table(table) => Self::new(place, value.span(), table, known),
            _ => Err(place.fault(
                value,
                format!("{what} must be a table with {}", known.join(", ")),
            )),
        }
    }

    fn optional(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    fn required(&self, key: &str) -> Result<&'t Value<'i>, ProgrammeError> {
        self.optional(key)
            .ok_or_else(|| self.place.fault_at(&self.span, format!("{key} is missing")))
    }

    fn text(&self, key: &str) -> Result<(&'t Value<'i>, &'t str), ProgrammeError> {
        let value = self.required(key)?;
        match value.get_ref() {
            DeValue::String(text) => Ok((value, text)),
            _ => Err(self.place.fault(value, format!("{key} must be text"))),
        }
    }

    /// A text that is recorded in the ledger.
    fn name(&self, key: &str) -> Result<String, ProgrammeError> {
        let (value, text) = self.text(key)?;
        let fault = |why: &str| Err(self.place.fault(value, format!("{key} {why}")));
        if text.trim().is_empty() {
            fault("is empty")
        } else if text.chars().count() > NAME_MAX_CHARS {
            fault("has more than 64 characters")
        } else if text.chars().any(char::is_control) || text.trim() != text {
            fault("holds a control character or outer white space")
        } else {
            Ok(text.to_owned())
        }
    }

    /// A date or a time, as text or in TOML's own notation.
    fn moment(&self, key: &str) -> Result<(&'t Value<'i>, String), ProgrammeError> {
        let value = self.required(key)?;
        match value.get_ref() {
            DeValue::String(text) => Ok((value, text.clone().into_owned())),
            DeValue::Datetime(datetime) => Ok((value, datetime.to_string())),
            _ => Err(self
                .place
                .fault(value, format!("{key} must be a date or a time"))),
        }
    }
}
