//! The messages Meed publishes, as they stand on the wire.
//!
//! `asyncapi.yaml` describes each; these types are what writes them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    CustomerId, EventType, Points, Promotion, PromotionId, PromotionType, Tier,
    redemption::{FailureReason, RedemptionState},
};

/// Topic names of everything Meed publishes.
pub mod topic {
    /// One confirmation for each event that was awarded.
    pub const REWARD_CONFIRMED: &str = "reward-confirmed";
    /// One answer for each redemption.
    pub const REDEEM_CONFIRMED: &str = "redeem-confirmed";
    /// Every change of a customer's current total.
    pub const POINTS_ADDED: &str = "loyalty.pointsAdded.v2";
    /// Every tier upgrade.
    pub const TIER_UPGRADED: &str = "loyalty.tierUpgraded.v1";
    /// What happens to players.
    pub const PLAYERS: &str = "players";
    /// What players are to be told.
    pub const NOTIFICATIONS: &str = "notifications";
    /// Messages that were refused, with their reason.
    pub const DEAD_LETTER: &str = "dead-letter";
}

/// `reward-confirmed`: an event was awarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewardConfirmed {
    /// This message's own id, the same each time it is published.
    pub event_id: String,
    /// Whose points.
    pub customer_id: CustomerId,
    /// How many were awarded.
    pub points_awarded: Points,
    /// The available balance right after this event, in input order.
    pub balance_after: Points,
    /// The event that was awarded.
    pub source_event_id: String,
    /// When the award was posted.
    pub timestamp: DateTime<Utc>,
}

/// `loyalty.pointsAdded.v2`: the current total of a customer changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PointsAdded {
    /// Whose points.
    pub user_id: CustomerId,
    /// Current points (available and held) after the change.
    pub total_points: Points,
    /// The true, signed change in points.
    pub difference: i64,
}

/// `players`: somebody registered as one of Meed's own users. Meed reads it as it reads those of
/// others, and opens the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayerRegistered {
    /// Always PLAYER_REGISTERED.
    #[serde(rename = "eventType")]
    pub event_type: EventType,
    /// The player.
    pub user_id: CustomerId,
}

impl PlayerRegistered {
    /// The message about this player.
    pub const fn new(user_id: CustomerId) -> Self {
        Self {
            event_type: EventType::PlayerRegistered,
            user_id,
        }
    }
}

/// `redeem-confirmed`: how a redemption ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedeemConfirmed {
    /// Which redemption.
    pub redeem_request_id: String,
    /// Whose points.
    pub customer_id: CustomerId,
    /// How many points were deducted; zero when it failed.
    pub points_deducted: Points,
    /// The available balance after it.
    pub balance_after: Points,
    /// SUCCESS or FAILED.
    pub status: RedemptionState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// When it ended.
    pub timestamp: DateTime<Utc>,
}

/// A product the customer may like, as the Product Service gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// The product.
    pub product_id: String,
    /// Its name.
    pub name: String,
    /// Its price, an exact decimal as text.
    pub price: String,
}

/// `loyalty.tierUpgraded.v1`: a customer reached a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierUpgraded {
    /// Which customer.
    pub user_id: CustomerId,
    /// The tier before.
    pub previous_tier: Tier,
    /// The tier now.
    pub new_tier: Tier,
    /// Current points when the tier was given.
    pub current_points: Points,
    /// When it was given.
    pub upgraded_at: DateTime<Utc>,
    /// Up to three products.
    pub recommendations: Vec<Recommendation>,
    /// Where to answer that the customer was told.
    pub callback_id: String,
}

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationType {
    /// A promotion was assigned to the player.
    Promotion,
}

/// `notifications`: something to tell a player.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Whom.
    pub user_id: CustomerId,
    /// What it is about.
    #[serde(rename = "eventType")]
    pub event_type: NotificationType,
    /// The promotion that was assigned.
    pub content: PromotionContent,
}

/// A promotion as players are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionContent {
    /// Which one.
    pub id: PromotionId,
    /// Its title.
    pub title: String,
    /// Its terms in a few words.
    pub description: String,
    /// Whether it can be claimed.
    pub is_active: bool,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: PromotionType,
    /// Its worth, an exact decimal as text.
    pub amount: String,
    /// From when it holds.
    pub start_date: DateTime<Utc>,
    /// The first instant at which it does not hold any more.
    pub end_date: DateTime<Utc>,
}

impl Notification {
    /// Tells a player that a promotion was assigned to them.
    pub fn assigned(promotion: &Promotion, user_id: CustomerId) -> Self {
        let terms = &promotion.terms;
        Self {
            user_id,
            event_type: NotificationType::Promotion,
            content: PromotionContent {
                id: promotion.promotion_id.clone(),
                title: terms.title.clone(),
                description: terms.description.clone(),
                is_active: terms.is_active,
                kind: terms.kind.clone(),
                amount: terms.amount.to_string(),
                start_date: terms.starts_at,
                end_date: terms.ends_at,
            },
        }
    }
}
