//! `[ranking]`: who has earned most.

use std::time::Duration;

use serde::Deserialize;

use super::value;

/// `[ranking]`. It is in Redis where there is one (`[redis]`), otherwise in the memory of each api.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RankingSettings {
    /// How often it looks for what was committed, in milliseconds.
    #[serde(deserialize_with = "value::positive")]
    pub poll_ms: u64,
    /// How far it may lag behind what was committed before it is not shown any more, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub max_lag_seconds: u64,
    /// How often it is made anew from the ledger, in seconds; `meed temporal apply` puts it into
    /// force.
    #[serde(deserialize_with = "value::positive")]
    pub rebuild_every_seconds: u64,
}

impl Default for RankingSettings {
    fn default() -> Self {
        Self {
            poll_ms: 200,
            max_lag_seconds: 60,
            rebuild_every_seconds: 86_400,
        }
    }
}

impl RankingSettings {
    /// How often it looks for what was committed.
    pub const fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// How far it may lag behind.
    pub const fn max_lag(&self) -> Duration {
        Duration::from_secs(self.max_lag_seconds)
    }
}
