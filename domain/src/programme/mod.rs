//! The programme: which events give how many points, and from where each tier begins.
//!
//! Points of a rule are reckoned exactly and rounded down once: base formula, times multipliers,
//! floor, then the cap per event. The cap per customer and UTC day needs to know what was given
//! before and is applied by [`Contribution::within_daily_cap`].

mod condition;
mod error;
mod file;
mod natural;

use std::collections::BTreeMap;

pub use error::ProgrammeError;

use crate::{
    Award, Currency, Points, Refusal, RefusalClass, Tier, TierThresholds, command::EventType,
    money::Amount,
};
use condition::{Condition, Subject};
use natural::Natural;

/// How many billionths one is: factors, rates and units are kept in billionths.
const BILLION: u64 = 1_000_000_000;

/// A rule set, read from a file and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programme {
    version: String,
    default_currency: Currency,
    /// What one unit of a currency is worth in the programme's, in billionths.
    rates: BTreeMap<Currency, u64>,
    tiers: TierThresholds,
    /// Points for one unit of a bonus in the programme's currency, in billionths.
    bonus_per_unit: u64,
    rules: Vec<Rule>,
}

/// Why an amount is no bonus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BonusError {
    /// It is worth less than one point.
    #[error("it is worth less than one point")]
    NoPoints,
    /// It is worth more points than an account can hold.
    #[error("it is worth more points than an account can hold")]
    TooManyPoints,
    /// The programme has no rate for its currency.
    #[error("the programme has no rate for currency {0}")]
    UnknownCurrency(Currency),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    event: EventType,
    when: Condition,
    formula: Formula,
    multipliers: Vec<Multiplier>,
    cap_per_event: Option<Points>,
    cap_per_day: Option<Points>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formula {
    /// Points for each full unit of the amount in the programme's currency; the unit in billionths.
    PerAmount { unit: u64, points: Points },
    /// Points for each night.
    PerNight { points: Points },
    /// Points for the event.
    Flat { points: Points },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Multiplier {
    /// In billionths.
    factor: u64,
    when: Condition,
}

/// What an event gives by the rules alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// What each matching rule gives, in the file's order; rules that give nothing are left out.
    pub contributions: Vec<Contribution>,
}

impl Evaluation {
    /// The sum before daily caps.
    pub fn points(&self) -> Points {
        self.contributions
            .iter()
            .map(|contribution| contribution.points)
            .sum()
    }
}

/// What one rule gives for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// The rule's name.
    pub rule: String,
    /// The points after multipliers, rounding and the cap per event.
    pub points: Points,
    /// The most this rule gives one customer on one UTC day.
    pub daily_cap: Option<Points>,
}

impl Contribution {
    /// The points to award, given what this rule has already given the customer on that day. What
    /// is over the cap is not awarded.
    pub fn within_daily_cap(&self, already_today: Points) -> Points {
        match self.daily_cap {
            None => self.points,
            Some(cap) => self.points.min(cap.saturating_subtract(already_today)),
        }
    }
}

impl Programme {
    /// Reads a rule file.
    ///
    /// # Errors
    /// The first fault, with its line and column: of syntax, of form, or of sense.
    pub fn parse(text: &str) -> Result<Self, ProgrammeError> {
        file::read(text)
    }

    /// The version that is recorded with each award.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// From where each tier begins.
    pub fn tiers(&self) -> &TierThresholds {
        &self.tiers
    }

    /// The names of the rules, in the file's order.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    /// What a promised amount of money is worth in points: the amount in the programme's currency
    /// times the points per unit, reckoned exactly and rounded down once.
    ///
    /// # Errors
    /// When it comes to no points, to more than an account can hold, or cannot be reckoned.
    pub fn bonus(&self, amount: Amount, currency: Option<Currency>) -> Result<Points, BonusError> {
        let currency = currency.unwrap_or(self.default_currency);
        let rate = self.rates.get(&currency);
        let rate = *rate.ok_or(BonusError::UnknownCurrency(currency))?;
        let points = Natural::from(amount.billionths())
            .times(rate)
            .times(self.bonus_per_unit)
            .divided_by(BILLION)
            .divided_by(BILLION)
            .divided_by(BILLION)
            .to_points()
            .ok_or(BonusError::TooManyPoints)?;
        if points.is_zero() {
            return Err(BonusError::NoPoints);
        }
        Ok(points)
    }

    /// What an event of a customer of this tier gives. An event that no rule matches gives nothing.
    ///
    /// # Errors
    /// `UNKNOWN_CURRENCY` when the programme has no rate for the event's currency, whether or not
    /// a rule looks at it; `INVALID_AMOUNT` when the points do not fit into an account.
    pub fn evaluate(&self, award: &Award, tier: Tier) -> Result<Evaluation, Refusal> {
        let currency = award.facts.currency.unwrap_or(self.default_currency);
        let rate = *self.rates.get(&currency).ok_or_else(|| {
            Refusal::new(
                RefusalClass::UnknownCurrency,
                format!(
                    "programme {} has no rate for currency {currency}",
                    self.version
                ),
            )
        })?;
        let overflow = |rule: &str| {
            Refusal::new(
                RefusalClass::InvalidAmount,
                format!("rule \"{rule}\" gives more points than an account can hold"),
            )
        };
        let subject = Subject {
            award,
            tier,
            currency,
        };
        let mut evaluation = Evaluation::default();
        let mut total = Points::ZERO;
        for rule in self
            .rules
            .iter()
            .filter(|rule| rule.event == award.event_type && rule.when.holds(&subject))
        {
            let points = rule
                .points(&subject, rate)
                .ok_or_else(|| overflow(&rule.name))?;
            total = total.add(points).map_err(|_| overflow(&rule.name))?;
            if !points.is_zero() {
                evaluation.contributions.push(Contribution {
                    rule: rule.name.clone(),
                    points,
                    daily_cap: rule.cap_per_day,
                });
            }
        }
        Ok(evaluation)
    }
}

impl Rule {
    /// `None` when the points overflow and no cap holds them.
    fn points(&self, subject: &Subject<'_>, rate: u64) -> Option<Points> {
        let facts = &subject.award.facts;
        let mut points = match self.formula {
            Formula::Flat { points } => Natural::from(points),
            Formula::PerNight { points } => {
                Natural::from(points).times(facts.nights.unwrap_or(0).into())
            }
            Formula::PerAmount { unit, points } => {
                let amount = facts.amount.unwrap_or_default().billionths();
                // Floors nest: dividing by the unit and then by a billion is dividing by both.
                let units = Natural::from(amount)
                    .times(rate)
                    .divided_by(unit)
                    .divided_by(BILLION);
                units.times(points.get().unsigned_abs())
            }
        };
        let factors = self
            .multipliers
            .iter()
            .filter(|multiplier| multiplier.when.holds(subject));
        // All factors before any division, so that nothing is rounded but the result.
        let mut divisions = 0;
        for multiplier in factors {
            points = points.times(multiplier.factor);
            divisions += 1;
        }
        for _ in 0..divisions {
            points = points.divided_by(BILLION);
        }
        match (points.to_points(), self.cap_per_event) {
            (Some(points), Some(cap)) => Some(points.min(cap)),
            (None, Some(cap)) => Some(cap),
            (points, None) => points,
        }
    }
}

#[cfg(test)]
mod tests;
