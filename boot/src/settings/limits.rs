//! `[limits]`: how much the API takes from one client, and at once.

use serde::Deserialize;

use super::value;

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSettings {
    /// Reading: balances, histories, redemptions.
    pub read: ClassLimits,
    /// Everything that changes something and is no other class.
    pub write: ClassLimits,
    /// Spending points.
    pub redeem: ClassLimits,
    /// Answers to callbacks.
    pub callback: ClassLimits,
    /// Registering, logging in and asking for tokens; by address, as nobody is known yet.
    pub auth: ClassLimits,
    /// How many requests of a process may wait at once for a redemption's end; those of one
    /// client, half as many.
    #[serde(deserialize_with = "value::count")]
    pub max_waiting: u32,
    /// How many redemptions of a process may be on their way at once, from being accepted until they
    /// have ended or wait for their merchant to call back; those of one client, half as many.
    #[serde(deserialize_with = "value::count")]
    pub max_starting: u32,
}

/// The limits of one class of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimits {
    /// How many requests a client may make at once after a pause.
    #[serde(deserialize_with = "value::count")]
    pub capacity: u32,
    /// How many more it may make each second.
    #[serde(deserialize_with = "value::count")]
    pub refill_per_second: u32,
    /// How many requests may be under way in a process; those of one client, half as many.
    #[serde(deserialize_with = "value::count")]
    pub max_concurrent: u32,
}

impl ClassLimits {
    const fn new(capacity: u32, refill_per_second: u32, max_concurrent: u32) -> Self {
        Self {
            capacity,
            refill_per_second,
            max_concurrent,
        }
    }
}

impl Default for LimitsSettings {
    fn default() -> Self {
        Self {
            read: ClassLimits::new(2_000, 1_000, 512),
            write: ClassLimits::new(1_000, 500, 256),
            redeem: ClassLimits::new(500, 250, 512),
            callback: ClassLimits::new(1_000, 500, 256),
            auth: ClassLimits::new(100, 10, 64),
            max_waiting: 1_000,
            max_starting: 128,
        }
    }
}
