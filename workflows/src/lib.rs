//! The flows: one workflow per file, each the story of what happens in which order.
//!
//! Workflow code is deterministic and replayed. Numbers come from activities (`contract`), whose
//! results are recorded; time limits come with the input or from `options`.

#![expect(
    missing_docs,
    reason = "the SDK's macros make public items without documentation"
)]

pub mod assign_promotion;
pub mod award;
pub mod claim_promotion;
pub mod contract;
pub mod id;
pub mod options;
pub mod prune;
pub mod rebuild_ranking;
pub mod reconcile;
pub mod redeem;
pub mod relay;
mod step;
pub mod tier_upgrade;
pub mod visibility;

/// The names of all flows, as operators see them.
pub const NAMES: [&str; 9] = [
    "AssignPromotion",
    "AwardBatch",
    "ClaimPromotion",
    "Prune",
    "RebuildRanking",
    "Reconcile",
    "Redeem",
    "Relay",
    "TierUpgrade",
];

pub use assign_promotion::AssignPromotion;
pub use award::AwardBatch;
pub use claim_promotion::ClaimPromotion;
pub use prune::Prune;
pub use rebuild_ranking::RebuildRanking;
pub use reconcile::Reconcile;
pub use redeem::Redeem;
pub use relay::Relay;
pub use tier_upgrade::TierUpgrade;
