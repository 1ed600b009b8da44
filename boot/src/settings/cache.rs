//! `[cache]`: copies of balances that spare the ledger. `[redis]`: where replicas share them, and
//! what else they share that may be lost.

use std::time::Duration;

use serde::Deserialize;

use super::value::{self, Secret};

/// `[cache]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// For how long a copy is shown without asking the ledger, in milliseconds; 0 to always ask.
    /// Copies that are asked for are replaced before that, all in one statement.
    #[serde(deserialize_with = "value::not_negative")]
    pub fresh_ms: u64,
    /// For how long a copy is kept for when the ledger is out of reach, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub keep_seconds: u64,
    /// Of how many customers a process keeps copies.
    #[serde(deserialize_with = "value::entries")]
    pub max_customers: u32,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            fresh_ms: 160,
            keep_seconds: 3_600,
            max_customers: 20_000,
        }
    }
}

impl CacheSettings {
    /// For how long a copy is shown without asking the ledger.
    pub const fn fresh(&self) -> Duration {
        Duration::from_millis(self.fresh_ms)
    }

    /// For how long a copy is kept.
    pub const fn keep(&self) -> Duration {
        Duration::from_secs(self.keep_seconds)
    }
}

/// `[redis]`: what processes share and nothing is lost with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// Its address, `redis://` or `rediss://`; without one each process has its own copies and
    /// counts for itself. Empty is none.
    #[serde(deserialize_with = "value::secret_if_given")]
    pub url: Option<Secret>,
    /// How long it may take, in milliseconds. While it takes longer, each process is on its own.
    #[serde(deserialize_with = "value::positive")]
    pub answer_within_ms: u64,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            answer_within_ms: 150,
        }
    }
}

impl RedisSettings {
    /// How long it may take.
    pub const fn answer_within(&self) -> Duration {
        Duration::from_millis(self.answer_within_ms)
    }
}
