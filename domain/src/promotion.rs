//! Promotions: what is offered and when, to whom it was assigned, and how far a claim has come.
//!
//! What a promotion is worth in points is decided by the programme; the states of a claim are
//! enforced again by conditional updates in `store`.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Currency, PromotionId, money::Amount, programme::BonusError};

/// The longest type, in characters.
pub const TYPE_MAX_CHARS: usize = 64;
/// The longest title, in characters.
pub const TITLE_MAX_CHARS: usize = 120;
/// The longest description, in characters.
pub const DESCRIPTION_MAX_CHARS: usize = 2_000;
/// The most players that one job may assign a promotion to.
pub const PLAYERS_MAX: usize = 10_000;

/// What kind of promotion it is, such as WELCOME_BONUS: capital letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PromotionType(String);

/// Why a text is no type of promotions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a type of promotions is 1 to {TYPE_MAX_CHARS} capital letters, digits and underscores, a \
     letter first, such as WELCOME_BONUS"
)]
pub struct PromotionTypeError;

impl PromotionType {
    /// Reads a type.
    ///
    /// # Errors
    /// When the text has another shape.
    pub fn new(text: impl Into<String>) -> Result<Self, PromotionTypeError> {
        let text = text.into();
        let shaped = text.len() <= TYPE_MAX_CHARS
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if shaped {
            Ok(Self(text))
        } else {
            Err(PromotionTypeError)
        }
    }

    /// The type of what is given to whoever registers, unless it is configured otherwise.
    pub fn welcome() -> Self {
        Self("WELCOME_BONUS".to_owned())
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PromotionType {
    type Error = PromotionTypeError;
    fn try_from(text: String) -> Result<Self, PromotionTypeError> {
        Self::new(text)
    }
}

impl From<PromotionType> for String {
    fn from(kind: PromotionType) -> String {
        kind.0
    }
}

impl fmt::Display for PromotionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a promotion offers, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What kind of promotion it is.
    pub kind: PromotionType,
    /// What players see first.
    pub title: String,
    /// What players can read.
    pub description: String,
    /// Its worth, above zero.
    pub amount: Amount,
    /// The currency of the amount; without one it is the programme's default currency.
    pub currency: Option<Currency>,
    /// The first instant at which it holds.
    pub starts_at: DateTime<Utc>,
    /// The first instant at which it does not hold any more.
    pub ends_at: DateTime<Utc>,
    /// Whether it can be assigned and claimed at all.
    pub is_active: bool,
}

/// What is wrong with the terms of a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// The title says nothing, or too much.
    #[error(
        "title has 1 to {TITLE_MAX_CHARS} characters, without control characters and white space \
         at its ends"
    )]
    Title,
    /// The description is too long, or cannot be shown.
    #[error(
        "description has at most {DESCRIPTION_MAX_CHARS} characters, without control characters \
         but line breaks"
    )]
    Description,
    /// It would be worth nothing.
    #[error("amount is above zero")]
    Amount,
    /// It would never hold.
    #[error("startDate is before endDate")]
    Period,
}

/// Whether a promotion can be assigned and claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Open,
    /// Staff have made it inactive.
    Inactive,
    /// Its period has not begun.
    NotStarted,
    /// Its period is over.
    Ended,
}

impl Terms {
    /// The same terms, once they make sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn checked(self) -> Result<Self, TermsError> {
        let title_chars = self.title.chars().count();
        if !(1..=TITLE_MAX_CHARS).contains(&title_chars)
            || self.title.chars().any(char::is_control)
            || self.title.trim() != self.title
        {
            return Err(TermsError::Title);
        }
        let cannot_be_shown = |c: char| c.is_control() && c != '\n';
        if self.description.chars().count() > DESCRIPTION_MAX_CHARS
            || self.description.chars().any(cannot_be_shown)
        {
            return Err(TermsError::Description);
        }
        if self.amount == Amount::default() {
            return Err(TermsError::Amount);
        }
        if self.starts_at >= self.ends_at {
            return Err(TermsError::Period);
        }
        Ok(self)
    }

    /// How it stands at an instant.
    pub fn standing(&self, at: DateTime<Utc>) -> Standing {
        if !self.is_active {
            Standing::Inactive
        } else if at < self.starts_at {
            Standing::NotStarted
        } else if at >= self.ends_at {
            Standing::Ended
        } else {
            Standing::Open
        }
    }
}

/// A promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// Which one.
    pub promotion_id: PromotionId,
    /// What it offers, and when.
    pub terms: Terms,
    /// Whether only one of its type may be active at a time, as was configured when it was made.
    pub is_exclusive: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// How far the claim of an assigned promotion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimState {
    /// The player has not claimed it, or the claim was rolled back.
    Unclaimed,
    /// The player has claimed it; the points are not credited yet.
    Claiming,
    /// The points are credited. Final.
    Claimed,
}

