//! When a rule or a multiplier applies.

use chrono::{DateTime, Datelike as _, NaiveTime, Utc, Weekday};

use crate::{Award, Currency, Fact, Number, Tier};

/// What conditions look at.
pub(super) struct Subject<'a> {
    pub(super) award: &'a Award,
    pub(super) tier: Tier,
    /// The event's currency, or the programme's default one.
    pub(super) currency: Currency,
}

impl Subject<'_> {
    fn fact(&self, field: &str) -> Option<Fact> {
        let facts = &self.award.facts;
        match field {
            "currency" => Some(Fact::Text(self.currency.as_str().to_owned())),
            "amount" => facts
                .amount
                .and_then(|amount| Number::parse(&amount.to_string()))
                .map(Fact::Number),
            "nights" if facts.nights.is_some() => {
                facts.nights.map(|nights| Fact::Number(nights.into()))
            }
            other => facts.fields.get(other).cloned(),
        }
    }
}

/// All of these must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) fields: Vec<FieldTest>,
    pub(super) tiers: Option<Vec<Tier>>,
    pub(super) time_of_day: Option<TimeOfDay>,
    pub(super) valid: Valid,
    pub(super) weekdays: Option<Vec<Weekday>>,
}

/// What a field must be. An absent field passes no test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldTest {
    pub(super) field: String,
    pub(super) one_of: Option<Vec<Fact>>,
    pub(super) at_least: Option<Number>,
    pub(super) at_most: Option<Number>,
}

/// A time of day in UTC, from the one moment until right before the other; it may pass midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeOfDay {
    pub(super) from: NaiveTime,
    pub(super) until: NaiveTime,
}

/// From the one instant until right before the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Valid {
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) until: Option<DateTime<Utc>>,
}

impl Condition {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        let at = subject.award.occurred_at;
        self.tiers
            .as_ref()
            .is_none_or(|tiers| tiers.contains(&subject.tier))
            && self
                .time_of_day
                .is_none_or(|window| window.contains(at.time()))
            && self.valid.contains(at)
            && self
                .weekdays
                .as_ref()
                .is_none_or(|days| days.contains(&at.weekday()))
            && self.fields.iter().all(|test| {
                subject
                    .fact(&test.field)
                    .is_some_and(|fact| test.holds(&fact))
            })
    }

    /// Why this and `other` can never hold at once, if so.
    pub(super) fn contradiction(&self, other: &Self) -> Option<&'static str> {
        fn disjoint<T: PartialEq>(one: Option<&Vec<T>>, other: Option<&Vec<T>>) -> bool {
            one.zip(other)
                .is_some_and(|(one, other)| !one.iter().any(|item| other.contains(item)))
        }
        let times = self.time_of_day.zip(other.time_of_day);
        let fields = || {
            self.fields
                .iter()
                .flat_map(|one| other.fields.iter().map(move |test| (one, test)))
        };
        if disjoint(self.tiers.as_ref(), other.tiers.as_ref()) {
            Some("no tier is in both")
        } else if disjoint(self.weekdays.as_ref(), other.weekdays.as_ref()) {
            Some("no weekday is in both")
        } else if times.is_some_and(|(one, other)| !one.meets(other)) {
            Some("their times of day do not overlap")
        } else if !self.valid.meets(other.valid) {
            Some("they are never valid at the same time")
        } else if fields().any(|(one, other)| one.field == other.field && !one.meets(other)) {
            Some("no value of a field passes both")
        } else {
            None
        }
    }
}

impl FieldTest {
    fn holds(&self, fact: &Fact) -> bool {
        let number = if let Fact::Number(number) = fact {
            Some(number)
        } else {
            None
        };
        self.one_of
            .as_ref()
            .is_none_or(|values| values.contains(fact))
            && self
                .at_least
                .as_ref()
                .is_none_or(|least| number.is_some_and(|number| number >= least))
            && self
                .at_most
                .as_ref()
                .is_none_or(|most| number.is_some_and(|number| number <= most))
    }

    /// Whether some value passes both tests.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let both = |fact: &Fact| self.holds(fact) && other.holds(fact);
        if let Some(values) = self.one_of.as_ref().or(other.one_of.as_ref()) {
            return values.iter().any(both);
        }
        let least = self.at_least.as_ref().max(other.at_least.as_ref());
        let most = [&self.at_most, &other.at_most].into_iter().flatten().min();
        least.zip(most).is_none_or(|(least, most)| least <= most)
    }
}

impl TimeOfDay {
    pub(super) fn contains(self, time: NaiveTime) -> bool {
        if self.from < self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }

    fn meets(self, other: Self) -> bool {
        self.contains(other.from) || other.contains(self.from)
    }
}

impl Valid {
    fn contains(self, at: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    fn meets(self, other: Self) -> bool {
        let from = self.from.max(other.from);
        let until = [self.until, other.until].into_iter().flatten().min();
        from.zip(until).is_none_or(|(from, until)| from < until)
    }
}
