//! Tiers: which a customer has reached, by current points.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Points;

/// A tier of the programme, lowest first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Tier {
    /// Where every customer begins.
    #[default]
    Bronze,
    /// The second tier.
    Silver,
    /// The third tier.
    Gold,
    /// The highest tier.
    Platinum,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Self; 4] = [Self::Bronze, Self::Silver, Self::Gold, Self::Platinum];

    /// The tier's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bronze => "BRONZE",
            Self::Silver => "SILVER",
            Self::Gold => "GOLD",
            Self::Platinum => "PLATINUM",
        }
    }

    /// Reads a tier's name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From how many current points each tier begins. Thresholds rise strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierThresholds {
    silver: Points,
    gold: Points,
    platinum: Points,
}

/// Thresholds that do not rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tier thresholds must rise: 0 < silver {silver} < gold {gold} < platinum {platinum}")]
pub struct TierThresholdsError {
    silver: Points,
    gold: Points,
    platinum: Points,
}

impl TierThresholds {
    /// Thresholds in points; Bronze begins at zero.
    ///
    /// # Errors
    /// When they do not rise strictly.
    pub fn new(
        silver: Points,
        gold: Points,
        platinum: Points,
    ) -> Result<Self, TierThresholdsError> {
        if Points::ZERO < silver && silver < gold && gold < platinum {
            Ok(Self {
                silver,
                gold,
                platinum,
            })
        } else {
            Err(TierThresholdsError {
                silver,
                gold,
                platinum,
            })
        }
    }

    /// The tier that this many current points reach.
    pub fn tier_for(&self, current: Points) -> Tier {
        if current >= self.platinum {
            Tier::Platinum
        } else if current >= self.gold {
            Tier::Gold
        } else if current >= self.silver {
            Tier::Silver
        } else {
            Tier::Bronze
        }
    }

    /// The tier a customer is due, or nothing: tiers only rise.
    pub fn due(&self, current: Points, tier: Tier) -> Option<Tier> {
        let reached = self.tier_for(current);
        (reached > tier).then_some(reached)
    }

    /// From how many current points `tier` begins.
    pub fn threshold(&self, tier: Tier) -> Points {
        match tier {
            Tier::Bronze => Points::ZERO,
            Tier::Silver => self.silver,
            Tier::Gold => self.gold,
            Tier::Platinum => self.platinum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds() -> TierThresholds {
        let p = |n| Points::new(n).expect("positive");
        TierThresholds::new(p(500), p(1500), p(3000)).expect("rising")
    }

    #[test]
    fn a_tier_begins_at_its_threshold_and_never_falls() {
        let p = |n| Points::new(n).expect("positive");
        assert_eq!(thresholds().tier_for(p(499)), Tier::Bronze);
        assert_eq!(thresholds().tier_for(p(500)), Tier::Silver);
        assert_eq!(thresholds().tier_for(p(3000)), Tier::Platinum);
        assert_eq!(thresholds().due(p(1499), Tier::Silver), None);
        assert_eq!(thresholds().due(p(1500), Tier::Silver), Some(Tier::Gold));
        assert_eq!(thresholds().due(p(0), Tier::Gold), None);
    }
}
