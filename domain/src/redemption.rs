//! A redemption's states and the reasons it can fail for.
//!
//! The redemption's row is the state machine; what may follow what is decided here and enforced
//! again by conditional updates in `store`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The merchant behind `POST /loyalty`, which confirms itself. No other road leads there, and
/// nobody can be configured under this id.
pub const BUILT_IN_MERCHANT: &str = "meed";

/// The longest confirmation id or reason of a merchant that is kept, in characters.
pub const PARTNER_DETAIL_MAX_CHARS: usize = 200;

/// Where a redemption stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedemptionState {
    /// Accepted; nothing has been reserved.
    Queued,
    /// The points are held; the partner has not been asked.
    Reserved,
    /// The partner may have been asked: points go back only after REFUSED or VOIDED.
    Confirming,
    /// The partner said that it will call back.
    AwaitingCallback,
    /// The points were deducted. Final.
    Success,
    /// Nothing was deducted. Final.
    Failed,
}

impl RedemptionState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Reserved,
        Self::Confirming,
        Self::AwaitingCallback,
        Self::Success,
        Self::Failed,
    ];

    /// The state's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Reserved => "RESERVED",
            Self::Confirming => "CONFIRMING",
            Self::AwaitingCallback => "AWAITING_CALLBACK",
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
        }
    }

    /// Reads a state's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }

    /// Whether the partner may already have been asked, so that only its word frees the points.
    pub const fn partner_may_know(self) -> bool {
        matches!(self, Self::Confirming | Self::AwaitingCallback)
    }
}

impl fmt::Display for RedemptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a redemption failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureReason {
    /// The customer does not have that many points to spend.
    InsufficientPoints,
    /// The merchant said no.
    PartnerRefused,
    /// The merchant did not answer, or did not call back, in time.
    PartnerTimeout,
    /// The client took it back.
    Cancelled,
    /// The hold's time limit passed first.
    HoldExpired,
    /// No such merchant is configured.
    UnknownMerchant,
}

impl FailureReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::InsufficientPoints,
        Self::PartnerRefused,
        Self::PartnerTimeout,
        Self::Cancelled,
        Self::HoldExpired,
        Self::UnknownMerchant,
    ];

    /// The reason's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientPoints => "INSUFFICIENT_POINTS",
            Self::PartnerRefused => "PARTNER_REFUSED",
            Self::PartnerTimeout => "PARTNER_TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::HoldExpired => "HOLD_EXPIRED",
            Self::UnknownMerchant => "UNKNOWN_MERCHANT",
        }
    }

    /// Reads a reason's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the partner has finally said of a redemption, as recorded beside its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PartnerVerdict {
    /// The goods are the customer's.
    Confirmed,
    /// The partner will not give them.
    Refused,
    /// The partner will never confirm this id any more.
    Voided,
}

impl PartnerVerdict {
    /// The verdict's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "CONFIRMED",
            Self::Refused => "REFUSED",
            Self::Voided => "VOIDED",
        }
    }

    /// Reads a verdict's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Confirmed, Self::Refused, Self::Voided]
            .into_iter()
            .find(|verdict| verdict.as_str() == name)
    }

    /// Whether the held points may go back to the customer.
    pub const fn frees_points(self) -> bool {
        matches!(self, Self::Refused | Self::Voided)
    }
}

/// Whether points held in `state` may go back to the customer, given what the partner has said.
/// Only before the partner was asked, or on its word that it will not deliver.
pub fn may_release(state: RedemptionState, verdict: Option<PartnerVerdict>) -> bool {
    match state {
        RedemptionState::Reserved => true,
        RedemptionState::Confirming | RedemptionState::AwaitingCallback => {
            verdict.is_some_and(PartnerVerdict::frees_points)
        }
        RedemptionState::Queued | RedemptionState::Success | RedemptionState::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_go_back_only_before_the_partner_was_asked_or_on_its_word() {
        for state in RedemptionState::ALL {
            assert_eq!(
                may_release(state, None),
                state == RedemptionState::Reserved,
                "{state} without a verdict"
            );
            assert_eq!(
                may_release(state, Some(PartnerVerdict::Confirmed)),
                state == RedemptionState::Reserved,
                "{state} when confirmed"
            );
            for verdict in [PartnerVerdict::Refused, PartnerVerdict::Voided] {
                assert_eq!(
                    may_release(state, Some(verdict)),
                    matches!(state, RedemptionState::Reserved) || state.partner_may_know(),
                );
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for state in RedemptionState::ALL {
            assert_eq!(RedemptionState::parse(state.as_str()), Some(state));
        }
        for reason in FailureReason::ALL {
            assert_eq!(FailureReason::parse(reason.as_str()), Some(reason));
        }
    }
}