impl ClaimState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Unclaimed, Self::Claiming, Self::Claimed];

    /// The state's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unclaimed => "UNCLAIMED",
            Self::Claiming => "CLAIMING",
            Self::Claimed => "CLAIMED",
        }
    }

    /// Reads a state's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl fmt::Display for ClaimState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a claim was rolled back: by the rules or the account no points could be credited, whenever
/// it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimRefusal {
    /// The amount is worth less than one point.
    NoPoints,
    /// The amount is worth more points than the account can hold.
    TooManyPoints,
    /// The programme has no rate for the amount's currency.
    UnknownCurrency,
}

impl ClaimRefusal {
    /// All refusals.
    pub const ALL: [Self; 3] = [Self::NoPoints, Self::TooManyPoints, Self::UnknownCurrency];

    /// The refusal's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPoints => "NO_POINTS",
            Self::TooManyPoints => "TOO_MANY_POINTS",
            Self::UnknownCurrency => "UNKNOWN_CURRENCY",
        }
    }

    /// Reads a refusal's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| refusal.as_str() == name)
    }
}

impl From<BonusError> for ClaimRefusal {
    fn from(error: BonusError) -> Self {
        match error {
            BonusError::NoPoints => Self::NoPoints,
            BonusError::TooManyPoints => Self::TooManyPoints,
            BonusError::UnknownCurrency(_) => Self::UnknownCurrency,
        }
    }
}

impl fmt::Display for ClaimRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a job that assigns a promotion to players stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AssignmentState {
    /// Accepted; nobody has been looked at.
    Queued,
    /// Under way.
    Running,
    /// Every player was looked at. Final.
    Done,
    /// It was taken back: who has the promotion keeps it, the rest was not looked at. Final.
    Cancelled,
}

impl AssignmentState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Done, Self::Cancelled];

    /// The state's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Done => "DONE",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Reads a state's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

impl fmt::Display for AssignmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn terms() -> Terms {
        Terms {
            kind: PromotionType::new("WELCOME_BONUS").expect("a type"),
            title: "Welcome".to_owned(),
            description: "Fifty points\nto begin with".to_owned(),
            amount: Amount::parse("50.00").expect("an amount"),
            currency: None,
            starts_at: DateTime::UNIX_EPOCH,
            ends_at: DateTime::UNIX_EPOCH + TimeDelta::days(1),
            is_active: true,
        }
    }

    #[test]
    fn a_type_is_capital_letters_digits_and_underscores() {
        for good in ["WELCOME_BONUS", "DEPOSIT_MATCH", "A", "B2"] {
            let kind = PromotionType::new(good).expect("a type");
            assert_eq!(kind.to_string(), good);
        }
        let long = "A".repeat(65);
        for bad in ["", "welcome", "_A", "1A", "A B", "A-B", "Ä", "A\0", &long] {
            assert_eq!(PromotionType::new(bad), Err(PromotionTypeError), "{bad:?}");
        }
    }

    #[test]
    fn terms_that_make_no_sense_are_refused() {
        assert_eq!(terms().checked(), Ok(terms()));
        let changed = |change: fn(&mut Terms)| {
            let mut terms = terms();
            change(&mut terms);
            terms.checked().err()
        };
        let titles: [fn(&mut Terms); 4] = [
            |t| t.title.clear(),
            |t| t.title = "x".repeat(121),
            |t| t.title = " x".to_owned(),
            |t| t.title = "a\nb".to_owned(),
        ];
        for change in titles {
            assert_eq!(changed(change), Some(TermsError::Title));
        }
        for change in [
            (|t| t.description = "ü".repeat(2_001)) as fn(&mut Terms),
            |t| t.description = "a\0b".to_owned(),
        ] {
            assert_eq!(changed(change), Some(TermsError::Description));
        }
        assert_eq!(
            changed(|t| t.amount = Amount::default()),
            Some(TermsError::Amount)
        );
        assert_eq!(
            changed(|t| t.ends_at = t.starts_at),
            Some(TermsError::Period)
        );
        assert_eq!(changed(|t| t.title = "ü".repeat(120)), None);
        assert_eq!(changed(|t| t.description.clear()), None);
    }

    #[test]
    fn a_promotion_holds_from_its_start_until_before_its_end() {
        let open = terms();
        let instant = TimeDelta::nanoseconds(1);
        for (at, standing) in [
            (open.starts_at - instant, Standing::NotStarted),
            (open.starts_at, Standing::Open),
            (open.ends_at - instant, Standing::Open),
            (open.ends_at, Standing::Ended),
        ] {
            assert_eq!(open.standing(at), standing, "{at}");
            let inactive = Terms {
                is_active: false,
                ..open.clone()
            };
            assert_eq!(inactive.standing(at), Standing::Inactive, "{at}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for state in ClaimState::ALL {
            assert_eq!(ClaimState::parse(state.as_str()), Some(state));
        }
        for refusal in ClaimRefusal::ALL {
            assert_eq!(ClaimRefusal::parse(refusal.as_str()), Some(refusal));
        }
        for state in AssignmentState::ALL {
            assert_eq!(AssignmentState::parse(state.as_str()), Some(state));
        }
    }
}
