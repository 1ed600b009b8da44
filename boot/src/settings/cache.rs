//! `[cache]`: copies of balances that spare the ledger.

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
    /// How long Redis may take, in milliseconds. While it takes longer, the ledger is asked, and
    /// what one replica has shown does not bind the others.
    #[serde(deserialize_with = "value::positive")]
    pub redis_answer_within_ms: u64,
    /// The Redis that replicas share copies in, `redis://` or `rediss://`; without one each process
    /// has its own. Empty is none.
    #[serde(deserialize_with = "value::secret_if_given")]
    pub redis_url: Option<Secret>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            fresh_ms: 250,
            keep_seconds: 3_600,
            max_customers: 20_000,
            redis_answer_within_ms: 150,
            redis_url: None,
        }
    }
}

impl CacheSettings {
    /// For how long a copy is shown without asking the ledger.
    pub const fn fresh(&self) -> Duration {
        Duration::from_millis(self.fresh_ms)
    }

    /// How long Redis may take.
    pub const fn redis_answer_within(&self) -> Duration {
        Duration::from_millis(self.redis_answer_within_ms)
    }

    /// For how long a copy is kept.
    pub const fn keep(&self) -> Duration {
        Duration::from_secs(self.keep_seconds)
    }
}
