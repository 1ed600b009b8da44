//! Meed's topics, as its message contracts name them.

/// What Meed reads: events first, requests to redeem last.
pub const INPUTS: [&str; 7] = [
    "reward-events",
    "orders",
    "orders.orderCompleted.v1",
    "orders.orderCompleted.v2",
    "users.userCreated.v1",
    "players",
    REDEEM_EVENTS,
];

/// Requests to redeem.
pub const REDEEM_EVENTS: &str = "redeem-events";
/// One confirmation for each event that gave points.
pub const REWARD_CONFIRMED: &str = "reward-confirmed";
/// One answer for each redemption.
pub const REDEEM_CONFIRMED: &str = "redeem-confirmed";
/// Every change of a customer's current total.
pub const POINTS_ADDED: &str = "loyalty.pointsAdded.v2";
/// Every tier upgrade.
pub const TIER_UPGRADED: &str = "loyalty.tierUpgraded.v1";
/// Messages that were refused.
pub const DEAD_LETTER: &str = "dead-letter";

/// What Meed publishes.
pub const OUTPUTS: [&str; 5] = [
    REWARD_CONFIRMED,
    REDEEM_CONFIRMED,
    POINTS_ADDED,
    TIER_UPGRADED,
    DEAD_LETTER,
];
