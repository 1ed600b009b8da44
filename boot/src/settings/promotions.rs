//! `[promotions]`: which types have a meaning of their own, and when a claim counts as left lying.

use std::collections::BTreeSet;

use domain::PromotionType;
use serde::Deserialize;

use super::value;

/// `[promotions]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromotionSettings {
    /// The type of the promotion that is assigned to whoever registers.
    pub welcome_type: PromotionType,
    /// The types of which only one promotion may be active at a time. A promotion keeps what held
    /// when it was made.
    pub exclusive_types: BTreeSet<PromotionType>,
    /// A claim, or a job that assigns a promotion, that has not moved for so many seconds is
    /// started again unless it is running.
    #[serde(deserialize_with = "value::positive")]
    pub restart_after_seconds: u64,
}

impl Default for PromotionSettings {
    fn default() -> Self {
        let welcome = PromotionType::welcome();
        Self {
            exclusive_types: BTreeSet::from([welcome.clone()]),
            welcome_type: welcome,
            restart_after_seconds: 2,
        }
    }
}
