//! `[sockets]`: WebSockets on which players are told things as they happen.

use std::time::Duration;

use serde::Deserialize;

use super::value;

/// `[sockets]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketSettings {
    /// How many may be open in a process. A tenth of them may be of clients that have not said yet
    /// who they are, and half of that tenth from one address.
    #[serde(deserialize_with = "value::entries")]
    pub max_open: u32,
    /// How many of them may be of one player.
    #[serde(deserialize_with = "value::count")]
    pub max_per_user: u32,
    /// How long a client may take to say who it is, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub authenticate_within_seconds: u64,
    /// How often a client is asked whether it is there, in seconds. One that has not answered by
    /// the next time is gone. Proxies must wait longer than two of these.
    #[serde(deserialize_with = "value::positive")]
    pub ping_every_seconds: u64,
    /// How long a client may take to read what it is sent, in seconds.
    #[serde(deserialize_with = "value::positive")]
    pub read_within_seconds: u64,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            max_open: 12_000,
            max_per_user: 10,
            authenticate_within_seconds: 5,
            ping_every_seconds: 30,
            read_within_seconds: 10,
        }
    }
}

impl SocketSettings {
    /// How long a client may take to say who it is.
    pub const fn authenticate_within(&self) -> Duration {
        Duration::from_secs(self.authenticate_within_seconds)
    }

    /// How often a client is asked whether it is there.
    pub const fn ping_every(&self) -> Duration {
        Duration::from_secs(self.ping_every_seconds)
    }

    /// How long a client may take to read what it is sent.
    pub const fn read_within(&self) -> Duration {
        Duration::from_secs(self.read_within_seconds)
    }
}
